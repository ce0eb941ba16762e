"""Compressed files are read by what they are, whole or not at all, and never without bound."""

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from services.core.errors import ContentCorrupt, RequestInvalid
from services.registry_gateway.adapters.sources import uncompressed as module
from services.registry_gateway.adapters.sources.uncompressed import (
    CHUNK_BYTES,
    Compression,
    compression_of,
    uncompressed,
)
from tests.support.outcomes import passes_or

COMPRESSORS: dict[Compression, Callable[[bytes], bytes]] = {
    Compression.NONE: bytes,
    Compression.GZIP: gzip.compress,
    Compression.BZIP2: bz2.compress,
    Compression.XZ: lzma.compress,
    Compression.ZSTD: zstandard.ZstdCompressor(write_checksum=True).compress,
}
REAL = [one for one in Compression if one is not Compression.NONE]
DATA = bytes(range(256)) * 9_000  # more than two chunks
each_real = pytest.mark.parametrize("compression", REAL)


def read(data: bytes) -> bytes:
    return b"".join(uncompressed(io.BytesIO(data), what="file"))


@pytest.mark.parametrize("compression", Compression)
@pytest.mark.parametrize("data", [b"", b"x", DATA], ids=["empty", "small", "large"])
def test_a_file_is_read_by_its_first_bytes(compression: Compression, data: bytes) -> None:
    packed = COMPRESSORS[compression](data)

    assert compression_of(io.BytesIO(packed)) is compression
    chunks = list(uncompressed(io.BytesIO(packed), what="file"))
    assert b"".join(chunks) == data
    assert all(0 < len(chunk) <= CHUNK_BYTES for chunk in chunks)


@each_real
def test_members_one_after_the_other_are_read_as_one(compression: Compression) -> None:
    pack = COMPRESSORS[compression]

    assert read(pack(b"one") + pack(b"") + pack(DATA) + pack(b"two")) == b"one" + DATA + b"two"


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.BZIP2, Compression.XZ])
def test_zeros_after_the_last_member_are_padding(compression: Compression) -> None:
    assert read(COMPRESSORS[compression](DATA) + bytes(1 << 20)) == DATA


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.BZIP2, Compression.XZ])
@pytest.mark.parametrize("kept", [11, 0.5, -1])
def test_a_file_that_is_cut_off_is_damaged(compression: Compression, kept: float) -> None:
    packed = COMPRESSORS[compression](DATA)
    end = int(len(packed) * kept) if isinstance(kept, float) else int(kept)

    with pytest.raises(ContentCorrupt, match="file is damaged"):
        read(packed[:end])


@each_real
def test_a_file_with_a_changed_byte_is_damaged_or_differs(compression: Compression) -> None:
    packed = bytearray(COMPRESSORS[compression](DATA))
    packed[len(packed) // 2] ^= 0xFF

    with pytest.raises(ContentCorrupt, match="file is damaged"):
        read(bytes(packed))


@each_real
def test_something_else_after_the_last_member_is_damage(compression: Compression) -> None:
    with pytest.raises(ContentCorrupt):
        read(COMPRESSORS[compression](DATA) + b"something else")


@each_real
def test_what_expands_beyond_all_measure_is_refused(
    compression: Compression, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_EXPANSION_FREE", 1 << 20)
    packed = COMPRESSORS[compression](bytes(16 << 20))
    assert len(packed) * 200 < 16 << 20
    produced = 0

    with pytest.raises(RequestInvalid, match="a bomb"):
        for chunk in uncompressed(io.BytesIO(packed), what="file"):
            produced += len(chunk)
    assert produced < 16 << 20


def test_what_needs_more_memory_than_is_given_is_refused() -> None:
    wants = lzma.compress(DATA, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 512 << 20}])

    with pytest.raises(ContentCorrupt, match="Memory"):
        read(wants)


@pytest.mark.parametrize("name", ["BZh91AY", "BZh", "7zXZ"])
def test_a_tar_file_is_not_taken_for_what_the_name_in_it_begins_with(name: str) -> None:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))

    assert compression_of(io.BytesIO(tar.getvalue())) is Compression.NONE


@given(
    data=st.binary(max_size=200),
    magic=st.sampled_from([f(b"x")[:10] for f in COMPRESSORS.values()]),
)
def test_whatever_comes_is_read_or_refused(data: bytes, magic: bytes) -> None:
    for text in (data, magic + data):
        with passes_or(ContentCorrupt, RequestInvalid):
            read(text)
