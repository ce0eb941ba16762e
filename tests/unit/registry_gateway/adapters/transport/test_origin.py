"""Origins: what credentials belong to, and where a registry's host is spoken to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.errors import RegistryProtocol
from services.registry_gateway.adapters.transport.origin import (
    Locator,
    Origin,
    check_target,
    resolve_url,
)
from tests.support.outcomes import passes_or


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port", "authority"),
    [
        ("http://a.example", "http", "a.example", 80, "a.example"),
        ("https://a.example/v2/?x#y", "https", "a.example", 443, "a.example"),
        ("https://a.example:443/", "https", "a.example", 443, "a.example"),
        ("http://a.example:443/", "http", "a.example", 443, "a.example:443"),
        ("HTTP://A.Example:5000", "http", "a.example", 5000, "a.example:5000"),
        ("http://[::1]:5000/", "http", "::1", 5000, "[::1]:5000"),
    ],
)
def test_an_origin_is_scheme_host_and_port(
    url: str, scheme: str, host: str, port: int, authority: str
) -> None:
    origin = Origin.of_url(url)

    assert origin == Origin(scheme=scheme, host=host, port=port)
    assert origin.authority == authority
    assert Origin.of_url(str(origin)) == origin


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a.example",
        "//a.example",
        "/v2/",
        "ftp://a.example",
        "file:///etc/passwd",
        "http://",
        "http:///x",
        "http://a:b@host.example",
        "http://@host.example",
        "http://host.example:x",
        "http://host.example:99999",
        "http://[::1",
        "http://host .example",
        "http://host.example\n.other.example",
        "http://host.example/\x00",
        "https://" + "a" * 20_000,
    ],
)
def test_what_is_no_web_address_has_no_origin(url: str) -> None:
    with pytest.raises(RegistryProtocol) as caught:
        Origin.of_url(url)

    assert len(caught.value.message) < 600


@given(st.text(max_size=60))
def test_any_text_has_an_origin_or_is_refused_with_the_typed_error(text: str) -> None:
    for url in (text, f"http://{text}", f"https://a.example/{text}"):
        try:
            origin = Origin.of_url(url)
        except RegistryProtocol:
            continue
        assert origin.scheme in ("http", "https")


@given(st.text(max_size=60))
def test_any_location_resolves_or_is_refused_with_the_typed_error(text: str) -> None:
    with passes_or(RegistryProtocol):
        Origin.of_url(resolve_url("http://a.example/v2/", text))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("docker.io", "https://registry-1.docker.io"),
        ("ghcr.io", "https://ghcr.io"),
        ("host.example:5000", "https://host.example:5000"),
        ("plain.example:5000", "http://plain.example:5000"),
        ("plain.example", "https://plain.example"),
        ("localhost", "http://localhost"),
        ("localhost:5000", "http://localhost:5000"),
        ("127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("127.9.9.9", "http://127.9.9.9"),
        ("[::1]:5000", "http://[::1]:5000"),
        ("127.0.0.1:6000", "https://127.0.0.1:6000"),
    ],
)
def test_a_host_is_spoken_to_by_its_name_and_the_settings(host: str, expected: str) -> None:
    locator = Locator(
        plain_http=frozenset({"plain.example:5000"}), loopback_tls=frozenset({"127.0.0.1:6000"})
    )

    origin = locator.origin(host)

    assert str(origin) == expected
    assert locator.host(origin) == host


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:1", True),
        ("http://[::1]:1", True),
        ("http://127.0.0.2", True),
        ("http://10.0.0.1", False),
        ("http://[::2]", False),
    ],
)
def test_an_origin_knows_whether_it_is_this_machine(url: str, *, expected: bool) -> None:
    assert Origin.of_url(url).is_loopback is expected


@pytest.mark.parametrize(
    ("origin", "target"),
    [
        ("https://a.example", "https://b.example/x"),
        ("http://127.0.0.1:1", "http://127.0.0.2:2/x"),
        ("http://plain.example", "http://cdn.example/x"),
        ("http://plain.example", "https://cdn.example/x"),
    ],
)
def test_a_registry_may_send_us_to_where_it_is_no_less_safe(origin: str, target: str) -> None:
    assert check_target(Origin.of_url(origin), target) == target


@pytest.mark.parametrize(
    ("origin", "target"),
    [
        ("https://a.example", "http://a.example/x"),
        ("https://a.example", "http://127.0.0.1/x"),
        ("https://a.example", "file:///etc/passwd"),
        ("https://a.example", "https://user:secret@b.example/"),
        ("https://a.example", ""),
    ],
)
def test_a_registry_must_not_send_us_out_of_tls(origin: str, target: str) -> None:
    with pytest.raises(RegistryProtocol):
        check_target(Origin.of_url(origin), target)
