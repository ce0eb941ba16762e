import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from services.chassis.rpc_methods import all_methods
from services.chassis.settings import (
    SECTIONS,
    PeerSettings,
    ProcessSettings,
    ServerSettings,
    TlsSettings,
    split_tcp_address,
    state_directory,
)
from services.chassis.settings_tree import load, render, setting
from services.chassis.settings_values import ByteCount, Seconds
from services.core.errors import SettingsInvalid
from tests.support.outcomes import passes


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    count: int = 1
    name: str = "x"
    size: ByteCount = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    required: str
    flag: bool = False
    ratio: float = 0.5
    wait: Seconds = 30.0
    colour: Colour = Colour.RED
    place: Path = Path("/x")
    hosts: tuple[str, ...] = ()
    weights: Mapping[str, int] = field(default_factory=dict)
    optional: Inner | None = None
    inner: Inner = field(default_factory=lambda: Inner(count=7))
    token: str = field(default="", metadata=setting(secret=True, variable="LNS_THE_TOKEN"))


def loaded(tmp_path: Path, text: str = "", **environment: str) -> Tree:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    return load(Tree, file=file, environment=environment, foreign=frozenset({"other"}))


def problems(tmp_path: Path, text: str = "required: x", **environment: str) -> dict[str, str]:
    with pytest.raises(SettingsInvalid) as caught:
        loaded(tmp_path, text, **environment)
    return {v.subject: v.description for v in caught.value.violations}


def test_a_file_gives_every_kind_of_value(tmp_path: Path) -> None:
    tree = loaded(
        tmp_path,
        """
        required: r
        flag: true
        ratio: 2
        wait: 250ms
        colour: blue
        place: /y
        hosts: [a, b]
        weights: {a: 1}
        optional: {size: 3GiB}
        inner: {name: z}
        token: t
        """,
    )

    assert tree == Tree(
        required="r",
        flag=True,
        ratio=2.0,
        wait=0.25,
        colour=Colour.BLUE,
        place=Path("/y"),
        hosts=("a", "b"),
        weights={"a": 1},
        optional=Inner(size=3 << 30),
        inner=Inner(count=7, name="z"),
        token="t",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    place: Path = field(metadata=setting(default_from=lambda env: Path(env["HOME"]) / "x"))


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    home: Home


def test_a_group_that_nothing_is_given_of_is_made_of_its_defaults() -> None:
    assert load(House, file=None, environment={"HOME": "/h"}) == House(
        home=Home(place=Path("/h/x"))
    )
    given = load(House, file=None, environment={"HOME": "/h", "LNS_HOME__PLACE": "/y"})
    assert given == House(home=Home(place=Path("/y")))


def test_a_variable_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    text = "{required: file, inner: {count: 2}, hosts: [file]}"

    tree = loaded(
        tmp_path,
        text,
        LNS_INNER__COUNT="3",
        LNS_HOSTS="a, b",
        LNS_FLAG="true",
        LNS_WAIT="2h",
        LNS_OPTIONAL__NAME="given",
        LNS_THE_TOKEN="by its own name",
    )

    assert tree.inner == Inner(count=3)
    assert tree.hosts == ("a", "b")
    assert (tree.required, tree.flag, tree.wait) == ("file", True, 7200.0)
    assert tree.optional == Inner(name="given")
    assert tree.token == "by its own name"


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        """
        flag: "yes"
        ratio: true
        wait: 30
        colour: green
        hosts: a
        weights: [a]
        inner: {cuont: 1, size: 10MB}
        unknown: 1
        """,
        LNS_INNER__COUNT="many",
        LNS_TYPO__X="1",
        LNS_PLACE="",
        LNS_WEIGHTS="a=1",
    )

    assert found.keys() == {
        *("required", "flag", "ratio", "wait", "colour", "hosts", "LNS_WEIGHTS"),
        *("inner.cuont", "inner.size", "unknown", "LNS_INNER__COUNT", "LNS_TYPO__X", "LNS_PLACE"),
    }
    assert found["colour"] == "`green` is not one of red, blue"
    assert found["wait"] == "needs a unit: 30s"
    assert found["inner.size"] == "`10MB` is not a size such as 100B, 512KiB, 64MiB, 4GiB"


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("required: x\ninner: 3", "inner"),
        ("- a list", "settings.yaml"),
        ("{unclosed", "settings.yaml"),
        ("required: x\nrequired2: !!python/object:os.system {}", "settings.yaml"),
        ("required: 3", "required"),
        ("{required: x, weights: {1: 2}}", "settings.yaml"),
        ("required: x\nrequired: y", "settings.yaml"),
    ],
)
def test_a_file_that_is_no_settings_is_refused(tmp_path: Path, text: str, subject: str) -> None:
    (found,) = problems(tmp_path, text).keys() - {"required"} or {"required"}

    assert found.endswith(subject)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(SettingsInvalid, match=r"/no/such\.yaml: No such file"):
        load(ProcessSettings, file=Path("/no/such.yaml"), environment={})


def test_variables_and_sections_of_others_are_left_alone(tmp_path: Path) -> None:
    tree = loaded(
        tmp_path,
        "{required: x, other: {anything: 1}}",
        LNS_OTHER__THING="1",
        LNS_TEST_REGISTRY="1",
        PATH="/bin",
    )

    assert tree.required == "x"


def test_settings_print_as_what_would_load_them_with_secrets_masked(tmp_path: Path) -> None:
    tree = loaded(
        tmp_path,
        "{required: x, wait: 90s, weights: {a: 1}, hosts: [h], optional: {size: 64MiB}, token: t}",
    )

    shown = render(tree)

    assert "(hidden)" in shown
    again = yaml.safe_load(shown)
    assert again.pop("token") == "(hidden)"
    assert again["wait"] == "90s"
    assert again["optional"]["size"] == "64MiB"
    assert loaded(tmp_path, yaml.safe_dump({**again, "token": "t"})) == tree


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"LNS_HOME": "/a", "XDG_STATE_HOME": "/b", "HOME": "/c"}, "/a"),
        ({"XDG_STATE_HOME": "/b", "HOME": "/c"}, "/b/lns"),
        ({"XDG_STATE_HOME": "relative", "HOME": "/c"}, "/c/.local/state/lns"),
        ({"HOME": "/c"}, "/c/.local/state/lns"),
        ({"LNS_HOME": "", "HOME": "/c"}, "/c/.local/state/lns"),
    ],
)
def test_the_state_directory_follows_the_environment(
    environment: dict[str, str], expected: str
) -> None:
    assert state_directory(environment) == Path(expected)
    assert load(ProcessSettings, file=None, environment=environment).home == Path(expected)


def test_the_state_directory_of_a_file_gives_way_to_the_variable(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("home: /from-file")

    assert load(ProcessSettings, file=file, environment={"HOME": "/c"}).home == Path("/from-file")
    given = load(ProcessSettings, file=file, environment={"LNS_HOME": "/given"})
    assert given.home == Path("/given")


TLS = TlsSettings(certificate=Path("c"), key=Path("k"), authority=Path("a"))


@pytest.mark.parametrize(
    "listen",
    ["0.0.0.0:1", "127.0.0.1:1", "unix:relative", "unix:/" + "x" * 108, "no-port", ":1", "h:65536"],
)
def test_an_address_that_is_open_to_all_or_none_is_refused(listen: str) -> None:
    with pytest.raises(SettingsInvalid):
        ServerSettings(listen=(listen,))


def test_tcp_needs_tls_or_an_explicit_word() -> None:
    with pytest.raises(SettingsInvalid, match="open to anyone"):
        ServerSettings(listen=("0.0.0.0:1",))

    ServerSettings(listen=("0.0.0.0:1",), tls=TLS, allow={"*": ("*",)})
    ServerSettings(listen=("0.0.0.0:1",), plaintext_tcp=True)
    ServerSettings(listen=("unix:/x",))


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:443", ("::1", 443)),
        ("registry.lns.svc:0", ("registry.lns.svc", 0)),
    ],
)
def test_a_tcp_address_has_a_host_and_a_port(address: str, expected: tuple[str, int]) -> None:
    assert split_tcp_address(address) == expected


def test_every_section_of_the_suite_is_known_to_its_parts() -> None:
    assert {"registry_gateway", "resolver", "materializer", "vm_runner"} <= SECTIONS
    assert not SECTIONS & set(ProcessSettings.__dataclass_fields__)


def test_peers_have_deadlines_by_default() -> None:
    assert 0 < PeerSettings().timeout < PeerSettings().stream_timeout


def test_tcp_with_tls_needs_rules_and_plain_text_cannot_have_any() -> None:
    with pytest.raises(SettingsInvalid, match="nobody could call"):
        ServerSettings(listen=("0.0.0.0:1",), tls=TLS)
    with pytest.raises(SettingsInvalid, match="callers over plain text have none"):
        ServerSettings(listen=("0.0.0.0:1",), plaintext_tcp=True, allow={"*": ("*",)})


@pytest.mark.parametrize(
    ("rule", "meant"),
    [
        ("/lns.vm.v1.VmService/RemoveRum", "RemoveRun"),
        ("/lns.vm.v1.VmServices/*", "VmService/*"),
        ("lns.vm.v1.VmService/RemoveRun", "/lns.vm.v1.VmService/RemoveRun"),
        ("bad", "write `/lns"),
        ("/*", "write `/lns"),
    ],
)
def test_a_rule_that_covers_no_method_is_refused(rule: str, meant: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        ServerSettings(allow={rule: ("x",)})

    assert meant in caught.value.message


def test_rules_name_methods_services_or_all() -> None:
    with passes():
        ServerSettings(allow=dict.fromkeys(("*", "/lns.vm.v1.VmService/*", *all_methods()), ("x",)))


def test_bad_values_are_reported_all_at_once(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("""
        home: relative/path
        nope: 1
        server:
          listen: ["unix:rel", "host", "127.0.0.1:99999"]
          grase: 3s
          grace: 10
          tls: {certificate: /x}
          concurrent_calls: -3
          unary_limit: 0s
          allow: {"bad": [x], "/lns.vm.v1.VmService/Typo": [x]}
        log: {level: loud, format: xml}
        metrics: {listen: nine}
        """)

    with pytest.raises(SettingsInvalid) as caught:
        load(ProcessSettings, file=file, environment={"HOME": "/h"})

    subjects = [one.subject for one in caught.value.violations]
    assert sorted(subjects) == sorted(
        [
            *("nope", "server.grase", "server.grace", "server.concurrent_calls"),
            *["server.listen"] * 3,
            *("server.tls.key", "server.tls.authority", "server.unary_limit"),
            *["server.allow"] * 2,
            *("log.level", "log.format", "metrics.listen"),
        ]
    )
    said = {one.subject: one.description for one in caught.value.violations}
    assert said["server.concurrent_calls"] == "must be at least 1"
    assert said["server.unary_limit"] == "must be at least 1ms"
