"""Image layouts as builders write them, and what of one is pushed."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.core.errors import ContentCorrupt, ImageUnknown, LnsError, RequestInvalid
from services.registry_gateway.adapters.sources.image_layout import open_directory
from services.registry_gateway.ports import OpenedSource
from tests.support.images import Built, build_image, build_index, write_layout


def opened(directory: Path, tag: str = "") -> OpenedSource:
    with open_directory(directory, tag) as source:
        return source


def rewrite_index(directory: Path, *entries: dict[str, Any]) -> None:
    document = {"schemaVersion": 2, "manifests": entries}
    (directory / "index.json").write_text(json.dumps(document), "utf-8")


def test_a_layout_needs_no_version_file(tmp_path: Path) -> None:
    built = build_image(b"layer")
    write_layout(tmp_path, built, "v1")
    (tmp_path / "oci-layout").unlink()

    assert opened(tmp_path).root.digest == built.digest


def test_blobs_may_be_links(tmp_path: Path) -> None:
    built = build_image(b"layer")
    write_layout(tmp_path / "real", built, "v1")
    (tmp_path / "links" / "blobs" / "sha256").mkdir(parents=True)
    (tmp_path / "links" / "index.json").symlink_to(tmp_path / "real" / "index.json")
    for blob in (tmp_path / "real" / "blobs" / "sha256").iterdir():
        (tmp_path / "links" / "blobs" / "sha256" / blob.name).symlink_to(blob)

    source = opened(tmp_path / "links")

    assert source.manifests == {built.digest: built.raw}
    assert all(digest in source.blobs for digest in built.blobs)


def test_an_entry_without_a_platform_has_that_of_its_config(tmp_path: Path) -> None:
    arm, amd = build_image(b"1", architecture="aarch64"), build_image(b"2")
    write_layout(tmp_path, build_index((None, arm), ("amd64", amd)), "v1")

    assert {digest: str(one) for digest, one in opened(tmp_path).platforms.items()} == {
        arm.digest: "linux/arm64"
    }


def test_what_a_layout_lacks_stays_away(tmp_path: Path) -> None:
    arm, amd = build_image(b"1", architecture="arm64"), build_image(b"2")
    write_layout(tmp_path, build_index(("arm64", arm), ("amd64", amd)), "v1")
    (tmp_path / "blobs" / "sha256" / arm.digest.hex).unlink()

    source = opened(tmp_path)

    assert arm.digest not in source.manifests
    assert amd.digest in source.manifests


def nested(built: Built, depth: int) -> Built:
    for _ in range(depth):
        built = build_index((None, built))
    return built


@pytest.mark.parametrize(
    ("make", "tag", "error"),
    [
        (lambda place: (place / "index.json").unlink(), "", RequestInvalid),
        (lambda place: (place / "index.json").write_text("{}"), "", LnsError),
        (rewrite_index, "", LnsError),
        (lambda _: None, "other", ImageUnknown),
        (lambda place: write_layout(place, nested(build_image(b"x"), 5), "v1"), "", RequestInvalid),
        (
            lambda place: (place / "blobs/sha256" / build_image(b"layer").digest.hex).write_bytes(
                build_image(b"layer").raw + b" "
            ),
            "",
            ContentCorrupt,
        ),
    ],
    ids=["no index", "empty index", "no images", "other tag", "deep", "other bytes"],
)
def test_a_layout_that_is_invalid_is_refused(
    tmp_path: Path, make: Any, tag: str, error: type[LnsError]
) -> None:
    write_layout(tmp_path, build_image(b"layer"), "v1")
    make(tmp_path)

    with pytest.raises(error):
        opened(tmp_path, tag)
