import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.errors import RequestInvalid
from services.core.route_match import RouteMatch, path_matches

MATCHES = [
    "a.example",
    "*.a.example",
    "*.example",
    "b.a.example",
    "a.example:443",
    "*.example:443",
    "*.example:80",
    "10.0.0.0/8",
    "10.1.0.0/16:443",
    "10.1.2.3",
    "2001:db8::/32",
    "[2001:db8::]:443",
]
HOSTS = ["a.example", "b.a.example", "c.b.a.example", "example", "other", "10.1.2.3", "10.9.9.9"]
HOSTS += ["2001:db8::", "2001:db8::1", "192.0.2.1"]
PORTS = [80, 443]


@pytest.mark.parametrize(
    ("text", "host", "port", "expected"),
    [
        ("api.example.com", "api.example.com", 443, True),
        ("api.example.com", "API.Example.COM.", 80, True),
        ("api.example.com", "xapi.example.com", 443, False),
        ("api.example.com", "api.example.com.evil", 443, False),
        ("*.example.com", "api.example.com", 443, True),
        ("*.example.com", "deep.api.example.com", 443, True),
        ("*.example.com", "example.com", 443, False),
        ("*.example.com", "notexample.com", 443, False),
        ("api.example.com:443", "api.example.com", 443, True),
        ("api.example.com:443", "api.example.com", 80, False),
        ("*.example.com:443", "api.example.com", 80, False),
        ("192.0.2.0/24", "192.0.2.77", 1, True),
        ("192.0.2.0/24", "192.0.3.77", 1, False),
        ("192.0.2.0/24", "name-that-has-192.0.2.1", 1, False),
        ("192.0.2.1", "192.0.2.1", 1, True),
        ("192.0.2.1", "::ffff:192.0.2.1", 1, True),
        ("192.0.2.0/24:22", "192.0.2.1", 22, True),
        ("192.0.2.0/24:22", "192.0.2.1", 23, False),
        ("2001:db8::/32", "2001:db8::1", 1, True),
        ("2001:db8::/32", "[2001:db8::1]", 1, True),
        ("[2001:db8::/32]:443", "2001:db8::1", 443, True),
        ("[2001:db8::/32]:443", "2001:db8::1", 80, False),
        ("xn--bcher-kva.example", "xn--bcher-kva.example", 443, True),
        ("_dmarc.example.com", "_dmarc.example.com", 443, True),
    ],
)
def test_a_match_matches(text: str, host: str, port: int, expected: bool) -> None:
    assert RouteMatch.parse(text).matches(host, port) is expected


@pytest.mark.parametrize(
    "text",
    ["", "*", "*.", "a b", "https://example.com", "example.com/path", "example.com:0",
     "example.com:65536", "example.com:http", "a..b", ".a", "-a.example", "10.0.0.1/8",
     "10.0.0.0/33", "300.1.1.1", "1.2.3", "b ücher.example", "a*.example", "*.*.example",
     "[2001:db8::", "[name]:1",
     "fe80::1%eth0", "a" * 64 + ".example", ".".join(["abcdefg"] * 40), "a.example:443:1"],
)  # fmt: skip
def test_what_is_no_match_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        RouteMatch.parse(text)

    assert "api.example.com" in caught.value.hint


@pytest.mark.parametrize("text", MATCHES)
def test_a_match_prints_as_what_it_was_parsed_from(text: str) -> None:
    match = RouteMatch.parse(text)

    assert RouteMatch.parse(str(match)) == match


@pytest.mark.parametrize("one", MATCHES)
@pytest.mark.parametrize("two", MATCHES)
def test_an_intersection_matches_what_both_match(one: str, two: str) -> None:
    left, right = RouteMatch.parse(one), RouteMatch.parse(two)
    both = left.intersect(right)

    for host in HOSTS:
        for port in PORTS:
            expected = left.matches(host, port) and right.matches(host, port)
            assert (both is not None and both.matches(host, port)) is expected


@given(st.text(max_size=40))
def test_any_text_is_a_match_or_refused(text: str) -> None:
    try:
        match = RouteMatch.parse(text)
    except RequestInvalid:
        return
    assert RouteMatch.parse(str(match)) == match


@given(st.ip_addresses(), st.text(max_size=30))
def test_any_host_is_looked_at(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, host: str
) -> None:
    everything = [RouteMatch.parse(text) for text in ("0.0.0.0/0", "::/0")]

    assert any(match.matches(str(address), 1) for match in everything)
    assert isinstance(RouteMatch.parse("a.example").matches(host, 1), bool)


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("/repos/**", "/repos/a/b", True),
        ("/repos/**", "/repos/", True),
        ("/repos/**", "/repos", True),
        ("/repos/**", "/reposx", False),
        ("/repos/*", "/repos/a", True),
        ("/repos/*", "/repos/a/b", False),
        ("/repos/*/issues", "/repos/a/issues", True),
        ("/repos/*/issues", "/repos/a/b/issues", False),
        ("/repos/**/issues", "/repos/a/b/issues", True),
        ("/repos/**/issues", "/repos/issues", True),
        ("/**", "/", True),
        ("/**", "/anything/at/all", True),
        ("/v1/*.json", "/v1/a.json", True),
        ("/v1/*.json", "/v1/a.xml", False),
        ("/v1/a*b*c", "/v1/axxbyyc", True),
        ("/v1/a*b*c", "/v1/acb", False),
        ("/v1/ab*ba", "/v1/aba", False),
        ("/", "/", True),
        ("/", "/a", False),
        ("/A", "/a", False),
    ],
)
def test_a_path_fits_a_pattern(pattern: str, path: str, expected: bool) -> None:
    assert path_matches(pattern, path) is expected


def test_a_hostile_pattern_takes_no_longer_than_its_size() -> None:
    pattern = "/" + "/".join(["**", "a*a*a*a*b"] * 200)

    assert not path_matches(pattern, "/" + "/".join(["a" * 50] * 400))
