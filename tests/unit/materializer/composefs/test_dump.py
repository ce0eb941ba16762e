"""The text form of trees: read, refused, written."""

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.materializer.composefs.dump import DumpInvalid, parse_dump
from services.materializer.composefs.dump_text import iter_dump
from services.materializer.composefs.image import write_image
from services.materializer.composefs.tree import Inode, iter_tree
from tests.support.dumps import boundary_dumps, dump, line, malformed_dumps, random_dump
from tests.support.outcomes import passes_or

MALFORMED = dict(malformed_dumps())
WELL_FORMED = dict(boundary_dumps()) | {f"random {seed}": random_dump(seed) for seed in range(20)}

names = st.binary(min_size=1, max_size=12).filter(
    lambda name: name not in (b".", b"..") and not {0, 0x2F} & set(name)
)


@pytest.mark.parametrize("problem", MALFORMED)
def test_a_malformed_dump_is_refused_with_one_clear_line(problem: str) -> None:
    with pytest.raises(DumpInvalid) as caught:
        write_image(parse_dump(MALFORMED[problem]))

    assert caught.value.message
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 300


def test_an_error_names_the_line() -> None:
    with pytest.raises(DumpInvalid, match=r"^line 3: .*`/b/c` has no parent"):
        parse_dump(dump(line("/a"), line("/b/c")))


@pytest.mark.parametrize("name", WELL_FORMED)
def test_a_tree_written_and_read_again_makes_the_same_image(name: str) -> None:
    root = parse_dump(WELL_FORMED[name])

    again = parse_dump(b"".join(iter_dump(root)))

    assert write_image(again) == write_image(root)
    assert b"".join(iter_dump(again)) == b"".join(iter_dump(root))


@given(data=st.binary(max_size=400))
def test_bytes_are_a_dump_or_are_refused(data: bytes) -> None:
    with passes_or(DumpInvalid):
        parse_dump(data)


@given(seed=st.integers(0, 30), position=st.integers(0, 10_000), byte=st.binary(max_size=2))
def test_a_changed_dump_is_a_dump_or_is_refused(seed: int, position: int, byte: bytes) -> None:
    data = random_dump(seed)[:6000]
    position %= len(data)
    with passes_or(DumpInvalid):
        write_image(parse_dump(data[:position] + byte + data[position + 1 :]))


@given(
    st.dictionaries(
        names,
        st.tuples(
            st.binary(max_size=70),
            st.dictionaries(
                st.binary(min_size=1, max_size=9).filter(lambda key: 0 not in key),
                st.binary(max_size=9),
                max_size=3,
            ),
        ),
        max_size=8,
    )
)
def test_every_name_content_and_attribute_survives_the_text(
    files: dict[bytes, tuple[bytes, dict[bytes, bytes]]],
) -> None:
    root = Inode(stat.S_IFDIR | 0o755)
    for name, (content, xattrs) in files.items():
        root.children[name] = Inode(  # type: ignore[index]  # a directory has children
            stat.S_IFREG, size=len(content), content=content or None, xattrs=xattrs
        )

    again = parse_dump(b"".join(iter_dump(root)))

    found = {path: inode for path, inode, _ in iter_tree(again) if path != b"/"}
    assert set(found) == {b"/" + name for name in files}
    for name, (content, xattrs) in files.items():
        inode = found[b"/" + name]
        assert (inode.content or b"") == content
        assert inode.xattrs == xattrs


def test_hard_links_are_one_inode() -> None:
    root = parse_dump(
        dump(
            line("/a", nlink=2),
            line("/b", mode="@100644", payload="/a"),
            line("/c", mode="@100644", payload="/b"),
        )
    )

    assert {inode for _, inode, _ in iter_tree(root) if inode is not root} == {
        root.children[b"a"]  # type: ignore[index]  # a directory has children
    }
    assert [path for path, _, is_link in iter_tree(root) if is_link] == [b"/b", b"/c"]


def test_the_last_of_repeated_attributes_counts() -> None:
    root = parse_dump(dump(line("/a", xattrs="user.a=1 user.a=2")))

    assert root.children[b"a"].xattrs == {b"user.a": b"2"}  # type: ignore[index]  # a directory has children
