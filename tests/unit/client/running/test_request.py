from pathlib import Path

import pytest
from lns.resolver.v1 import resolver_service_pb2 as pb
from lns.vm.v1 import run_pb2

from lns.client.content.local_files import is_local, refuse_file
from lns.client.running.request import (
    PlanFlags,
    parse_environment,
    parse_labels,
    parse_platform,
    parse_restart,
    resolve_request,
    run_options,
)
from services.core.errors import RequestInvalid

Mode = run_pb2.RestartPolicy


def request(
    flags: PlanFlags | None = None,
    *,
    reference: str | None = "r.example/agents/a:1",
    argv: tuple[str, ...] = (),
    config: dict[str, str] | None = None,
) -> pb.ResolveRequest:
    return resolve_request(
        flags or PlanFlags(),
        reference=reference,
        argv=argv,
        environment={"MINE": "secret"},
        config=config or {},
    )


def test_without_flags_nothing_is_overridden() -> None:
    asked = request()

    assert asked.reference == "r.example/agents/a:1"
    assert asked.overrides == pb.Overrides()
    assert not asked.HasField("platform")
    assert not asked.defaults.HasField("cpus")


def test_every_flag_reaches_the_resolver(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("network: {}")
    asked = request(
        PlanFlags(
            cpus="1500m",
            memory="2g",
            disk="10g",
            name="me",
            policy=policy,
            mount=["r/filesets/f:1:/data"],
            volume=["cache:/cache", "/src:/work:ro"],
            publish=["8080:80"],
            env=["B=2", "A=1", "MINE"],
            workdir="/w",
            user="1000:1000",
            platform="linux/arm64/v8",
            label=["team=a", "flag"],
            entrypoint="/bin/tool",
        ),
        argv=("ls", "-l"),
    )

    overrides = asked.overrides
    assert list(overrides.argv) == ["ls", "-l"]
    assert [(one.name, one.value) for one in overrides.env] == [
        ("A", "1"),
        ("B", "2"),
        ("MINE", "secret"),
    ]
    assert (overrides.cpus, overrides.memory, overrides.disk) == ("1500m", "2g", "10g")
    assert (overrides.user, overrides.workdir, overrides.name) == ("1000:1000", "/w", "me")
    assert list(overrides.ports) == ["8080:80"]
    assert list(overrides.volumes) == ["cache:/cache", "/src:/work:ro"]
    assert list(overrides.mounts) == ["r/filesets/f:1:/data"]
    assert overrides.policy.text == b"network: {}"
    assert dict(overrides.labels) == {"team": "a", "flag": ""}
    assert overrides.entrypoint == "/bin/tool"
    assert asked.platform.variant == "v8"


def test_defaults_of_the_configuration_stand_below_the_flags() -> None:
    asked = request(
        PlanFlags(platform="linux/arm64"),
        config={"cpus": "2", "memory": "1g", "platform": "linux/amd64"},
    )

    assert (asked.defaults.cpus, asked.defaults.memory) == ("2", "1g")
    assert not asked.defaults.HasField("disk")
    assert asked.platform.architecture == "arm64"


@pytest.mark.parametrize(
    ("config", "platform", "emulates"),
    [
        ({}, None, False),
        ({"foreign": "refuse"}, None, False),
        ({"foreign": "emulate"}, None, True),
        ({"foreign": "emulate"}, "linux/amd64", False),
    ],
)
def test_images_of_another_architecture_are_emulated_where_nothing_else_is_asked_for(
    config: dict[str, str], platform: str | None, emulates: bool
) -> None:
    flags = PlanFlags(platform=platform)
    request = resolve_request(flags, reference="r:1", argv=(), environment={}, config=config)

    assert request.emulate_foreign == emulates


def test_a_relative_host_path_is_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    asked = request(PlanFlags(volume=["./src:/work:ro", ".:/all", "name:/x"]))

    assert list(asked.overrides.volumes) == [
        f"{tmp_path}/src:/work:ro",
        f"{tmp_path}:/all",
        "name:/x",
    ]


def test_a_command_alone_is_an_imageless_run() -> None:
    assert request(reference=None, argv=("true",)).WhichOneof("target") == "imageless"


def test_a_lock_is_sent_as_it_is(tmp_path: Path) -> None:
    lock = tmp_path / "lns.lock"
    lock.write_bytes(b"lock: 1\n")

    assert request(PlanFlags(locked=lock), reference=None).lock == b"lock: 1\n"


def test_neither_reference_nor_command_is_refused_with_a_way_out() -> None:
    with pytest.raises(RequestInvalid) as refusal:
        request(reference=None)

    assert "lns run REF" in refusal.value.hint


def test_a_lock_and_a_reference_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(RequestInvalid):
        request(PlanFlags(locked=tmp_path / "lns.lock"))


def test_environment_files_stand_below_the_flags(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("# a comment\n\nA=1\nB=x=y\n MINE \nABSENT\n")

    variables = parse_environment(["A=2"], [file], {"MINE": "m"})

    assert [(one.name, one.value) for one in variables] == [("A", "2"), ("B", "x=y"), ("MINE", "m")]


@pytest.mark.parametrize("entry", ["=value", "", "A B=1"])
def test_a_variable_needs_a_name(entry: str) -> None:
    with pytest.raises(RequestInvalid):
        parse_environment([entry], [], {})


@pytest.mark.parametrize("data", [b"\xff\xfe", b"A=" + b"x" * (1024 * 1024)])
def test_what_is_no_environment_file_is_refused(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "env"
    file.write_bytes(data)

    with pytest.raises(RequestInvalid):
        parse_environment([], [file], {})


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("no", Mode(mode=Mode.MODE_NO)),
        ("always", Mode(mode=Mode.MODE_ALWAYS)),
        ("on-failure", Mode(mode=Mode.MODE_ON_FAILURE)),
        ("on-failure:5", Mode(mode=Mode.MODE_ON_FAILURE, max_restarts=5)),
    ],
)
def test_restart_policies_are_read(text: str, policy: run_pb2.RestartPolicy) -> None:
    assert parse_restart(text) == policy


@pytest.mark.parametrize("text", ["", "never", "always:3", "no:1", "on-failure:", "on-failure:-1"])
def test_other_restart_policies_are_refused(text: str) -> None:
    with pytest.raises(RequestInvalid):
        parse_restart(text)


@pytest.mark.parametrize("text", ["linux", "linux/", "/amd64", "a/b/c/d"])
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(RequestInvalid):
        parse_platform(text)


def test_a_label_needs_a_name() -> None:
    with pytest.raises(RequestInvalid):
        parse_labels(["=x"])


def options(**flags: object) -> run_pb2.RunOptions:
    defaults = {
        "name": None,
        "tty": False,
        "stdin": False,
        "remove": False,
        "cold": False,
        "restart": "no",
        "terminal": None,
        "stop_signal": None,
        "stop_timeout": None,
        "pids_limit": None,
    }
    return run_options(**{**defaults, **flags})  # type: ignore[arg-type]  # one flag at a time


def test_options_of_the_run_are_passed_on() -> None:
    made = options(name="n", stop_signal="sigint", stop_timeout=0.5, pids_limit=9, tty=True)

    assert made.name == "n"
    assert made.stop_signal == "INT"
    assert made.stop_timeout.ToMilliseconds() == 500
    assert made.pids_limit == 9
    assert made.tty


@pytest.mark.parametrize(("text", "rate"), [("50", 50 << 20), ("4Mi", 4 << 20), ("1g", 1 << 30)])
def test_a_rate_of_disks_is_a_size_in_a_second(text: str, rate: int) -> None:
    assert options(disk_rate=text).disk_rate_bytes == rate
    assert options().disk_rate_bytes == 0


@pytest.mark.parametrize("text", ["0", "-1", "fast", "1MB/s"])
def test_a_rate_of_disks_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RequestInvalid):
        options(disk_rate=text)


def test_removing_and_restarting_contradict_each_other() -> None:
    with pytest.raises(RequestInvalid):
        options(remove=True, restart="always")


@pytest.mark.parametrize("reference", ["agent.yaml", "agents/hello.yml", "bundle.JSON"])
def test_a_file_where_a_reference_belongs_gets_a_hint_how_to_run_it(reference: str) -> None:
    with pytest.raises(RequestInvalid, match="is a file") as caught:
        refuse_file(reference)

    assert f"`lns run ./{reference}` runs it" in caught.value.hint


@pytest.mark.parametrize("reference", ["debian:12", "localhost:5000/agents/hello:1", "hello"])
def test_a_reference_is_no_file(reference: str) -> None:
    refuse_file(reference)

    assert not is_local(reference)


@pytest.mark.parametrize("path", ["./a.yaml", "../a", "/x/a.json", "~/a.yaml"])
def test_a_path_is_a_file(path: str) -> None:
    assert is_local(path)
