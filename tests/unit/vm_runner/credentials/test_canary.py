"""A key that was typed, stored, printed by a command or issued is in no message of a failure.

What a message, its hint, its causes and their traces would show is searched, as a log has them.
"""

import json
import traceback
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from services.chassis.blocking import Blocking
from services.core.errors import CredentialUnusable, LnsError, RequestInvalid, SettingsInvalid
from services.core.integrations.catalogue import shipped_catalogue
from services.vm_runner.adapters.credentials.commands import ShellCommands
from services.vm_runner.adapters.credentials.credential_file import CredentialFile
from services.vm_runner.adapters.credentials.oauth_issuer import OAuthIssuer
from services.vm_runner.credentials.credential import CredentialKey
from services.vm_runner.credentials.vault import Vault
from tests.unit.vm_runner.adapters.credentials.test_oauth_issuer import Issuer, serving

CANARY = "canary-5b0e7c3d9a2f4816"
KEY = CredentialKey(integration="anthropic")
ANTHROPIC = shipped_catalogue().get("anthropic")


@pytest.fixture
def blocking() -> Iterator[Blocking]:
    with Blocking(2) as one:
        yield one


class World:
    """A vault over real adapters, and the file below them."""

    def __init__(self, tmp_path: Path, blocking: Blocking) -> None:
        self.path = tmp_path / "store.json"
        self.printed = tmp_path / "printed"
        self.printed.write_text(CANARY)
        self.issuer = OAuthIssuer(blocking)
        records = CredentialFile(self.path, blocking=blocking, keyring=lambda: None)
        self.vault = Vault(records, ShellCommands(seconds=5), self.issuer)

    async def value(self, text: str) -> None:
        """Stores a secret."""
        await self.vault.put_value(KEY, ANTHROPIC, text)

    async def command(self, text: str) -> None:
        """Stores a command; `{}` in it is a file with the canary."""
        await self.vault.put_command(KEY, ANTHROPIC, text.replace("{}", str(self.printed)))

    async def spoilt(self, change: Callable[[str], str]) -> None:
        """Has the store be read after something happened to it."""
        await self.value(CANARY)
        self.path.write_text(change(self.path.read_text()))
        await self.vault.list()

    async def open_to_all(self) -> None:
        """Has the store be read that everybody may read."""
        await self.value(CANARY)
        self.path.chmod(0o644)
        await self.vault.list()


FAILURES: dict[str, Callable[[World], Awaitable[Any]]] = {
    "several lines": lambda world: world.value(f"{CANARY}\nmore"),
    "a control character": lambda world: world.value(f"{CANARY}\x00"),
    "too long": lambda world: world.value(CANARY * 10_000),
    "a command that fails": lambda world: world.command("cat {}; cat {} >&2; exit 3"),
    "a command that is killed": lambda world: world.command("cat {}; kill -9 $$"),
    "a command without end": lambda world: world.command("cat {}; yes $(cat {})"),
    "a command of several lines": lambda world: world.command("cat {}; echo; cat {}"),
    "a command's broken JSON": lambda world: world.command('echo "{\\"value\\": \\"$(cat {})"'),
    "a command's strange JSON": lambda world: world.command(
        'echo "{\\"value\\": [\\"$(cat {})\\"]}"'
    ),
    "a command's bytes": lambda world: world.command("cat {}; printf '\\377'"),
    "a store that is cut off": lambda world: world.spoilt(lambda text: text[:-9]),
    "a store with more in it": lambda world: world.spoilt(lambda text: text + CANARY),
    "a store of another version": lambda world: world.spoilt(
        lambda text: json.dumps({**json.loads(text), "version": CANARY})
    ),
    "an entry that is none": lambda world: world.spoilt(
        lambda text: text.replace('"value"', f'"{CANARY}"')
    ),
    "a store for everybody": lambda world: world.open_to_all(),
}  # fmt: skip


def everything_of(error: BaseException) -> str:
    """Returns what messages, logs and `--debug` have of an error, its causes included."""
    parts = ["".join(traceback.format_exception(error)), repr(error)]
    if isinstance(error, LnsError):
        parts += [error.message, error.hint, repr(error.violations), repr(error.metadata)]
    return "\n".join(parts)


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_failure_says_nothing_of_a_key(
    tmp_path: Path, blocking: Blocking, failure: str
) -> None:
    with pytest.raises((CredentialUnusable, RequestInvalid, SettingsInvalid)) as caught:
        await FAILURES[failure](World(tmp_path, blocking))

    assert CANARY not in everything_of(caught.value)


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with serving() as one:
        yield one


@pytest.mark.parametrize(
    "answer",
    [
        {"error": CANARY},
        {"error": "invalid_grant", "error_description": CANARY},
        {"error": [CANARY]},
        f'{{"error": "{CANARY}'.encode(),
        {"access_token": f"{CANARY}\n"},
    ],
)
@pytest.mark.parametrize("status", [200, 400, 500])
async def test_an_issuer_that_repeats_a_token_is_not_quoted(
    blocking: Blocking, issuer: Issuer, answer: Any, status: int
) -> None:
    issuer.answers = lambda _path, _form: (status, answer)

    with pytest.raises(CredentialUnusable) as caught:
        await OAuthIssuer(blocking).refresh(issuer.client, CANARY)

    assert issuer.forms[0]["refresh_token"] == CANARY
    assert CANARY not in everything_of(caught.value)
