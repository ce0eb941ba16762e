"""Entry lists: written, read, damaged."""

import hashlib
import io
import stat

import msgspec
import pytest

from services.core.errors import ContentCorrupt
from services.materializer.composefs.tree import Inode
from services.materializer.layers.entries import (
    END_BYTES_MAX,
    Entry,
    EntryWriter,
    Link,
    Put,
    parse_end,
    parse_entries,
)
from services.materializer.layers.names import Hide, Opaque
from services.materializer.layers.pack_metadata import NO_PACK, PackEnd

ENTRIES: list[Entry] = [
    Put(b"", Inode(stat.S_IFDIR | 0o711, 5)),
    Put(b"/a b\n\xff=", Inode(stat.S_IFREG | 0o4755, 1, 2, -3, 4, 4, content=b"- \\x")),
    Put(b"/-", Inode(stat.S_IFLNK | 0o777, payload=b"-", size=1)),
    Put(b"/hide x", Inode(stat.S_IFCHR, rdev=259)),
    Put(
        b"/big",
        Inode(
            stat.S_IFREG,
            size=1 << 40,
            digest=bytes(range(32)),
            payload=b"00/01",
            xattrs={b"user.=": b"\0= ", b"security.capability": b"\x01"},
        ),
    ),
    Link(b"/l \xe9", b"/a b\n\xff="),
    Hide(b"/gone \\"),
    Opaque(b""),
    Opaque(b"/o\tp"),
]


PACK = PackEnd(123_456_789, 4096, "ab" * 32)


def written(entries: list[Entry], pack: PackEnd = PACK) -> bytes:
    file = io.BytesIO()
    writer = EntryWriter(file)
    for entry in entries:
        writer.add(entry)
    writer.finish(pack)
    assert writer.size == len(file.getvalue())
    return file.getvalue()


def seen(entry: Entry) -> object:
    if not isinstance(entry, Put):
        return entry
    inode = entry.inode
    fields = [getattr(inode, name) for name in sorted(Inode.__struct_fields__) if name != "xattrs"]
    return entry.path, fields, dict(inode.xattrs)


def test_every_entry_comes_back() -> None:
    found = list(parse_entries(written(ENTRIES)))

    assert [seen(one) for one in found] == [seen(one) for one in ENTRIES]


def test_the_end_tells_counts() -> None:
    data = written(ENTRIES)

    end = parse_end(data[-END_BYTES_MAX:])

    assert end == (len(ENTRIES), PACK)
    assert parse_end(written([], NO_PACK)) == (0, NO_PACK)
    assert parse_end(b"") is None
    assert parse_end(data[:-1]) is None


def test_a_long_list_comes_back_in_its_order() -> None:
    entries = [Hide(b"/%d/%b" % (number, b"x" * (number % 300))) for number in range(3000)]

    assert list(parse_entries(written([*entries]))) == entries


def sealed(body: bytes, count: int) -> bytes:
    """A list with these batches whose digest is right."""
    data = b"lns-entries 2\n" + body + b"\nend 2 %d 0 0 - " % count
    return data + b"sha256:" + hashlib.sha256(data).hexdigest().encode() + b"\n"


def batch(value: object) -> bytes:
    data = msgspec.msgpack.encode(value)
    return len(data).to_bytes(4, "little") + data


MALFORMED = {
    "a length that is cut off": (b"\x01\0", 0),
    "a batch that is cut off": (batch([["hide", b"/a"]])[:-1], 1),
    "a batch that is longer than its length": (b"\x01\0\0\0\x90\x90", 0),
    "no MessagePack": (b"\x01\0\0\0\xc1", 0),
    "no array": (batch({"hide": b"/a"}), 1),
    "an unknown mark": (batch([["show", b"/a"]]), 1),
    "a text for a path": (batch([["hide", "/a"]]), 1),
    "an inode without a mode": (batch([["put", b"/a", []]]), 1),
    "a number for a payload": (batch([["put", b"/a", [33188, 0, 0, 0, 0, 0, 1, 0, 5]]]), 1),
    "another number of entries": (batch([["hide", b"/a"]]), 2),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_list_is_refused_whatever_its_digest_says(what: str) -> None:
    body, count = MALFORMED[what]

    with pytest.raises(ContentCorrupt):
        list(parse_entries(sealed(body, count)))


def test_a_list_of_the_first_version_is_not_taken() -> None:
    data = b"lns-entries 1\nhide /a\nend 1 0 0 - "
    data += b"sha256:" + hashlib.sha256(data).hexdigest().encode() + b"\n"

    assert parse_end(data) is None
    with pytest.raises(ContentCorrupt, match="unknown version"):
        list(parse_entries(data))


def test_damage_anywhere_is_noticed() -> None:
    data = written(ENTRIES)

    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 0x01
        with pytest.raises(ContentCorrupt):
            list(parse_entries(bytes(damaged)))


@pytest.mark.parametrize("cut", [0, 5, 14, 100, -1, -10])
def test_a_list_cut_off_is_noticed(cut: int) -> None:
    with pytest.raises(ContentCorrupt):
        list(parse_entries(written(ENTRIES)[:cut]))
