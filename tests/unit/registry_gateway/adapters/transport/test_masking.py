"""What was sent to a server is not shown when it comes back."""

import base64
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.errors import RegistryDenied, Violation
from services.registry_gateway.adapters.transport.masking import Secrets

PASSWORD = "pä§s w0rd+/long"
LOGIN = f"me:{PASSWORD}"
BASIC = base64.b64encode(LOGIN.encode()).decode()


@pytest.fixture
def secrets() -> Secrets:
    known = Secrets()
    known.sent({"Authorization": f"Basic {BASIC}"}, None)
    known.sent({"Authorization": "Bearer eyJhbGciOi.J9.abcdefgh"}, None)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    known.sent(form, b"grant_type=refresh_token&refresh_token=identity%2Btoken&scope=x")
    return known


@pytest.mark.parametrize(
    "echo",
    [
        f"Basic {BASIC}",
        BASIC.lower(),
        BASIC.rstrip("="),
        LOGIN,
        PASSWORD,
        PASSWORD.upper(),
        quote(PASSWORD, safe=""),
        PASSWORD.encode("unicode_escape").decode(),
        base64.b64encode(PASSWORD.encode()).decode(),
        PASSWORD.encode().hex(),
        "Bearer eyJhbGciOi.J9.abcdefgh",
        "identity+token",
        "identity%2Btoken",
    ],
)
def test_every_form_of_a_secret_is_masked(secrets: Secrets, echo: str) -> None:
    shown = secrets.masked(f"denied ({echo}) here")

    assert "[masked]" in shown
    for part in (PASSWORD[:8], BASIC[:8], "eyJhbGci", "identity", quote(PASSWORD)[:8]):
        assert part.casefold() not in shown.casefold()
    assert shown.startswith("denied (")
    assert shown.endswith(") here")


def test_a_secret_that_was_cut_at_its_end_is_masked(secrets: Secrets) -> None:
    assert secrets.masked("token eyJhbGciOi.J9.ab") == "token [masked]"


def test_a_short_secret_is_masked_as_a_word_only() -> None:
    secrets = Secrets()
    secrets.remember("test")

    assert secrets.masked("latest test (test) test:me") == "latest [masked] ([masked]) [masked]:me"


def test_an_error_is_masked_in_all_its_texts(secrets: Secrets) -> None:
    with pytest.raises(RegistryDenied) as caught, secrets.masking():
        raise RegistryDenied(
            f"denied: {PASSWORD}",
            hint=BASIC,
            metadata={"code": LOGIN},
            violations=[Violation(subject=PASSWORD, description=BASIC)],
        )

    error = caught.value
    texts = [str(error), error.message, error.hint, *error.metadata.values()]
    texts += [text for one in error.violations for text in (one.subject, one.description)]
    assert all("[masked]" in text and PASSWORD not in text and BASIC not in text for text in texts)


@given(
    secret=st.text(min_size=8, max_size=40), before=st.text(max_size=20), after=st.text(max_size=20)
)
def test_any_secret_of_eight_characters_is_masked(secret: str, before: str, after: str) -> None:
    secrets = Secrets()
    secrets.remember(secret)

    assert secret not in secrets.masked(before + secret + after) or secret in "[masked]"


@given(st.text(max_size=60))
def test_what_holds_no_secret_stays_as_it_is(text: str) -> None:
    secrets = Secrets()
    secrets.remember("\ue000" * 9)

    assert secrets.masked(text.replace("\ue000", "")) == text.replace("\ue000", "")
