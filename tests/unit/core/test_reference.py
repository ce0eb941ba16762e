"""References follow Docker's grammar; hostile text is refused with the part at fault."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from services.core.digest import Digest
from services.core.errors import ReferenceInvalid
from services.core.reference import Reference, has_host, is_loopback_host

DIGEST = Digest.of(b"")

FRIENDLY = [
    # text, host, path, tag, digest
    ("debian", "docker.io", "library/debian", "latest", None),
    ("debian:12", "docker.io", "library/debian", "12", None),
    ("team/app", "docker.io", "team/app", "latest", None),
    ("docker.io/debian", "docker.io", "library/debian", "latest", None),
    ("index.docker.io/debian", "docker.io", "library/debian", "latest", None),
    ("ghcr.io/team/app:v1.2", "ghcr.io", "team/app", "v1.2", None),
    ("localhost/app", "localhost", "app", "latest", None),
    ("localhost:5000/app:x", "localhost:5000", "app", "x", None),
    ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000", "a/b/c", "latest", None),
    ("[::1]:5000/app", "[::1]:5000", "app", "latest", None),
    ("[::1]/app", "[::1]", "app", "latest", None),
    ("host.example.:443/app", "host.example.:443", "app", "latest", None),
    (f"ghcr.io/a/b@{DIGEST}", "ghcr.io", "a/b", None, DIGEST),
    (f"ghcr.io/a/b:v1@{DIGEST}", "ghcr.io", "a/b", "v1", DIGEST),
    ("a.b/c__d/e-f--g.h_i:T_.-x", "a.b", "c__d/e-f--g.h_i", "T_.-x", None),
    ("nohost/app", "docker.io", "nohost/app", "latest", None),
    ("UPPER.example/app", "UPPER.example", "app", "latest", None),
]


@pytest.mark.parametrize(("text", "host", "path", "tag", "digest"), FRIENDLY)
def test_a_reference_is_split_as_docker_splits_it(
    text: str, host: str, path: str, tag: str | None, digest: Digest | None
) -> None:
    reference = Reference.parse(text)

    assert reference == Reference(host=host, path=path, tag=tag, digest=digest)
    assert Reference.parse(str(reference)) == reference


def test_a_bare_name_gets_the_configured_registry_without_a_prefix() -> None:
    reference = Reference.parse("app", default_registry="registry.example:5000")

    assert str(reference) == "registry.example:5000/app:latest"


HOSTILE = [
    ("", "empty"),
    ("a" * 1025, "longer than 1024"),
    ("Debian", "lower-case"),
    ("team/App", "lower-case"),
    ("a b/c", "segment 'a b'"),
    ("app:", "tag ''"),
    (f"app:{'x' * 129}", "tag"),
    ("app:-x", "tag"),
    ("app:a b", "tag"),
    ("app@", "digest ''"),
    ("app@sha256:zz", "digest"),
    (f"app@{DIGEST}@{DIGEST}", "digest"),
    (f"app@{str(DIGEST).upper()}", "digest"),
    ("/app", "segment ''"),
    ("app/", "segment ''"),
    ("a//b", "segment ''"),
    ("ghcr.io/", "no repository"),
    ("ghcr.io/../../etc/passwd", "segment '..'"),
    ("a/./b", "segment '.'"),
    ("ghcr.io/a..b", "segment"),
    ("ghcr.io/-a", "segment"),
    ("ghcr.io/a_", "segment"),
    ("ghcr.io/a___b", "segment"),
    ("https://ghcr.io/a", "scheme"),
    ("user@host.example/a", "digest"),
    ("host.example:0/a", "host"),
    ("host.example:65536/a", "host"),
    ("host.example:/a", "host"),
    ("host.example:5x/a", "host"),
    ("-host.example/a", "host"),
    ("host-.example/a", "host"),
    ("host..example/a", "host"),
    ("[::1/a", "host"),
    ("[::zz]/a", "host"),
    ("[::1]x:5/a", "host"),
    ("[1.2.3.4]/a", "host"),
    ("ghcr.io/a\n", "segment"),
    ("ghcr.io/a:v\n", "tag"),
    ("ghcr.io\n/a", "host"),
    ("ghcr.io/a?b", "segment"),
    ("ghcr.io/a%2e", "segment"),
    ("ghcr.io/a\0", "segment"),
    ("ghcr.io/ä", "segment"),
    ("ghcr.io/a/" + "b" * 255, "longer than 255"),
    (f"{'h' * 64}.example/a", "host"),
    ("h." * 150 + "example/a", "host"),
]


@pytest.mark.parametrize(("text", "part"), HOSTILE)
def test_what_does_not_follow_the_grammar_is_refused_by_part(text: str, part: str) -> None:
    with pytest.raises(ReferenceInvalid) as caught:
        Reference.parse(text)

    assert part in caught.value.message
    assert len(caught.value.message) < 500


@pytest.mark.parametrize("registry", ["", "a/b", "user@host.example", "-x", "host.example:x"])
def test_a_default_registry_that_is_no_host_is_refused(registry: str) -> None:
    with pytest.raises(ReferenceInvalid):
        Reference.parse("app", default_registry=registry)


segments = st.from_regex(r"[a-z0-9]{1,8}(?:[._-][a-z0-9]{1,4})?", fullmatch=True)
hosts = st.sampled_from(["docker.io", "ghcr.io", "localhost:5000", "127.0.0.1", "[::1]:80"])
tags = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)


@given(
    host=hosts,
    path=st.lists(segments, min_size=1, max_size=4).map("/".join),
    tag=st.none() | tags,
    digest=st.none() | st.binary(max_size=4).map(Digest.of),
)
def test_every_reference_prints_as_a_text_that_parses_to_it(
    host: str, path: str, tag: str | None, digest: Digest | None
) -> None:
    assume(tag or digest)
    assume(host != "docker.io" or "/" in path)
    reference = Reference(host=host, path=path, tag=tag, digest=digest)

    assert Reference.parse(str(reference)) == reference


@given(st.text(max_size=80) | st.from_regex(r"[a-z.:/@\[\]A-Z0-9-]{0,60}", fullmatch=True))
def test_any_text_parses_to_a_fixed_point_or_is_refused_with_the_typed_error(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except ReferenceInvalid:
        return
    assert Reference.parse(str(reference)) == reference
    assert ".." not in reference.path.split("/")
    assert "@" not in reference.host


def test_the_selector_is_the_digest_where_there_is_one() -> None:
    assert Reference.parse("a.b/c:v").selector == "v"
    assert Reference.parse(f"a.b/c:v@{DIGEST}").selector == DIGEST


def test_a_reference_is_pinned_and_tagged_within_its_repository() -> None:
    reference = Reference.parse("a.b/c/d:v")

    assert str(reference.pinned(DIGEST)) == f"a.b/c/d@{DIGEST}"
    assert str(reference.pinned(DIGEST).tagged("w")) == "a.b/c/d:w"
    assert (reference.repository, reference.name) == ("a.b/c/d", "d")


@pytest.mark.parametrize("tag", ["", "a b", "../x", "x" * 129, "a/b", "x\n"])
def test_a_tag_that_is_invalid_is_refused(tag: str) -> None:
    with pytest.raises(ReferenceInvalid):
        Reference.parse("a.b/c").tagged(tag)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("localhost/a", True),
        ("a.b/c", True),
        ("a:5/c", True),
        ("a/b", False),
        ("a", False),
        ("a:5", False),
        ("a.b", False),
        ("localhost", False),
    ],
)
def test_a_first_segment_is_a_host_by_dockers_rule(text: str, *, expected: bool) -> None:
    assert has_host(text) is expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LOCALHOST:5000", True),
        ("localhost.:80", True),
        ("127.0.0.1", True),
        ("127.255.255.254:1", True),
        ("[::1]", True),
        ("[::1]:5000", True),
        ("[::ffff:127.0.0.1]:5000", True),
        ("128.0.0.1", False),
        ("10.0.0.1:5000", False),
        ("localhost.example", False),
        ("notlocalhost", False),
        ("127.0.0.1.example", False),
        ("[::2]:5000", False),
        ("0.0.0.0", False),  # noqa: S104 - an address to tell apart
    ],
)
def test_loopback_is_this_machine_only(host: str, *, expected: bool) -> None:
    assert is_loopback_host(host) is expected


@pytest.mark.parametrize("scheme", ["https", "http", "docker", "oci", "docker-daemon"])
def test_a_reference_with_a_scheme_says_to_leave_it_out(scheme: str) -> None:
    with pytest.raises(ReferenceInvalid) as caught:
        Reference.parse(f"{scheme}://registry.example/team/app:1")

    assert "no scheme" in caught.value.message
    assert caught.value.hint == "leave it out: registry.example/team/app:1"
