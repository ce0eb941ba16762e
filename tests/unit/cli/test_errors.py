from pathlib import Path

import pytest

from cli.app import dispatch
from cli.context import Context
from cli.errors import describe, way_out
from services.core.errors import (
    LEAVES,
    ArtifactInvalid,
    ManifestUnknown,
    PlanInvalid,
    Violation,
    VmFailed,
)


def context(**attributes: object) -> Context:
    return Context(environment={}, **attributes)  # type: ignore[arg-type]  # a test's own fields


@pytest.mark.parametrize("reason", sorted(LEAVES))
def test_every_reason_has_a_way_out_of_its_own(reason: str) -> None:
    assert "--debug" not in way_out(LEAVES[reason]("it failed"))


def test_an_error_is_what_why_and_what_to_do() -> None:
    error = ManifestUnknown("the registry has no tag x", hint="push it first")

    assert describe(error, context(doing="pull r/x")) == [
        "lns: cannot pull r/x",
        "  why: the registry has no tag x",
        "  try: push it first",
    ]


def test_single_problems_are_listed_with_their_place() -> None:
    error = ArtifactInvalid(
        "2 problems",
        violations=[
            Violation(subject="$.spec.command", description="is required"),
            Violation(subject="", description="and 3 more"),
        ],
    )

    lines = describe(error, context(doing="push x"))

    assert lines[2:4] == ["    - $.spec.command: is required", "    - and 3 more"]


def test_every_problem_of_a_plan_is_shown_with_its_component() -> None:
    """Also where several components have the same trouble."""
    missing = "the registry has no such manifest"
    error = PlanInvalid(
        f"tools[0] t:1: {missing} (and 2 more)",
        violations=[
            Violation(subject="tools[0] t:1", description=missing),
            Violation(subject="tools[1] u:1", description=missing),
            Violation(subject="model m:1", description=missing),
        ],
    )

    assert describe(error, context(doing="run b"))[2:4] == [
        f"    - tools[1] u:1: {missing}",
        f"    - model m:1: {missing}",
    ]


def test_only_debug_shows_reason_metadata_request_and_trace() -> None:
    error = ManifestUnknown("no", metadata={"reference": "r/x"}, retry_after=2)
    plain = "\n".join(describe(error, context()))
    whole = "\n".join(describe(error, context(debug=True, request_id="abc")))

    assert "MANIFEST_UNKNOWN" not in plain
    for part in ("MANIFEST_UNKNOWN", "reference: r/x", "retry after: 2 s", "request id: abc"):
        assert part in whole


def test_texts_of_registries_cannot_steer_the_terminal() -> None:
    error = ManifestUnknown("\x1b[2Jgone", hint="\x07", metadata={"k": "\x1b"})

    assert "\x1b" not in "".join(describe(error, context(debug=True, doing="pull \x1b")))


def test_a_failure_of_the_machine_names_the_file() -> None:
    lines = describe(PermissionError(13, "Permission denied", "/x"), context(doing="push /x"))

    assert lines[1:] == ["  why: /x: Permission denied", "  try: check the permissions"]


def test_a_defect_is_reported_as_one() -> None:
    assert "defect" in describe(KeyError("x"), context())[0]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["nonsense"], 2),
        (["ps", "--nonsense"], 2),
        (["run", "--nonsense"], 125),
        (["run"], 125),
        (["exec"], 125),
        (["config", "get", "nonsense"], 1),
        (["--help"], 0),
    ],
)
def test_exit_codes_tell_misuse_and_failure_apart(
    arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dispatch(arguments, {"HOME": "/nonexistent"}) == code
    assert "Traceback" not in capsys.readouterr().err


MISUSE = [
    (["nonsense"], "lns has no command 'nonsense'"),
    (["ps", "--nonsense"], "No such option"),
    (["pull"], "Missing argument 'REF'"),
    (["completion", "nonsense"], "is not one of 'bash', 'zsh', 'fish'"),
    (["run", "--policy", "/nonexistent", "x"], "File '/nonexistent' does not exist"),
    (["run", "image", "ls", "-x"], "No such option"),
    (["run", "image", "ls", "/"], "'ls /' needs a -- before it"),
    (["resolve", "image", "ls"], "'ls' needs a -- before it"),
    (["service", "nonsense"], "lns service has no command 'nonsense'"),
]


@pytest.mark.parametrize(("arguments", "why"), MISUSE, ids=[" ".join(a) for a, _ in MISUSE])
def test_misuse_is_reported_in_three_lines_too(
    arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    dispatch(arguments, {"HOME": "/nonexistent"})

    what, reason, way_out = capsys.readouterr().err.splitlines()
    assert what == "lns: cannot understand the command line"
    assert why in reason
    assert way_out.startswith("  try: lns ")
    assert "--help" in way_out


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["pull", ""], "lns: cannot pull ''"),
        (["run"], "lns: cannot run"),
        (["run", ""], "lns: cannot run ''"),
        (["login"], "lns: cannot log in to a registry"),
    ],
)
def test_an_argument_that_is_empty_is_shown_as_one(
    arguments: list[str], what: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    # No service can be started below a file.
    (tmp_path / "file").touch()
    dispatch(arguments, {"HOME": "/nonexistent", "LNS_HOME": str(tmp_path / "file")})

    lines = capsys.readouterr().err.splitlines()
    assert what in lines


def test_a_guest_s_last_lines_stay_lines() -> None:
    error = VmFailed("the VMM died", metadata={"details": "one\ntwo \x1b[31mthree"})

    shown = describe(error, context(debug=True))
    at = shown.index("  details: one")
    assert shown[at + 1] == "    two \\x1b[31mthree"
