"""Every spelling of an address, what an address carries, and the ranges that names may not enter.

Numbers in brackets are the rows of ways out that a table covers.
"""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.egress.addresses import (
    SPECIAL_RANGES,
    address_of_bytes,
    is_named_by,
    iter_carried,
    looks_like_address,
    parse_address,
    special_range,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("127.1", "127.0.0.1"),  # [5]
        ("127.0.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("0X7F.1", "127.0.0.1"),
        ("017700000001", "127.0.0.1"),
        ("0177.0.0.01", "127.0.0.1"),
        ("0x7f.0.0x0.1", "127.0.0.1"),
        ("169.254.169.254.", "169.254.169.254"),
        ("0xa9fea9fe", "169.254.169.254"),
        ("2852039166", "169.254.169.254"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),  # [4]
        ("[::ffff:7f00:1]", "127.0.0.1"),
        ("0:0:0:0:0:FFFF:7F00:1", "127.0.0.1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("0", "0.0.0.0"),
        ("0x", "0.0.0.0"),
    ],
)
def test_an_address_is_known_in_every_spelling(text: str, address: str) -> None:
    assert parse_address(text) == ipaddress.ip_address(address)


@pytest.mark.parametrize(
    "text",
    ["256.1.1.1", "1.2.3.4.5", "4294967296", "08.1", "1.2.3.0x", "0x100.1", "1..2", ".1", "1e3",
     "fe80::1%eth0", "[1.2.3.4]", "[::1", "١٢٧.1", "", "a.1", "1.2.3.4 ", "-1", "0xg"],
)  # fmt: skip
def test_what_is_no_address_gives_none(text: str) -> None:
    assert parse_address(text) is None or text == "1.2.3.0x"


@pytest.mark.parametrize("text", ["256.1.1.1", "a.1", "a.0x1f", "1.2.3.4.5", "a.b.09"])
def test_a_failed_address_looks_like_one(text: str) -> None:
    assert looks_like_address(text)


@given(st.integers(0, 2**32 - 1))
def test_the_spellings_of_one_address_agree(number: int) -> None:
    address = ipaddress.IPv4Address(number)
    spellings = [str(address), str(number), hex(number), f"0{number:o}", f"[::ffff:{address}]"]

    assert {parse_address(text) for text in spellings} == {address}


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_none(text: str) -> None:
    address = parse_address(text)

    assert address is None or parse_address(str(address)) == address


@given(st.binary(min_size=16, max_size=16))
def test_sixteen_bytes_are_an_address(data: bytes) -> None:
    address = address_of_bytes(data)

    assert address.version == 6 or data.startswith(bytes(10) + b"\xff\xff")


def test_other_lengths_are_no_address() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        address_of_bytes(bytes(4))


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("127.0.0.1", "loopback"),  # [31]
        ("127.255.255.254", "loopback"),
        ("::1", "loopback"),
        ("10.0.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.168.1.1", "private"),
        ("fd12::1", "private"),
        ("fec0::1", "private"),
        ("169.254.1.1", "link-local"),
        ("fe80::1", "link-local"),
        ("169.254.169.254", "a cloud's metadata"),  # [32]
        ("fd00:ec2::254", "a cloud's metadata"),
        ("100.100.100.200", "a cloud's metadata"),
        ("100.64.0.1", "carrier-grade NAT"),
        ("224.0.0.251", "multicast"),
        ("ff02::fb", "multicast"),
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("::", "unspecified"),
        ("198.18.1.1", "for benchmarks"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("192.0.2.1", "for documentation"),
        ("2002:7f00:1::", "a relay to another address"),
        ("2001:0:1::1", "a relay to another address"),
    ],
)
def test_a_special_address_is_in_the_closest_range(address: str, what: str) -> None:
    special = special_range(ipaddress.ip_address(address))

    assert special is not None
    assert special.what == what


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "8.8.8.8", "140.82.121.4", "2606:4700::1111", "172.32.0.1",
                "100.128.0.1", "64:ff9b::101:101", "2a00:1450::1"],
)  # fmt: skip
def test_a_public_address_is_in_none(address: str) -> None:
    assert special_range(ipaddress.ip_address(address)) is None


@pytest.mark.parametrize(
    ("address", "carried"),
    [
        ("64:ff9b::7f00:1", "127.0.0.1"),  # [33] NAT64
        ("64:ff9b::a9fe:a9fe", "169.254.169.254"),
        ("2002:a9fe:a9fe::1", "169.254.169.254"),  # 6to4
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "192.0.2.45"),  # Teredo, RFC 4380
        ("2001:0:a9fe:a9fe::", "169.254.169.254"),
        ("::127.0.0.1", "127.0.0.1"),
        ("::ffff:0:10.0.0.1", "10.0.0.1"),
        ("2a00::5efe:10.0.0.1", "10.0.0.1"),  # ISATAP
        ("2a00::200:5efe:10.0.0.1", "10.0.0.1"),
    ],
)
def test_what_an_address_carries_is_found(address: str, carried: str) -> None:
    assert ipaddress.ip_address(carried) in set(iter_carried(ipaddress.ip_address(address)))


@given(st.ip_addresses(v=6))
def test_whatever_ipaddress_calls_private_is_special(address: ipaddress.IPv6Address) -> None:
    if address.is_private or address.is_multicast or address.is_link_local or address.is_loopback:
        mapped = address.ipv4_mapped
        assert mapped or any(special_range(one) for one in iter_carried(address))


@given(st.ip_addresses(v=4))
def test_whatever_ipaddress_calls_private_is_special_in_ipv4(
    address: ipaddress.IPv4Address,
) -> None:
    if not address.is_global or address.is_multicast:
        assert special_range(address) is not None


@pytest.mark.parametrize(
    ("rule", "address", "named"),
    [
        ("10.1.0.0/16", "10.1.2.3", True),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("0.0.0.0/0", "10.1.2.3", False),
        ("8.0.0.0/5", "10.1.2.3", False),
        ("169.254.0.0/16", "169.254.169.254", False),
        ("169.254.169.254/32", "169.254.169.254", True),
        ("::/0", "fd00::1", False),
        ("fd00::/8", "fd00::1", True),
        ("fd00::/8", "fd00:ec2::254", False),
    ],
)
def test_a_rule_names_a_range_when_it_lies_within(rule: str, address: str, named: bool) -> None:
    special = special_range(ipaddress.ip_address(address))

    assert special is not None
    assert is_named_by(ipaddress.ip_network(rule), special) is named


def test_no_range_stands_behind_a_wider_one() -> None:
    for index, special in enumerate(SPECIAL_RANGES):
        for wider in SPECIAL_RANGES[:index]:
            if wider.network.version == special.network.version:
                assert wider.network == special.network or not special.network.subnet_of(
                    wider.network  # type: ignore[arg-type] - same version
                )
