"""Hosts in one form, whatever the spelling. Numbers in brackets are rows of the ways out."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.egress.hosts import Host, HostKind, is_below, parse_authority, parse_host
from services.core.errors import RequestInvalid


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("api.example.com", "api.example.com"),
        ("API.Example.COM.", "api.example.com"),  # [6]
        ("bücher.example", "xn--bcher-kva.example"),  # [7]
        ("BÜCHER.example.", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("api。example．com", "api.example.com"),
        ("ａｐｉ.example.com", "api.example.com"),
        ("_dmarc.example.com", "_dmarc.example.com"),
        ("localhost", "localhost"),
    ],
)
def test_a_name_has_one_form(text: str, name: str) -> None:
    assert parse_host(text) == Host(name=name)


@pytest.mark.parametrize("text", ["gıthub.com", "раypal.com", "github.соm", "ɡithub.com"])
def test_a_look_alike_is_another_name(text: str) -> None:  # [7]
    assert parse_host(text).name.count("xn--") == 1


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0x7f.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("[::ffff:10.0.0.1]", "10.0.0.1"),
        ("１２７.0.0.1", "127.0.0.1"),
        ("127。0。0。1", "127.0.0.1"),
        ("2001:db8::1", "2001:db8::1"),
    ],
)
def test_an_address_is_no_name(text: str, address: str) -> None:
    assert parse_host(text) == Host(address=ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "a..b", ".a", "-a.com", "a-.com", "a b", "a\n", "a/b", "a@b", "a:b", "*.a.com",
     "a" * 64 + ".com", "a." * 127 + "com", "1.2.3.4.5", "256.1.1.1", "a.0x7f", "fe80::1%lo",
     "a\0b", "a%00", "[a]", "a.com..", "é" * 300, "xn--\u00e9", "[::1", "a\\b", "a?b", "a#b"],
)  # fmt: skip
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(RequestInvalid):
        parse_host(text)


@given(st.text(max_size=80))
def test_any_text_is_a_host_in_its_one_form_or_refused(text: str) -> None:
    try:
        host = parse_host(text)
    except RequestInvalid:
        return
    assert parse_host(str(host)) == host
    assert str(host).isascii()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("lns.internal", HostKind.PAGE),
        ("LNS.internal.", HostKind.PAGE),
        ("host.lns.internal", HostKind.MACHINE),
        ("a.lns.internal", HostKind.INTERNAL),
        ("a.host.lns.internal", HostKind.INTERNAL),
        ("xlns.internal", HostKind.NAME),
        ("lns.internal.example.com", HostKind.NAME),
        ("127.1", HostKind.ADDRESS),
    ],
)
def test_hosts_of_its_own_are_known(name: str, kind: HostKind) -> None:
    assert parse_host(name).kind is kind


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("a.com", "a.com", 443),
        ("a.com:8443", "a.com", 8443),
        ("a.com:", "a.com", 443),
        ("[::1]:80", "::1", 80),
        ("[2001:db8::1]", "2001:db8::1", 443),
        ("127.1:80", "127.0.0.1", 80),
    ],
)
def test_an_authority_is_host_and_port(text: str, host: str, port: int) -> None:
    assert parse_authority(text, default_port=443) == (parse_host(host), port)


@pytest.mark.parametrize(
    "text",
    ["user@a.com", "a.com:0", "a.com:65536", "a.com:8a", "a.com:-1", "[::1]80", "a.com:80:80",
     "a.com, b.com", "a.com b.com", "", ":80", "a.com:٨", "a.com:0000000000080"],
)  # fmt: skip
def test_what_is_no_authority_is_refused(text: str) -> None:
    with pytest.raises(RequestInvalid):
        parse_authority(text, default_port=80)


@pytest.mark.parametrize(
    ("name", "pattern", "below"),
    [
        ("a.com", "a.com", True),
        ("b.a.com", "*.a.com", True),
        ("c.b.a.com", "*.a.com", True),
        ("a.com", "*.a.com", False),  # [9]
        ("a.com.evil.com", "*.a.com", False),  # [8]
        ("xa.com", "*.a.com", False),
    ],
)
def test_a_wildcard_is_what_is_below(name: str, pattern: str, below: bool) -> None:
    assert is_below(name, pattern) is below
