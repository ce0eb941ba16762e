"""What can be a secret, and what a command may say."""

from datetime import UTC, datetime, timedelta

import pytest

from services.core.errors import CredentialUnusable, RequestInvalid
from services.vm_runner.credentials.credential import (
    MAX_SECRET_CHARACTERS,
    Credential,
    CredentialKey,
    SecretValue,
    Source,
    check_secret,
    parse_output,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        ("  \t", "is empty"),
        ("one\ntwo", "has several lines"),
        ("one\rtwo", "has several lines"),
        ("caf\u00e9", "characters that no header can hold"),
        ("a\x00b", "characters that no header can hold"),
        ("a\u200b", "characters that no header can hold"),
        ("x" * (MAX_SECRET_CHARACTERS + 1), "at most"),
    ],
)
def test_what_cannot_be_in_a_header_is_no_secret(text: str, why: str) -> None:
    with pytest.raises(RequestInvalid, match=why) as caught:
        check_secret(text)

    assert not text.strip() or text[:50] not in caught.value.message


@pytest.mark.parametrize(
    "text", ["sk-1", "with spaces inside", "~!@#", "x" * MAX_SECRET_CHARACTERS]
)
def test_a_printable_line_is_a_secret(text: str) -> None:
    assert check_secret(text) == text


@pytest.mark.parametrize(
    ("output", "value", "seconds"),
    [
        ("token\n", "token", 300),
        ("token\r\n", "token", 300),
        ("token", "token", 300),
        ('{"value": "token", "expires_in": 60}', "token", 60),
        ('{"value": "token", "expires_in": 1e9}', "token", 86400),
        ('{"value": "token", "expires_in": -5}', "token", 0),
        ('{"value": "token"}\n', "token", 300),
    ],
)
def test_a_command_says_a_line_or_how_long_it_holds(
    output: str, value: str, seconds: float
) -> None:
    assert parse_output(output, now=NOW) == SecretValue(value, NOW + timedelta(seconds=seconds))


@pytest.mark.parametrize(
    "output",
    ["", "\n", "a\nb\n", "{", "[]\n\n", '{"value": 1}', '{"value": "x", "expires_in": "y"}'],
)
def test_what_a_command_says_otherwise_is_refused_without_being_shown(output: str) -> None:
    with pytest.raises(CredentialUnusable, match="the command's"):
        parse_output(output, now=NOW)


def test_no_secret_is_in_a_representation() -> None:
    credential = Credential(
        key=CredentialKey(integration="x"),
        source=Source.OAUTH,
        domains=("a.example",),
        create_time=NOW,
        secret="canary-1",
        access_token="canary-2",
    )

    assert "canary" not in repr(credential)
    assert "canary" not in repr(SecretValue("canary"))
