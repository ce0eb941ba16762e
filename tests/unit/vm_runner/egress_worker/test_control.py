"""The messages between the runner and an egress worker: round trips, bounds, hostile bytes."""

import dataclasses
import typing

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.egress.requests import CompiledRule, RouteRules
from services.vm_runner.egress_worker import control, orders, reports
from tests.support.outcomes import passes_or

_TO_WORKER = typing.get_args(orders.ToWorker)
_TO_RUNNER = typing.get_args(reports.ToRunner)

_ids = st.integers(1, 0xFFFF_FFFF)
_counts = st.integers(0, 1 << 62)
_ports = st.integers(1, 0xFFFF)
_words = st.text(max_size=128)
_lines = st.text(max_size=300)

_rule_sets = st.builds(
    RouteRules,
    rules=st.lists(st.builds(CompiledRule, _words, _lines), max_size=4).map(tuple),
    match=_words,
    place=_lines,
    source=_words,
    editable=st.booleans(),
)
_injections = st.builds(
    orders.Injection,
    credential=_words,
    kind=st.sampled_from(orders.InjectionKind),
    domain=_words,
    header=_words,
    placeholder=_words,
    integration=_words,
)
_inspections = st.builds(
    orders.Inspection,
    rules=st.lists(_rule_sets, max_size=3).map(tuple),
    injections=st.lists(_injections, max_size=3).map(tuple),
    budgets=st.lists(_words, max_size=3).map(tuple),
    usage=_words,
)
_leaves = st.builds(orders.Leaf, chain=st.binary(), key=st.binary())
_grants = st.builds(
    orders.Grant,
    ticket=_ids,
    connection=_ids,
    mode=st.sampled_from(orders.Mode),
    port=_ports,
    name=_words,
    address=_words,
    inspection=_inspections,
    leaf=st.none() | _leaves,
    upstream=st.builds(orders.UpstreamTrust, ca=_lines, identity=st.none() | _leaves),
)
_to_worker = st.one_of(
    _grants,
    st.builds(orders.Refuse, ticket=_ids, reason=_words),
    st.builds(orders.Secret, credential=_words, value=st.none() | _words),
    st.builds(orders.Update, connection=_ids, inspection=_inspections),
    st.builds(orders.CredentialAnswer, request=_ids, granted=st.booleans()),
    st.builds(orders.AllowanceAnswer, request=_ids, granted=st.booleans(), error=_lines),
    st.builds(
        orders.PageAnswer,
        request=_ids,
        status=st.integers(200, 599),
        content_type=_words,
        body=st.binary(),
    ),
    st.just(orders.Stop()),
)
_to_runner = st.one_of(
    st.builds(reports.Ask, ticket=_ids, port=_ports, name=st.text(min_size=1, max_size=253)),
    st.builds(reports.Ask, ticket=_ids, port=_ports, address=st.binary(min_size=16, max_size=16)),
    st.builds(reports.Admitted, connection=_ids, errno=st.integers(0, 0xFFFF)),
    st.builds(
        reports.RequestDecided,
        connection=_ids,
        method=_words,
        path=_lines,
        host=_words,
        verdict=st.sampled_from(reports.RequestVerdict),
        reason=st.sampled_from(reports.Reason),
        rule=_lines,
        credentials=st.lists(_words, max_size=5).map(tuple),
    ),
    st.builds(reports.Closed, connection=_ids, sent=_counts, received=_counts, text=_lines),
    st.builds(reports.Usage, connection=_ids, budgets=st.just(("a",)), input_tokens=_counts),
    st.builds(reports.AllowanceWanted, request=_ids, connection=_ids, budgets=st.just(("a",))),
)


@given(_to_worker)
def test_what_the_runner_says_arrives_as_it_was_said(message: orders.ToWorker) -> None:
    assert control.decode_to_worker(control.encode(message)) == message


@given(_to_runner)
def test_what_a_worker_says_arrives_as_it_was_said(message: reports.ToRunner) -> None:
    assert control.decode_to_runner(control.encode(message)) == message


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_a_message_or_a_violation_for_either_end(data: bytes) -> None:
    for decode in (control.decode_to_worker, control.decode_to_runner):
        with passes_or(control.ControlViolation):
            decode(data)


@given(_to_runner, st.data())
def test_a_damaged_packet_is_a_message_or_a_violation(
    message: reports.ToRunner, data: st.DataObject
) -> None:
    packet = bytearray(control.encode(message))
    at = data.draw(st.integers(0, len(packet) - 1))
    packet[at] = data.draw(st.integers(0, 255))
    with passes_or(control.ControlViolation):
        control.decode_to_runner(bytes(packet))


@pytest.mark.parametrize(
    "broken",
    [
        {"type": "ask", "ticket": 0, "port": 80, "name": "a"},
        {"type": "ask", "ticket": 1 << 32, "port": 80, "name": "a"},
        {"type": "ask", "ticket": 1, "port": 0, "name": "a"},
        {"type": "ask", "ticket": 1, "port": 65536, "name": "a"},
        {"type": "ask", "ticket": 1, "port": 80},
        {"type": "ask", "ticket": 1, "port": 80, "name": "a", "address": bytes(16)},
        {"type": "ask", "ticket": 1, "port": 80, "address": bytes(4)},
        {"type": "ask", "ticket": 1, "port": 80, "name": "a" * 254},
        {"type": "ask", "ticket": True, "port": 80, "name": "a"},
        {"type": "closed", "connection": 1, "sent": -1},
        {"type": "closed", "connection": 1, "text": "a" * 2049},
        {"type": "closed", "connection": 1, "reason": "a reason of its own"},
        {"type": "hello", "version": 1, "connections": [{"connection": 1, "port": 1}] * 1025},
        {"type": "page-wanted", "request": 1, "connection": 1, "method": "G" * 129, "path": "/"},
        {"type": "secret", "credential": "a", "value": "b"},
        {"type": "grant"},
        {"type": "unheard-of"},
        {},
        [],
        7,
    ],
)
def test_a_worker_that_says_what_no_worker_says_is_found_out(broken: object) -> None:
    with pytest.raises(control.ControlViolation):
        control.decode_to_runner(msgspec.msgpack.encode(broken))


def test_nesting_without_end_is_a_violation() -> None:
    with pytest.raises(control.ControlViolation):
        control.decode_to_runner(b"\x91" * 100_000 + b"\x90")


def test_a_packet_beyond_the_bound_is_neither_sent_nor_read() -> None:
    rules = tuple(CompiledRule("GET", "/" + "a" * 2000) for _ in range(100))
    grant = orders.Grant(
        ticket=1,
        connection=1,
        mode=orders.Mode.INSPECT,
        port=443,
        inspection=orders.Inspection(rules=(RouteRules(rules=rules),)),
    )

    with pytest.raises(control.MessageTooLong):
        control.encode(grant)
    with pytest.raises(control.ControlViolation):
        control.decode_to_worker(bytes(control.MESSAGE_MAX + 1))


def test_a_secret_shows_itself_neither_in_its_text_nor_in_an_error_about_its_packet() -> None:
    secret = orders.Secret(credential="github", value="hush-hush-hush")
    leaf = orders.Leaf(chain=b"", key=b"hush-hush-hush")
    grant = orders.Grant(ticket=1, connection=1, mode=orders.Mode.PASS, port=1, leaf=leaf)

    assert "hush" not in f"{secret!r} {secret} {[secret]} {grant}"
    with pytest.raises(control.ControlViolation) as caught:
        control.decode_to_runner(control.encode(secret))
    assert "hush" not in str(caught.value)


def test_every_kind_of_message_has_a_tag_of_its_own() -> None:
    tags = [kind.__struct_config__.tag for kind in (*_TO_WORKER, *_TO_RUNNER)]

    assert len(set(tags)) == len(tags)
    assert all(not dataclasses.is_dataclass(kind) for kind in _TO_WORKER)
