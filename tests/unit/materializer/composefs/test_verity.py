"""fs-verity digests against values of the `fsverity digest` tool."""

import pytest

from services.materializer.composefs.verity import digest_of_leaves, leaf_hashes, verity_digest


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95"),
        (b"hello world", "1e2eaa4202d750a41174ee454970b92c1bc2f925b1e35076d8c7d5f56362ba64"),
        (b"a" * 4096, "a2a808ddaced77f0b6b3068f47b14b5a1fb3fc43674993ab11b8e7e6f2d089e2"),
        (b"a" * 4097, "18b155c0b6e054f3f7d22488ed15340e74dc161ce2d123e13eb685c3ce565f70"),
        (b"a" * 524288, "35ce0df2a57eb54aeba7969570bac9dfadfac295ec181a03f13ac7a7da54909e"),
        (b"a" * 524289, "cc4f297494cf9e0b6f159db6d30a62d3fcc219fc9c0cbc2d8792bd264da4d9cb"),
    ],
    ids=["empty", "short", "one block", "two blocks", "one full level", "three levels"],
)
def test_the_digest_is_that_of_the_fsverity_tool(data: bytes, expected: str) -> None:
    assert verity_digest(data).hex() == expected
    assert verity_digest(memoryview(bytearray(data))).hex() == expected


def test_leaves_may_be_hashed_piece_by_piece() -> None:
    data = bytes(range(256)) * 100

    leaves = leaf_hashes(data[:8192]) + leaf_hashes(data[8192:])

    assert digest_of_leaves(leaves, len(data)) == verity_digest(data)
