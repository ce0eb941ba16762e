from pathlib import Path

import pytest

from cli.app import dispatch
from cli.context import Context
from lns.client.connection.config import config_path, load_config
from lns.client.connection.config_keys import KEYS, check_value
from services.core.errors import SettingsInvalid
from tests.support.outcomes import passes


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "LNS_CONFIG": str(tmp_path / "deep" / "config.yaml")}


@pytest.mark.parametrize(
    ("variables", "path"),
    [
        ({"HOME": "/h"}, "/h/.config/lns/config.yaml"),
        ({"HOME": "/h", "XDG_CONFIG_HOME": "/x"}, "/x/lns/config.yaml"),
        ({"HOME": "/h", "XDG_CONFIG_HOME": "relative"}, "/h/.config/lns/config.yaml"),
        ({"HOME": "/h", "LNS_CONFIG": "/c.yaml"}, "/c.yaml"),
    ],
)
def test_the_file_is_where_the_desktop_has_such_files(variables: dict[str, str], path: str) -> None:
    assert config_path(Context(environment=variables)) == Path(path)


def test_values_are_set_read_and_taken_away(
    environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert dispatch(["config", "get", "cpus"], environment) == 1
    assert dispatch(["config", "set", "cpus", "2"], environment) == 0
    assert dispatch(["config", "set", "memory", "3g"], environment) == 0
    assert dispatch(["config", "get", "cpus"], environment) == 0
    assert capsys.readouterr().out == "2\n"
    assert dispatch(["config", "unset", "cpus"], environment) == 0
    assert dispatch(["config", "unset", "cpus"], environment) == 0
    assert load_config(Context(environment=environment)) == {"memory": "3g"}
    assert Path(environment["LNS_CONFIG"]).stat().st_mode & 0o777 == 0o600


def test_the_environment_stands_above_the_file(environment: dict[str, str]) -> None:
    dispatch(["config", "set", "endpoint-resolver", "unix:/a"], environment)
    environment["LNS_ENDPOINT_RESOLVER"] = "unix:/b"

    assert load_config(Context(environment=environment)) == {"endpoint-resolver": "unix:/b"}


def test_the_list_shows_every_key(
    environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    dispatch(["config", "list", "--format", "{{.Key}}"], environment)

    assert capsys.readouterr().out.split() == list(KEYS)


@pytest.mark.parametrize("key", list(KEYS))
def test_every_key_has_an_example_that_it_accepts(key: str) -> None:
    with passes():
        check_value(key, KEYS[key].example)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("cpus", "many"),
        ("cpus", "0"),
        ("memory", "2x"),
        ("platform", "linux"),
        ("endpoint-resolver", "resolver"),
        ("endpoint-resolver", "unix:relative"),
        ("tls-key", "relative.pem"),
        ("detach-keys", ""),
        ("nonsense", "1"),
    ],
)
def test_other_values_are_refused_with_an_example(key: str, value: str) -> None:
    with pytest.raises(SettingsInvalid) as refusal:
        check_value(key, value)

    assert refusal.value.hint


@pytest.mark.parametrize(
    "text", ["- a list", "cpus: [1]", "nonsense: 1", "a: b: c", "cpus: many", "\x00"]
)
def test_a_file_that_cannot_be_read_is_named(environment: dict[str, str], text: str) -> None:
    path = Path(environment["LNS_CONFIG"])
    path.parent.mkdir()
    path.write_text(text)

    with pytest.raises(SettingsInvalid):
        load_config(Context(environment=environment))
