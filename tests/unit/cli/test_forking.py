"""`lns run --from` and `lns snapshot RUN`: what the words of the command line mean."""

import click
import pytest

from cli.commands.run import run
from cli.commands.snapshot import snapshot
from cli.context import Context
from cli.run.forking import Fork, make_fork, take_fork
from services.core.errors import RequestInvalid


@pytest.mark.parametrize(
    ("words", "command", "rest"),
    [
        (["agent"], "save", ["agent"]),
        (["agent", "warm"], "save", ["agent", "warm"]),
        (["save", "ls"], "save", ["ls"]),
        (["ls"], "ls", []),
        (["rm", "warm"], "rm", ["warm"]),
    ],
)
def test_the_first_word_is_a_command_or_a_run(
    words: list[str], command: str, rest: list[str]
) -> None:
    assert isinstance(snapshot, click.Group)
    name, _, left = snapshot.resolve_command(click.Context(snapshot), words)
    assert (name, left) == (command, rest)


def flags_of(*words: str) -> dict[str, object]:
    parsed = run.make_context("run", list(words), obj=Context(environment={})).params
    return {name: parsed[name] for name in parsed if name not in _NOT_OF_ORDERS}


_NOT_OF_ORDERS = frozenset(
    {"reference", "detach", "detach_keys", "dry_run", "form", "quiet", "timing", "debug"}
)


@pytest.mark.parametrize("flag", ["-i", "-t", "--cold", "--pull=never", "-e=A=1", "--memory=1g"])
def test_flags_of_what_runs_already_are_refused(flag: str) -> None:
    flags = flags_of("--from", "warm", flag)
    fork = take_fork(flags)
    assert fork == Fork(snapshot="warm", keep_policy=False)
    with pytest.raises(RequestInvalid, match="goes on from a snapshot"):
        make_fork(Context(environment={}), {}, None, fork, **flags)  # type: ignore[arg-type]  # as click has them


def test_a_reference_or_a_command_beside_it_is_refused() -> None:
    for reference, workload in (("image", ()), (None, ("true",))):
        flags = flags_of("--from", "warm")
        fork = take_fork(flags)
        assert fork is not None
        context = Context(environment={}, workload=workload)
        with pytest.raises(RequestInvalid, match=r"^(REF|COMMAND) cannot"):
            make_fork(context, {}, reference, fork, **flags)  # type: ignore[arg-type]  # as click has them


def test_a_policy_is_kept_only_of_a_snapshot() -> None:
    with pytest.raises(RequestInvalid, match="--from"):
        take_fork(flags_of("--keep-policy", "image"))
