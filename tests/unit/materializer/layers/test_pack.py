"""Object packs, read by a reader that the product does not have, and by the product's own."""

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.archives.tar import Hole
from services.materializer.composefs.verity import verity_digest
from services.materializer.layers.pack import PackWriter
from services.materializer.layers.pack_reader import PackDamaged, PackReader
from tests.support.erofs_reader import Reader
from tests.support.outcomes import passes_or

BOUNDARIES = [65, 4031, 4032, 4033, 4064, 4065, 4095, 4096, 4097, 8192, 12_288, 100_000]


def content(size: int) -> bytes:
    """Bytes that differ for every size."""
    return (hashlib.sha256(str(size).encode()).digest() * (size // 32 + 1))[:size]


def packed(contents: Sequence[Sequence[bytes | Hole]]) -> tuple[bytes, list[bytes]]:
    """A pack of contents given in pieces; and the digest of each."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        with (path / "pack").open("w+b") as file, (path / "tails").open("w+b") as tails:
            writer = PackWriter(file, tails)
            digests = [
                writer.add(one if isinstance(one, Hole) else memoryview(one) for one in pieces)
                for pieces in contents
            ]
            end = writer.finish()
        data = (path / "pack").read_bytes()
        assert len(data) == end.size
        return data, digests


def objects(pack: bytes) -> dict[str, bytes]:
    root = Reader(pack).root
    return {
        (prefix + name).decode(): node.data or b""
        for prefix, child in root.children.items()
        for name, node in child.children.items()
    }


def test_contents_of_every_size_come_back() -> None:
    contents = [content(size) for size in BOUNDARIES]

    pack, digests = packed([[one] for one in contents])

    assert digests == [verity_digest(one) for one in contents]
    assert objects(pack) == {verity_digest(one).hex(): one for one in contents}


def test_a_content_is_stored_once() -> None:
    one, other = content(50_000), content(70)

    pack, digests = packed([[one], [other], [one], [one[:9], one[9:]], [content(9000)]])

    assert len(set(digests)) == 3
    assert len(objects(pack)) == 3
    assert len(pack) < 100_000


def test_nothing_of_a_repeated_content_shows_in_a_hole_behind_it() -> None:
    repeated = content(50_000)

    pack, digests = packed([[repeated], [repeated], [b"a", Hole(60_000), b"b"]])

    assert objects(pack)[digests[2].hex()] == b"a" + bytes(60_000) + b"b"


def test_no_contents_are_no_pack() -> None:
    assert packed([]) == (b"", [])


def test_equal_contents_make_equal_packs() -> None:
    contents = [[content(size)] for size in (100, 5000, 70)]

    assert packed(contents)[0] == packed(contents)[0]


def test_thousands_of_objects_have_directories_of_several_blocks() -> None:
    contents = [b"%d" % number * 30 for number in range(20_000)]

    pack, _ = packed([[one] for one in contents])

    assert objects(pack) == {verity_digest(one).hex(): one for one in contents}


def test_tails_fill_blocks_well() -> None:
    contents = [content(size) for size in range(70, 4000, 7)]

    pack, _ = packed([[one] for one in contents])

    assert len(pack) < 1.15 * sum(len(one) + 32 + 80 for one in contents)


pieces = st.one_of(st.binary(min_size=1, max_size=5000), st.integers(1, 20_000).map(Hole))


@given(st.lists(st.lists(pieces, min_size=1, max_size=5), max_size=6))
@settings(max_examples=60, deadline=None)
def test_any_pieces_make_the_content(contents: list[list[bytes | Hole]]) -> None:
    expected = [
        b"".join(bytes(one.size) if isinstance(one, Hole) else one for one in pieces)
        for pieces in contents
    ]

    pack, digests = packed(contents)

    assert digests == [verity_digest(one) for one in expected]
    if expected:
        assert objects(pack) == {verity_digest(one).hex(): one for one in expected}


@pytest.fixture(scope="module")
def pack() -> bytes:
    return packed([[content(size)] for size in BOUNDARIES])[0]


def _read(reader: PackReader, digest: str) -> bytes:
    return b"".join(bytes(piece) for piece in reader.content(digest))


def test_the_products_reader_finds_every_object(pack: bytes) -> None:
    reader = PackReader(memoryview(pack))

    for size in BOUNDARIES:
        assert _read(reader, verity_digest(content(size)).hex()) == content(size)
    with pytest.raises(PackDamaged):
        _read(reader, "00" * 32)


def _interesting(pack: bytes) -> Iterator[int]:
    """Places of a pack whose change breaks its structure rather than a content."""
    first_inode = int.from_bytes(pack[1024 + 40 : 1024 + 44], "little") * 4096
    yield from range(1024, 1152)
    yield from range(first_inode, len(pack), 3)


def test_a_pack_damaged_anywhere_is_read_or_refused_and_nothing_else(pack: bytes) -> None:
    digests = [verity_digest(content(size)).hex() for size in BOUNDARIES]
    for place in _interesting(pack):
        damaged = bytearray(pack)
        damaged[place] ^= 0xFF
        try:
            reader = PackReader(memoryview(bytes(damaged)))
        except PackDamaged:
            continue
        for digest in digests:
            with passes_or(PackDamaged):
                _read(reader, digest)


@pytest.mark.parametrize("cut", [0, 100, 1100, 4096, -4096])
def test_a_pack_cut_off_is_refused(pack: bytes, cut: int) -> None:
    with pytest.raises(PackDamaged):
        PackReader(memoryview(pack[:cut]))
