"""Compressed layers: known by their bytes, cut off, damaged, and bombs."""

import bz2
import gzip
import io
import lzma
import random
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from services.core.errors import LayerUnsafe, LayerUnsupported
from services.materializer.layers.decompress import CHUNK_BYTES, decompressed
from services.materializer.layers.limits import LayerLimits
from tests.support.outcomes import passes_or
from tests.support.tars import archive, entry

DATA = random.Random(2).randbytes(700_000) + bytes(3 << 20)  # noqa: S311 - test data


def zstd(data: bytes, **options: bool) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(data)


def zstd_stream(data: bytes) -> bytes:
    """Without the size of the content in the header."""
    compressor = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    return compressor.compress(data) + compressor.flush()


def skippable(data: bytes) -> bytes:
    return b"\x5e\x2a\x4d\x18" + len(data).to_bytes(4, "little") + data


def named_gzip(data: bytes) -> bytes:
    output = io.BytesIO()
    with gzip.GzipFile("layer.tar", "wb", fileobj=output) as file:
        file.write(data)
    return output.getvalue()


COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": lambda data: gzip.compress(data, 1),
    "gzip with a name": named_gzip,
    "gzip in members": lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:]),
    "gzip padded": lambda data: gzip.compress(data) + bytes(1000),
    "xz": lzma.compress,
    "xz in streams": lambda data: lzma.compress(data[:9]) + bytes(8) + lzma.compress(data[9:]),
    "xz -9": lambda data: lzma.compress(data, preset=9),
    "bzip2": bz2.compress,
    "bzip2 in streams": lambda data: bz2.compress(data[:9]) + bz2.compress(data[9:]),
    "zstd": zstd,
    "zstd with checksum": lambda data: zstd(data, write_checksum=True),
    "zstd of unknown size": zstd_stream,
    "zstd in frames": lambda data: zstd(data[:9]) + zstd(b"") + zstd(data[9:]),
    "zstd with skippable frames": lambda data: skippable(b"x" * 9) + zstd(data) + skippable(b""),
}


def whole(blob: bytes, **limits: int) -> bytes:
    return b"".join(decompressed(io.BytesIO(blob), LayerLimits(**limits)))


@pytest.mark.parametrize("form", COMPRESSED)
def test_every_form_is_known_by_its_bytes(form: str) -> None:
    blob = COMPRESSED[form](DATA)

    chunks = list(decompressed(io.BytesIO(blob), LayerLimits()))

    assert b"".join(chunks) == DATA
    assert max(map(len, chunks)) <= CHUNK_BYTES


@pytest.mark.parametrize("form", [form for form in COMPRESSED if form != "plain"])
@pytest.mark.parametrize("part", [0.001, 0.3, 0.9])
def test_a_blob_cut_off_is_refused(form: str, part: float) -> None:
    blob = COMPRESSED[form](DATA[:700_000])

    with pytest.raises(LayerUnsafe):
        whole(blob[: max(12, int(len(blob) * part))])


@pytest.mark.parametrize("form", ["gzip", "zstd", "zstd with checksum", "xz", "bzip2"])
def test_the_last_byte_counts(form: str) -> None:
    with pytest.raises(LayerUnsafe):
        whole(COMPRESSED[form](DATA)[:-1])


@pytest.mark.parametrize("form", ["gzip", "zstd with checksum", "xz", "bzip2"])
def test_damage_is_noticed(form: str) -> None:
    blob = bytearray(COMPRESSED[form](DATA))
    blob[len(blob) // 3] ^= 0x55

    with pytest.raises(LayerUnsafe):
        whole(bytes(blob))


@pytest.mark.parametrize("form", ["gzip", "zstd", "xz", "bzip2"])
def test_what_follows_must_be_of_the_same_kind(form: str) -> None:
    with pytest.raises(LayerUnsafe, match="followed by something else"):
        whole(COMPRESSED[form](DATA) + b"trailing garbage")


@pytest.mark.parametrize("form", COMPRESSED)
def test_a_layer_has_a_largest_size(form: str) -> None:
    with pytest.raises(LayerUnsafe, match="more than 1000000 bytes"):
        whole(COMPRESSED[form](DATA), layer_bytes=1_000_000)


@pytest.mark.parametrize("form", ["gzip", "zstd", "gzip in members", "xz", "bzip2"])
def test_a_bomb_is_refused_early(form: str) -> None:
    bomb = COMPRESSED[form](bytes(64 << 20))
    taken = 0

    with pytest.raises(LayerUnsafe, match="bomb"):
        for chunk in decompressed(
            io.BytesIO(bomb), LayerLimits(expansion=100, expansion_free_bytes=10 << 20)
        ):
            taken += len(chunk)

    assert taken <= 30 << 20


@pytest.mark.parametrize(
    ("magic", "name"),
    [
        (b"\x04\x22\x4d\x18", "lz4"),
        (b"\x5d\x00\x00\x80\x00", "lzma"),
        (b"LZIP\x01", "lzip"),
        (b"\x1f\x9d\x90", "compress"),
    ],
)
def test_a_compression_that_is_not_supported_is_named(magic: bytes, name: str) -> None:
    with pytest.raises(LayerUnsupported, match=f"compressed with {name}"):
        whole(magic + bytes(700))


@pytest.mark.parametrize("name", [b"]", b"LZIP", b"BZh91AY", b"PK\x03\x04"])
def test_an_archive_may_begin_with_a_name_that_looks_like_a_compression(name: bytes) -> None:
    data = archive(entry(name, b"x"))

    assert whole(data) == data


def test_xz_that_wants_much_memory_is_refused() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]

    with pytest.raises(LayerUnsafe, match="xz data is damaged"):
        whole(lzma.compress(bytes(9000), filters=filters))


@given(
    st.binary(max_size=300),
    st.sampled_from([b"\x1f\x8b\x08\0", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"BZh91AY&SY", b""]),
)
def test_bytes_are_data_or_are_refused(data: bytes, magic: bytes) -> None:
    with passes_or(LayerUnsafe):
        whole(magic + data)
