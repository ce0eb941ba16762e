"""Stored credentials as values, and the rules that hold for secrets."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from services.core.errors import CredentialUnusable, RequestInvalid

MAX_SECRET_CHARACTERS: Final = 16 * 1024
DEFAULT_SECONDS: Final = 300.0
"""How long the output of a command holds that does not say it itself."""

_MAX_SECONDS: Final = 24 * 3600.0


class Source(StrEnum):
    """Where the value of a credential comes from."""

    VALUE = "value"
    COMMAND = "command"
    OAUTH = "oauth"


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialKey:
    """Whose credential it is: of an integration, for a project's folder or for the user."""

    integration: str
    project: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What is stored.

    Attributes:
        key: whose it is.
        source: where its value comes from.
        domains: where it may be sent: those that the integration had when it was stored.
        create_time: when it was stored.
        stored_in: `file` or `keyring`, or `command` for what is not stored.
        secret: the value, or for OAuth the refresh token; empty for a command.
        command: the command.
        access_token: OAuth's current token; empty if none was had.
        expire_time: when that ends; None where the issuer does not say.
    """

    key: CredentialKey
    source: Source
    domains: tuple[str, ...]
    create_time: datetime
    stored_in: str = "file"
    secret: str = field(default="", repr=False)
    command: str = ""
    access_token: str = field(default="", repr=False)
    expire_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class SecretValue:
    """The value of a credential, and until when it holds; None for as long as it is stored."""

    value: str = field(repr=False)
    expire_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Missing:
    """Why a credential has no value, and what its user can do about it."""

    why: str
    how: str


def check_secret(text: str) -> str:
    """Returns a secret that fits into a header.

    Raises:
        RequestInvalid: it is empty, of several lines, has control characters, or is too long.
    """
    if not text.strip():
        raise RequestInvalid(
            "the secret is empty", hint="give the key or token as the service shows it"
        )
    if len(text) > MAX_SECRET_CHARACTERS:
        raise RequestInvalid(
            f"the secret has {len(text)} characters; at most {MAX_SECRET_CHARACTERS} are accepted"
        )
    if "\n" in text or "\r" in text:
        raise RequestInvalid(
            "the secret has several lines", hint="a header takes one line; give the token alone"
        )
    if not all(" " <= character <= "~" for character in text):
        raise RequestInvalid(
            "the secret has characters that no header can hold",
            hint="copy it again; only printable ASCII characters are accepted",
        )
    return text


def parse_output(output: str, *, now: datetime) -> SecretValue:
    """Returns what a command says: a line, or `{"value": …, "expires_in": seconds}`.

    Raises:
        CredentialUnusable: it says no usable secret.
    """
    seconds = DEFAULT_SECONDS
    text = output.removesuffix("\n").removesuffix("\r")
    if text.lstrip().startswith("{"):
        document = _json(text)
        text = document.get("value", "")
        seconds = document.get("expires_in", DEFAULT_SECONDS)
        if not isinstance(text, str) or not isinstance(seconds, int | float):
            raise CredentialUnusable("the command's JSON has no usable `value` or `expires_in`")
    try:
        value = check_secret(text)
    except RequestInvalid as error:
        raise CredentialUnusable(f"the command's output cannot be used: {error.message}") from error
    bounded = min(max(float(seconds), 0.0), _MAX_SECONDS)
    return SecretValue(value, datetime.fromtimestamp(now.timestamp() + bounded, UTC))


def _json(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CredentialUnusable("the command's output looks like JSON and is not") from error
    if not isinstance(document, dict):
        raise CredentialUnusable("the command's JSON is not an object")
    return document
