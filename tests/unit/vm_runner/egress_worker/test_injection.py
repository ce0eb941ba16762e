"""Secrets in the places of placeholders, and traces of either where they do not belong."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.integrations.definitions import InjectionKind
from services.vm_runner.egress_worker.heads import Header
from services.vm_runner.egress_worker.injection import inject, is_usable, wanted
from services.vm_runner.egress_worker.judge import Judge
from services.vm_runner.egress_worker.orders import Grant, Injection, Inspection, Mode, Placeholder
from services.vm_runner.egress_worker.run_state import RunState
from services.vm_runner.egress_worker.traces import (
    BodyScanner,
    Mask,
    find_in_head,
    forms_of,
    traces_elsewhere,
)

TEXT = "ghp_placeholder0000"
SECRET = "s3cr/et&value"


def injection(kind: InjectionKind, header: str = "") -> Injection:
    return Injection(credential="c", kind=kind, domain="a.test", placeholder=TEXT, header=header)


def basic(user: str, password: str) -> bytes:
    return b"Basic " + base64.b64encode(f"{user}:{password}".encode())


@pytest.mark.parametrize(
    ("one", "header", "injected"),
    [
        (injection(InjectionKind.BEARER), (b"Authorization", b"Bearer " + TEXT.encode()),
         b"Bearer " + SECRET.encode()),
        (injection(InjectionKind.BEARER), (b"AUTHORIZATION", b"bearer  " + TEXT.encode()),
         b"bearer  " + SECRET.encode()),
        (injection(InjectionKind.TOKEN), (b"authorization", b"token " + TEXT.encode()),
         b"token " + SECRET.encode()),
        (injection(InjectionKind.API_KEY, "X-Api-Key"), (b"x-api-key", TEXT.encode()),
         SECRET.encode()),
        (injection(InjectionKind.API_KEY, "Authorization"),
         (b"Authorization", b"GenieKey " + TEXT.encode()), b"GenieKey " + SECRET.encode()),
        (injection(InjectionKind.BASIC), (b"Authorization", basic("x-access-token", TEXT)),
         basic("x-access-token", SECRET)),
        (injection(InjectionKind.BASIC), (b"Authorization", basic(TEXT, "x-oauth-basic")),
         basic(SECRET, "x-oauth-basic")),
    ],
)  # fmt: skip
def test_a_secret_takes_the_place_that_its_injection_names(
    one: Injection, header: Header, injected: bytes
) -> None:
    assert wanted([one], b"/", [header]) == ["c"]
    result = inject([one], b"/", [header, (b"X", b"y")], {"c": SECRET})

    assert result.headers == ((header[0], injected), (b"X", b"y"))
    assert result.credentials == ("c",)


@pytest.mark.parametrize(
    ("one", "header"),
    [
        (injection(InjectionKind.BEARER), (b"Authorization", b"Bearer another")),
        (injection(InjectionKind.BEARER), (b"Authorization", b"Bearer " + TEXT.encode() + b"x")),
        (injection(InjectionKind.BEARER), (b"Authorization", TEXT.encode())),
        (injection(InjectionKind.BEARER), (b"Authorization", b"token " + TEXT.encode())),
        (injection(InjectionKind.BEARER), (b"X-Other", b"Bearer " + TEXT.encode())),
        (injection(InjectionKind.API_KEY, "X-Api-Key"), (b"X-Other", TEXT.encode())),
        (injection(InjectionKind.BASIC), (b"Authorization", b"Basic !!!")),
        (injection(InjectionKind.BASIC), (b"Authorization", basic("a", "b"))),
        (injection(InjectionKind.BASIC), (b"Authorization", basic("a", TEXT + "x"))),
    ],
)
def test_every_other_place_is_left_as_it_is(one: Injection, header: Header) -> None:
    assert wanted([one], b"/", [header]) == []
    result = inject([one], b"/" + TEXT.encode(), [header], {"c": SECRET})

    assert result.headers == (header,)
    assert result.target == b"/" + TEXT.encode()
    assert result.credentials == ()


def test_a_secret_in_a_target_is_escaped() -> None:
    one = injection(InjectionKind.URI)
    result = inject([one], f"/bot{TEXT}/send?t={TEXT}".encode(), [], {"c": SECRET})

    assert result.target == b"/bots3cr%2Fet%26value/send?t=s3cr%2Fet%26value"


def test_a_secret_that_does_not_exist_leaves_the_placeholder() -> None:
    one = injection(InjectionKind.BEARER)
    header = (b"Authorization", b"Bearer " + TEXT.encode())

    assert inject([one], b"/", [header], {}).headers == (header,)


@pytest.mark.parametrize("secret", ["", "a\r\nHost: b", "a\nb", "a\0b", "\t"])
def test_a_secret_that_is_no_line_is_not_usable(secret: str) -> None:
    assert not is_usable(secret)


@given(st.binary(max_size=10), st.binary(min_size=8, max_size=40), st.binary(max_size=10))
def test_a_text_is_found_in_base64_wherever_it_stands(
    before: bytes, text: bytes, after: bytes
) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        encoded = encode(before + text + after)
        assert any(form in encoded for form in forms_of(text))


@given(st.integers(0, 60), st.lists(st.integers(1, 9), min_size=1, max_size=20))
def test_a_placeholder_is_found_in_a_body_however_it_is_cut(at: int, sizes: list[int]) -> None:
    placeholder = Placeholder(text=TEXT, credential="c", domains=("a.test",))
    body = b"x" * at + TEXT.encode() + b"y" * 20
    scanner, found, position = BodyScanner(traces_elsewhere([placeholder], "b.test")), [], 0
    while position < len(body):
        size = sizes[position % len(sizes)]
        found.append(scanner.feed(body[position : position + size]))
        position += size

    assert found.count("c") >= 1


@pytest.mark.parametrize(
    ("host", "elsewhere"),
    [("a.test", False), ("b.a.test", True), ("x.c.test", False), ("c.test", True), ("", True)],
)
def test_a_placeholder_is_at_home_at_its_domains_only(host: str, elsewhere: bool) -> None:
    placeholder = Placeholder(text=TEXT, credential="c", domains=("a.test", "*.c.test"))
    traces = traces_elsewhere([placeholder], host)

    found = find_in_head(traces, b"/?" + TEXT.encode(), [])
    assert (found == "c") is elsewhere


def test_what_a_reply_echoes_is_masked_in_every_form() -> None:
    mask = Mask()
    mask.set([(SECRET, TEXT)])
    echoed = (
        (b"X-Plain", b"<" + SECRET.encode() + b">"),
        (b"X-Quoted", b"s3cr%2Fet%26value"),
        (b"X-Basic", basic("user", SECRET)),
        (b"X-Other", b"harmless"),
    )
    masked = dict(mask.apply(echoed))

    assert masked[b"X-Plain"] == b"<" + TEXT.encode() + b">"
    assert masked[b"X-Quoted"] == TEXT.encode()
    assert b"*" in masked[b"X-Basic"]
    assert masked[b"X-Other"] == b"harmless"


def test_headers_without_secrets_are_the_same_object() -> None:
    mask = Mask()
    headers = ((b"a", b"b"),)
    assert mask.apply(headers) is headers
    mask.set([(SECRET, TEXT), ("abc", "too-short")])
    assert mask.apply(headers) is headers


@pytest.mark.parametrize(
    ("name", "sent"),
    [("a.test", True), ("A.test", True), ("b.test", False), ("xa.test", False), ("", False)],
)
def test_a_connection_gets_the_injections_of_its_own_host_only(name: str, sent: bool) -> None:
    grant = Grant(
        ticket=1,
        connection=1,
        mode=Mode.INSPECT,
        port=443,
        name=name,
        address="192.0.2.1",
        inspection=Inspection(injections=(injection(InjectionKind.BEARER),)),
    )

    judge = Judge(grant, RunState(), office=Unasked())

    assert bool(judge.injections) is sent


class Unasked:
    """Where nothing is reported and nothing asked."""

    async def report(self, message: object) -> None:
        raise AssertionError

    async def ask_credential(self, connection: int, credential: str, **_: str) -> Any:
        raise AssertionError

    async def ask_allowance(self, connection: int, budgets: tuple[str, ...]) -> Any:
        raise AssertionError
