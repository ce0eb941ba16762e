import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.errors import LimitExceeded, RegistryProtocol
from services.core.platforms import Platform
from services.core.run_plan import Healthcheck
from services.resolver.image_config import ImageConfig, parse_image_config
from tests.support.outcomes import passes_or


def parse(config: Any, **more: Any) -> ImageConfig:
    document = {"os": "linux", "architecture": "amd64", "config": config, **more}
    return parse_image_config(json.dumps(document).encode())


def test_what_an_image_runs_is_read() -> None:
    config = parse(
        {
            "Entrypoint": ["/bin/entry"],
            "Cmd": ["a", "b"],
            "Env": ["PATH=/bin", "EMPTY=", "EQUALS=a=b", "NOVALUE", "=x", "PATH=/usr/bin"],
            "User": "1000:1000",
            "WorkingDir": "/work",
            "Labels": {"k": "v"},
            "ExposedPorts": {"80/tcp": {}, "443/tcp": None},
            "StopSignal": "SIGQUIT",
            "Volumes": {"/data": {}, "cache": {}},
        },
        variant="v8",
    )

    assert config == ImageConfig(
        platform=Platform(os="linux", architecture="amd64", variant="v8"),
        entrypoint=("/bin/entry",),
        command=("a", "b"),
        env={"PATH": "/usr/bin", "EMPTY": "", "EQUALS": "a=b"},
        user="1000:1000",
        workdir="/work",
        labels={"k": "v"},
        exposed_ports=("443/tcp", "80/tcp"),
        stop_signal="SIGQUIT",
        volumes=("/cache", "/data"),
    )


@pytest.mark.parametrize(
    "config",
    [None, {}, {"Cmd": None, "Env": None, "Entrypoint": None, "User": None, "Labels": None}],
)
def test_what_is_absent_is_empty(config: Any) -> None:
    assert parse(config) == ImageConfig(platform=Platform(architecture="amd64"), env={}, labels={})


@pytest.mark.parametrize(
    ("entrypoint", "command", "expected"),
    [
        ([""], ["a"], ((), ("a",))),
        ("", ["a"], ((), ("a",))),
        ("/bin/sh", None, (("/bin/sh",), ())),
        ([], "run it", ((), ("run it",))),
        (["/x"], [""], (("/x",), ())),
        (["/x", ""], ["", ""], (("/x", ""), ("", ""))),
        (None, [None, "x"], ((), ("", "x"))),
    ],
)
def test_a_program_is_read_as_docker_reads_it(
    entrypoint: Any, command: Any, expected: tuple[tuple[str, ...], tuple[str, ...]]
) -> None:
    config = parse({"Entrypoint": entrypoint, "Cmd": command})

    assert (config.entrypoint, config.command) == expected


@pytest.mark.parametrize(
    ("labels", "kept"),
    [
        ({"io.buildpacks.build.metadata": "x" * 300_000}, ["io.buildpacks.build.metadata"]),
        ({"a": "x", "b": "x" * (1 << 20), "c": "x"}, ["a"]),
        ({str(n): "x" for n in range(4097)}, [str(n) for n in range(4096)]),
    ],
)
def test_labels_are_long_and_what_does_not_fit_is_left_out(
    labels: dict[str, str], kept: list[str]
) -> None:
    config = parse({"Labels": labels})

    assert list(config.labels) == kept
    assert len(config.ignored) == (len(kept) < len(labels))


def test_a_shell_may_be_one_text() -> None:
    config = parse({"Shell": "/bin/ash", "Healthcheck": {"Test": ["CMD-SHELL", "check"]}})

    assert config.healthcheck == Healthcheck(argv=("/bin/ash", "check"))


def test_null_among_variables_and_labels_is_empty() -> None:
    config = parse({"Env": [None, "A=1"], "Labels": {"a": None}})

    assert (config.env, config.labels) == ({"A": "1"}, {"a": ""})


@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        ({"os": "linux", "architecture": "x86_64"}, "linux/amd64"),
        ({"os": "", "architecture": "aarch64"}, "linux/arm64"),
        ({"os": None, "architecture": "amd64", "variant": "v1"}, "linux/amd64/v1"),
        ({"architecture": None}, "linux"),
        ({}, "linux"),
    ],
)
def test_a_platform_is_read_in_any_spelling(platform: Any, expected: str) -> None:
    raw = json.dumps({"config": {}, **platform}).encode()

    assert str(parse_image_config(raw).platform) == expected


def test_a_relative_directory_is_below_the_root() -> None:
    assert parse({"WorkingDir": "app"}).workdir == "/app"


@pytest.mark.parametrize(
    "config",
    [
        [],
        "x",
        {"Cmd": [1]},
        {"Cmd": "a\0b"},
        {"Cmd": ["a\0b"]},
        {"Cmd": ["\ud800"]},
        {"Env": {"A": "1"}},
        {"Env": [5]},
        {"User": 5},
        {"User": "a\0"},
        {"WorkingDir": []},
        {"Labels": []},
        {"Labels": {"a": 1}},
        {"Labels": {"\udc00": "x"}},
    ],
)
def test_a_config_of_the_wrong_shape_is_refused(config: Any) -> None:
    with pytest.raises(RegistryProtocol):
        parse(config)


@pytest.mark.parametrize(
    "config",
    [{"Cmd": ["x"] * 4097}, {"Env": ["A=1"] * 4097}, {"Cmd": ["x" * 131_073]},
     {"Env": ["A=" + "x" * 131_073]}],
)  # fmt: skip
def test_a_config_that_is_too_large_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(LimitExceeded):
        parse(config)


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{", b"\xff", b'{"os": 5}', b'{"a":' * 100, b'{"a":1,"a":2}']
)
def test_bytes_that_are_no_config_are_refused(raw: bytes) -> None:
    with pytest.raises(RegistryProtocol):
        parse_image_config(raw)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=5,
)
members = st.sampled_from(["Cmd", "Entrypoint", "Env", "User", "WorkingDir", "Labels", "x"])


@given(st.dictionaries(members, values, max_size=3))
@settings(max_examples=60, deadline=None)
def test_any_config_is_read_or_refused(config: dict[str, Any]) -> None:
    with passes_or(RegistryProtocol, LimitExceeded):
        parse(config)


SECOND = 10**9


@pytest.mark.parametrize(
    ("healthcheck", "expected"),
    [
        ({"Test": ["CMD", "check", "-v"]}, Healthcheck(argv=("check", "-v"))),
        (
            {"Test": ["CMD-SHELL", "curl x || exit 1"]},
            Healthcheck(argv=("/bin/sh", "-c", "curl x || exit 1")),
        ),
        (
            {
                "Test": ["CMD", "c"],
                "Interval": 5 * SECOND,
                "Timeout": SECOND // 2,
                "StartPeriod": 60 * SECOND,
                "StartInterval": SECOND,
                "Retries": 7,
            },
            Healthcheck(
                argv=("c",), interval=5, timeout=0.5, start_period=60, start_interval=1, retries=7
            ),
        ),
        ({"Test": ["CMD", "c"], "Interval": 0, "Retries": 0}, Healthcheck(argv=("c",))),
        ({"Test": ["NONE"]}, None),
        ({"Test": []}, None),
        ({"Test": None}, None),
        ({}, None),
        (None, None),
    ],
)
def test_a_health_check_is_read_with_dockers_defaults(
    healthcheck: Any, expected: Healthcheck | None
) -> None:
    config = parse({"Healthcheck": healthcheck})
    assert (config.healthcheck, config.ignored) == (expected, ())


def test_a_shell_of_the_image_runs_its_health_check() -> None:
    config = parse({"Shell": ["/bin/bash", "-lc"], "Healthcheck": {"Test": ["CMD-SHELL", "x"]}})
    assert config.healthcheck == Healthcheck(argv=("/bin/bash", "-lc", "x"))


@pytest.mark.parametrize(
    "healthcheck",
    [
        {"Test": ["EXEC", "x"]},
        {"Test": ["CMD"]},
        {"Test": ["CMD", "x"], "Interval": -1},
        {"Test": ["CMD", "x"], "Timeout": 10**18},
        {"Test": ["CMD", "x"], "Retries": -1},
    ],
)
def test_a_health_check_that_cannot_be_run_is_said_to_be_ignored(healthcheck: Any) -> None:
    config = parse({"Healthcheck": healthcheck})
    assert config.healthcheck is None
    assert len(config.ignored) == 1
