"""Where an address is, in every form, and who may send lns there."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.registry_gateway.adapters.transport.addresses import (
    Zone,
    may_send_to,
    zone_of,
    zone_of_name,
)


@pytest.mark.parametrize(
    ("address", "zone"),
    [
        ("8.8.8.8", Zone.PUBLIC),
        ("2606:4700::1", Zone.PUBLIC),
        ("127.0.0.1", Zone.MACHINE),
        ("127.255.0.9", Zone.MACHINE),
        ("0.0.0.0", Zone.MACHINE),  # noqa: S104 - judged, not bound
        ("0.0.0.1", Zone.MACHINE),
        ("::", Zone.MACHINE),
        ("::1", Zone.MACHINE),
        ("10.0.0.1", Zone.PRIVATE),
        ("172.16.3.4", Zone.PRIVATE),
        ("192.168.1.1", Zone.PRIVATE),
        ("100.64.0.1", Zone.PRIVATE),
        ("fd12::1", Zone.PRIVATE),
        ("fec0::1", Zone.PRIVATE),
        ("169.254.169.254", Zone.LINK),
        ("fe80::1", Zone.LINK),
        ("fe80::1%eth0", Zone.LINK),
        ("224.0.0.1", Zone.LINK),
        ("ff02::1", Zone.LINK),
        ("168.63.129.16", Zone.LINK),
        ("100.100.100.200", Zone.LINK),
        ("fd00:ec2::254", Zone.LINK),
    ],
)
def test_an_address_is_in_the_zone_of_its_range(address: str, zone: Zone) -> None:
    assert zone_of(address) is zone


@pytest.mark.parametrize(
    ("inner", "zone"),
    [
        ("127.0.0.1", Zone.MACHINE),
        ("169.254.169.254", Zone.LINK),
        ("192.168.0.9", Zone.PRIVATE),
        ("8.8.8.8", Zone.PUBLIC),
    ],
)
@pytest.mark.parametrize(
    "form",
    [
        "::ffff:{a}",  # mapped
        "::ffff:0:{a}",  # translated
        "64:ff9b::{a}",  # NAT64
        "2002:{h}::1",  # 6to4
        "2001:0:{h}::",  # Teredo: the server
        "2001:0:808:808:0:0:{n}",  # Teredo: the client, inverted
    ],
)
def test_an_ipv4_address_inside_an_ipv6_one_counts(form: str, inner: str, zone: Zone) -> None:
    value = int(ipaddress.IPv4Address(inner))
    inverted = value ^ 0xFFFFFFFF
    address = form.format(
        a=inner,
        h=f"{value >> 16:x}:{value & 0xFFFF:x}",
        n=f"{inverted >> 16:x}:{inverted & 0xFFFF:x}",
    )

    found = zone_of(address)

    # A Teredo address names two: the other one of these forms is public or nowhere.
    assert found is zone or (form == "2001:0:{h}::" and found is not Zone.PUBLIC)


@pytest.mark.parametrize(
    "address",
    ["64:ff9b:1::127.0.0.1", "64:ff9b:1:7f00:0:100::", "64:ff9b:1:0:7f:0:100::"],
)
def test_a_local_nat64_prefix_of_any_length_is_looked_through(address: str) -> None:
    assert zone_of(address) is Zone.MACHINE


@pytest.mark.parametrize(
    ("host", "zone"),
    [
        ("localhost", Zone.MACHINE),
        ("LOCALHOST.", Zone.MACHINE),
        ("127.1", Zone.MACHINE),
        ("2130706433", Zone.MACHINE),
        ("0x7f.1", Zone.MACHINE),
        ("017700000001", Zone.MACHINE),
        ("0", Zone.MACHINE),
        ("::ffff:127.0.0.1", Zone.MACHINE),
        ("10.1", Zone.PRIVATE),
        ("registry.example", Zone.PUBLIC),
        ("", Zone.PUBLIC),
    ],
)
def test_the_name_of_a_host_is_judged_in_every_spelling_of_a_number(host: str, zone: Zone) -> None:
    assert zone_of_name(host) is zone


@pytest.mark.parametrize(
    ("sender", "targets"),
    [
        (Zone.PUBLIC, {Zone.PUBLIC}),
        (Zone.PRIVATE, {Zone.PUBLIC, Zone.PRIVATE}),
        (Zone.LINK, {Zone.PUBLIC, Zone.PRIVATE, Zone.LINK}),
        (Zone.MACHINE, {Zone.PUBLIC, Zone.PRIVATE, Zone.MACHINE}),
    ],
)
def test_no_server_sends_nearer_than_it_is_itself(sender: Zone, targets: set[Zone]) -> None:
    assert {zone for zone in Zone if may_send_to(sender, zone)} == targets


@given(st.ip_addresses())
def test_every_address_has_a_zone(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assert zone_of(str(address)) in Zone


@given(st.text(max_size=40))
def test_any_text_is_judged_as_a_name(text: str) -> None:
    assert zone_of_name(text) in Zone
