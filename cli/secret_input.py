"""Secrets from a prompt that does not show them, from standard input, or from a variable."""

import sys

import click

from cli.context import Context
from services.core.errors import RequestInvalid

_MAX_CHARACTERS = 64 * 1024


def read_secret(
    context: Context, *, what: str, from_stdin: bool, from_env: str = "", ways: str
) -> str:
    """Returns a secret.

    Args:
        context: the invocation.
        what: what is asked for, for the prompt.
        from_stdin: read standard input instead of asking.
        from_env: the variable that has it; empty for none.
        ways: the options that give it without a terminal, for the hint.

    Raises:
        RequestInvalid: there is neither a secret nor a terminal to ask at.
    """
    if from_env:
        secret = context.environment.get(from_env, "")
        if not secret:
            raise RequestInvalid(
                f"the variable {from_env} is not set", hint=f"export {from_env}, then try again"
            )
        return secret
    if from_stdin:
        secret = sys.stdin.read(_MAX_CHARACTERS).rstrip("\r\n")
        if not secret:
            raise RequestInvalid("standard input has no secret", hint="pipe it in")
        return secret
    if not sys.stdin.isatty():
        raise RequestInvalid(
            "cannot ask for a secret: standard input is not a terminal",
            hint=f"give {ways}",
        )
    return str(click.prompt(what, hide_input=True, err=True))
