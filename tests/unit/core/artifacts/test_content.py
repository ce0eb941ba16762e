"""Packing: the bytes of a layer, entry by entry."""

import gzip
import hashlib
import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.artifacts.content import LayerPacker, PackedLayer
from services.core.descriptor import OCI_LAYER_GZIP
from services.core.errors import RequestInvalid

# The digests of `reference_layer`: they never change, on any machine.
REFERENCE_DIGEST = "sha256:50b2333fa13c041f3cc5849477317ca9efccd69ae52acac6f5466c05ff4a4b39"
REFERENCE_DIFF_ID = "sha256:429372e21ed7ddfaf83b27df205d8df6d7ed5a2426f7a84ffaade76b56f093aa"


def packed(*steps: tuple[str, ...] | tuple[str, bytes]) -> tuple[PackedLayer, bytes]:
    """Packs entries: `(path,)` a directory, `(path, bytes)` a file, `(path, "-> x")` a link."""
    output = bytearray()
    packer = LayerPacker(output.extend)
    for path, *rest in steps:
        if not rest:
            packer.add_directory(str(path))
        elif isinstance(rest[0], bytes):
            packer.add_file(str(path), size=len(rest[0]), is_executable=False, chunks=[rest[0]])
        else:
            packer.add_symbolic_link(str(path), rest[0].removeprefix("-> "))
    return packer.finish(), bytes(output)


def reference_layer() -> tuple[PackedLayer, bytes]:
    output = bytearray()
    packer = LayerPacker(output.extend)
    packer.add_directory("bin")
    packer.add_file("bin/run", size=3, is_executable=True, chunks=[b"#!", b"x"])
    packer.add_hard_link("bin/run2", "bin/run", is_executable=True)
    packer.add_directory("empty")
    packer.add_symbolic_link("link", "../outside/of it")
    packer.add_file("n" * 150, size=0, is_executable=False, chunks=[])
    packer.add_file("z", size=200_000, is_executable=False, chunks=[bytes(200_000)])
    packer.add_file("é ü", size=5, is_executable=False, chunks=[b"hello"])
    return packer.finish(), bytes(output)


def test_the_same_entries_have_the_same_digest_for_ever() -> None:
    layer, _ = reference_layer()

    assert (layer.descriptor.digest, layer.diff_id) == (REFERENCE_DIGEST, REFERENCE_DIFF_ID)


def test_a_layer_is_what_other_tools_read() -> None:
    layer, data = reference_layer()
    plain = gzip.decompress(data)

    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        members = {member.name: member for member in archive}
        content = archive.extractfile("z").read()  # type: ignore[union-attr]  # a regular file
    assert layer.descriptor.media_type == OCI_LAYER_GZIP
    assert layer.descriptor.size == len(data)
    assert layer.descriptor.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert layer.diff_id == f"sha256:{hashlib.sha256(plain).hexdigest()}"
    assert (layer.entries, layer.content_bytes) == (8, 200_008)
    assert content == bytes(200_000)
    assert list(members) == ["bin", "bin/run", "bin/run2", "empty", "link", "n" * 150, "z", "é ü"]
    assert {name: member.mode for name, member in members.items()} == {
        "bin": 0o755, "bin/run": 0o755, "bin/run2": 0o755, "empty": 0o755, "link": 0o777,
        "n" * 150: 0o644, "z": 0o644, "é ü": 0o644,
    }  # fmt: skip
    assert members["bin/run2"].linkname == "bin/run"
    assert members["link"].linkname == "../outside/of it"
    owners = {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members.values()}
    assert owners == {(0, 0, "", "", 0)}


def test_nothing_packed_is_an_empty_layer() -> None:
    layer, data = packed()

    assert gzip.decompress(data) == bytes(1024)
    assert (layer.entries, layer.content_bytes) == (0, 0)


@pytest.mark.parametrize(
    "path",
    ["", "/abs", "../up", "a/../b", "./a", "a//b", "a/", ".", "..", "nul\0", "half\ud800",
     "x" * 4097],
)  # fmt: skip
def test_a_path_that_is_not_relative_and_plain_is_refused(path: str) -> None:
    with pytest.raises(RequestInvalid):
        packed((path, b"x"))


@pytest.mark.parametrize(("first", "second"), [("b", "a"), ("a", "a"), ("a/b", "a")])
def test_entries_out_of_order_are_refused(first: str, second: str) -> None:
    with pytest.raises(RequestInvalid, match="out of order"):
        packed((first, b""), (second, b""))


@pytest.mark.parametrize("chunks", [[b"1234"], [b"123456"], [b"12", b"3456"], []])
def test_a_file_that_is_not_as_long_as_announced_is_refused(chunks: list[bytes]) -> None:
    packer = LayerPacker(bytearray().extend)

    with pytest.raises(RequestInvalid, match="changed while it was packed"):
        packer.add_file("a", size=5, is_executable=False, chunks=chunks)


def test_a_large_file_is_not_held_in_memory() -> None:
    longest = 0

    def write(data: bytes) -> None:
        nonlocal longest
        longest = max(longest, len(data))

    packer = LayerPacker(write)
    chunk = bytes(1 << 20)
    packer.add_file("big", size=64 << 20, is_executable=False, chunks=(chunk for _ in range(64)))
    layer = packer.finish()

    assert longest < 70_000
    assert layer.descriptor.size > 64 << 20


characters = st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"])
segments = st.text(characters, min_size=1, max_size=8).filter(lambda one: one not in (".", ".."))
names = st.lists(segments, min_size=1, max_size=3).map("/".join)


@given(st.dictionaries(names, st.binary(max_size=100), max_size=6))
@settings(max_examples=50, deadline=None)
def test_every_tree_of_files_is_read_back(files: dict[str, bytes]) -> None:
    ordered = sorted(files.items(), key=lambda item: item[0].encode())

    _, data = packed(*ordered)

    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        found = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]  # regular files
    assert found == files
