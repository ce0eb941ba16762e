"""Digests accept one spelling and hash raw bytes."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.digest import Digest
from services.core.errors import DigestInvalid

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
HEX = EMPTY.removeprefix("sha256:")


@given(st.binary(max_size=200))
def test_a_digest_is_that_of_the_raw_bytes(data: bytes) -> None:
    assert Digest.of(data) == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert Digest.of(memoryview(data)) == Digest.of(bytearray(data)) == Digest.of(data)


@given(st.binary(max_size=200))
def test_sha512_names_content_as_well(data: bytes) -> None:
    digest = Digest(f"sha512:{hashlib.sha512(data).hexdigest()}")

    assert Digest.of(data, algorithm="sha512") == digest == Digest.from_hex(digest.hex)
    assert (digest.algorithm, len(digest.hex), digest.short) == ("sha512", 128, digest[7:19])
    assert digest.is_of(data)
    assert not digest.is_of(data + b"x")
    assert Digest.of(data).is_of(data)
    hasher = digest.hasher()
    hasher.update(data)
    assert hasher.hexdigest() == digest.hex


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_a_digest_of_chunks_is_that_of_their_concatenation(chunks: list[bytes]) -> None:
    assert Digest.of_chunks(chunks) == Digest.of(b"".join(chunks))


def test_a_digest_compares_sorts_and_prints_as_its_text() -> None:
    digest = Digest(EMPTY)

    assert digest == EMPTY
    assert str(digest) == f"{digest}" == EMPTY
    assert {EMPTY: 1}[digest] == 1
    assert (digest.hex, digest.short) == (HEX, "e3b0c44298fc")
    assert Digest.from_hex(HEX) == digest


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        HEX,
        f"sha256:{HEX[:-1]}",
        f"sha256:{HEX}0",
        f"sha256:{HEX.upper()}",
        f"SHA256:{HEX}",
        f"sha512:{HEX}",
        f"sha256:{HEX}{HEX}",
        f"sha384:{HEX}{HEX[:32]}",
        f"sha512:{HEX}{HEX.upper()}",
        f"md5:{HEX[:32]}",
        f"sha256:{HEX[:-1]}g",
        f" {EMPTY}",
        f"{EMPTY} ",
        f"{EMPTY}\n",
        f"sha256:{HEX[:-1]}٣",
        "sha256:../../../../../../../../../../../../../../../../etc/passwd....",
        "zz",
    ],
)
def test_only_lower_case_sha256_and_sha512_are_digests(text: str) -> None:
    with pytest.raises(DigestInvalid):
        Digest(text)


def test_the_error_shows_no_more_than_a_hundred_characters_of_what_was_given() -> None:
    with pytest.raises(DigestInvalid) as caught:
        Digest("x" * 100_000)

    assert caught.value.metadata == {"digest": "x" * 100}
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("text", ["", HEX[:-1], f"{HEX}0", "../" * 21 + "x", HEX.upper()])
def test_from_hex_accepts_64_or_128_digits_only(text: str) -> None:
    with pytest.raises(DigestInvalid):
        Digest.from_hex(text)


@given(st.text(max_size=100))
def test_any_text_is_a_digest_or_refused_with_the_typed_error(text: str) -> None:
    try:
        digest = Digest(text)
    except DigestInvalid:
        return
    assert Digest.from_hex(digest.hex) == text
