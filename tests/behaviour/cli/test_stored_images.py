"""Images in the store, on the command line: listed, described, exported, checked, pruned."""

import json
from pathlib import Path

import pytest
from lns.materializer.v1 import materializer_service_pb2 as images_pb
from lns.registry.v1 import registry_service_pb2 as pb
from lns.types.v1 import descriptor_pb2

from services.core.errors import (
    ArtifactInvalid,
)
from tests.behaviour.cli.conftest import Client
from tests.support.scripted_pulls import DIGEST, MANIFEST, OTHER, pulled
from tests.support.scripted_services import ScriptedServices


def test_images_are_listed_without_artifacts(services: ScriptedServices, lns: Client) -> None:
    services["ListStoredImages"] = pb.ListStoredImagesResponse(
        images=[
            pb.StoredImage(reference=f"r/i@{DIGEST}", descriptor=MANIFEST, total_bytes=10**6),
            pb.StoredImage(reference="r/models/m:1", descriptor=MANIFEST, family="model"),
        ]
    )

    assert "models" not in lns("image", "ls").out
    assert "r/i@sha256:1f1f1f1f1f1f…" in lns("image", "ls").out
    assert "r/models/m:1 " in lns("image", "ls", "-a").out
    rows = [json.loads(line) for line in lns("image", "ls", "--format", "json").out.splitlines()]
    assert [(row["reference"], row["digest"]) for row in rows] == [(f"r/i@{DIGEST}", DIGEST)]


def stored(services: ScriptedServices) -> None:
    """Scripts a store with an image of two names, one of it a digest, and another image."""
    other = descriptor_pb2.Descriptor(digest=OTHER, media_type="m", size_bytes=2)
    index = descriptor_pb2.Descriptor(digest="sha256:" + "3d" * 32, media_type="m", size_bytes=3)
    services["ListStoredImages"] = pb.ListStoredImagesResponse(
        images=[
            pb.StoredImage(reference="r.example/i:1", descriptor=index, platform_manifest=MANIFEST),
            pb.StoredImage(reference=f"r.example/i@{DIGEST}", descriptor=MANIFEST),
            pb.StoredImage(reference=f"r.example/j@{OTHER}", descriptor=other),
        ]
    )


def test_an_image_that_has_a_name_is_listed_by_it_alone(
    services: ScriptedServices, lns: Client
) -> None:
    stored(services)

    assert "r.example/i@" not in lns("image", "ls").out
    assert "r.example/i:1" in lns("image", "ls").out
    assert "r.example/i@" in lns("image", "ls", "-a").out
    assert f"r.example/j@{OTHER}" in lns("image", "ls", "--no-trunc").out
    assert lns("image", "ls", "-q").out.splitlines() == ["3d" * 6, "2e" * 6]
    assert lns("image", "ls", "-q", "--no-trunc").out.splitlines()[1] == OTHER


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("r.example/i:1", "r.example/i:1"),
        ("1f1f1f1f1f1f", f"r.example/i@{DIGEST}"),
        ("1f1f", f"r.example/i@{DIGEST}"),
        (DIGEST, f"r.example/i@{DIGEST}"),
        ("sha256:2e2e2e2e2e2e", f"r.example/j@{OTHER}"),
        ("r.example/j@sha256:2e2e2e2e2e2e…", f"r.example/j@{OTHER}"),
        (f"r.example/j@{OTHER}", f"r.example/j@{OTHER}"),
        ("3d3d3d", "r.example/i@sha256:" + "3d" * 32),
        ("beef", "beef"),
        ("debian:12", "debian:12"),
    ],
)
def test_what_is_listed_is_taken_back(
    services: ScriptedServices, lns: Client, given: str, sent: str
) -> None:
    stored(services)
    services["RemoveStoredImage"] = pb.RemoveStoredImageResponse(references=["x"])
    services["TagStoredImage"] = pb.TagStoredImageResponse(reference="new:1")
    services["PushImage"] = [
        pb.PushImageResponse(result=pb.PushImageResult(reference="r/i:1", descriptor=MANIFEST))
    ]

    assert lns("image", "rm", given).code == 0
    assert lns("image", "tag", given, "new:1").out == "new:1\n"
    assert lns("push", given, "r.example/i:1").code == 0

    assert services.asked("RemoveStoredImage")[0].reference == sent
    assert services.asked("TagStoredImage")[0].source == sent
    assert services.asked("PushImage")[0].source == sent


def test_an_id_that_several_images_have_is_refused(services: ScriptedServices, lns: Client) -> None:
    services["ListStoredImages"] = pb.ListStoredImagesResponse(
        images=[
            pb.StoredImage(
                reference=f"r.example/{last}:1",
                descriptor=descriptor_pb2.Descriptor(digest="sha256:" + "1f" * 31 + last),
            )
            for last in ("aa", "bb")
        ]
    )

    assert "could be 2 images" in lns("image", "rm", "1f1f1f").err


def test_the_history_of_an_image_is_its_steps_the_latest_first(
    services: ScriptedServices, lns: Client
) -> None:
    history = [
        {"created_by": "ADD rootfs", "created": "2026-01-01T00:00:00Z"},
        {"created_by": "CMD  sh", "empty_layer": True, "comment": "c"},
        {"created_by": None},
    ]
    services["GetManifest"] = pb.GetManifestResponse(
        manifest=json.dumps({"layers": [{"size": 1000}, {"size": 20}]}).encode(),
        config=json.dumps({"history": history}).encode(),
    )

    result = lns("image", "history", "r.example/i:1", "--format", "json")

    rows = [json.loads(line) for line in result.out.splitlines()]
    assert [(row["created_by"], row["size_bytes"]) for row in rows] == [
        ("", 20), ("CMD  sh", 0), ("ADD rootfs", 1000),
    ]  # fmt: skip
    assert services.asked("GetManifest")[0].offline


def made(services: ScriptedServices) -> None:
    """Scripts an image that is pulled and materialized."""
    pulled(services)
    services["Materialize"] = [
        images_pb.MaterializeResponse(
            result=images_pb.MaterializeResult(image=images_pb.Image(composefs_digest=DIGEST))
        )
    ]


def test_an_image_is_inspected_with_its_composefs_digest(
    services: ScriptedServices, lns: Client
) -> None:
    made(services)
    services["InspectManifest"] = pb.InspectManifestResponse(
        reference="r/x:1", descriptor=MANIFEST, manifest=b'{"layers":[]}', config=b"{}"
    )

    document = json.loads(lns("image", "inspect", "r/x:1", "--format", "json").out)

    assert document["composefs_digest"] == DIGEST
    assert document["manifest"] == {"layers": []}
    assert services.asked("Materialize")[0].manifest_digest == DIGEST


def test_an_artifact_is_no_image(services: ScriptedServices, lns: Client) -> None:
    pulled(services, "model", b"{}")

    assert "the family model, not an image" in lns("image", "inspect", "r/x:1").err


def test_an_image_is_exported_whole_or_not_at_all(
    services: ScriptedServices, lns: Client, tmp_path: Path
) -> None:
    made(services)
    services["ReadImageFile"] = [
        images_pb.ReadImageFileResponse(data=b"one"),
        images_pb.ReadImageFileResponse(data=b"two"),
    ]
    assert lns("image", "export", "r/x:1", "--dump", "-").out == "onetwo"
    lns("image", "export", "r/x:1", "--image", "i.cfs")
    assert (tmp_path / "i.cfs").read_bytes() == b"onetwo"

    services["ReadImageFile"] = [
        images_pb.ReadImageFileResponse(data=b"one"),
        ArtifactInvalid("it broke"),
    ]
    assert lns("image", "export", "r/x:1", "--image", "j.cfs").code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["i.cfs"]
    assert lns("image", "export", "r/x:1").code == 1


@pytest.mark.parametrize(("repaired", "code"), [(True, 0), (False, 1)])
def test_damage_that_is_left_is_a_failure(
    services: ScriptedServices, lns: Client, repaired: bool, code: int
) -> None:
    made(services)
    services["VerifyImage"] = images_pb.VerifyImageResponse(
        object_count=3, damages=[images_pb.Damage(path="/bin/x", repaired=repaired)]
    )

    result = lns("image", "verify", "r/x:1")

    assert result.code == code
    assert "/bin/x" in result.out
    assert "1 damaged" in result.err


def test_pruning_is_of_images_and_blobs(services: ScriptedServices, lns: Client) -> None:
    services["PruneImages"] = images_pb.PruneImagesResponse(images=[DIGEST], freed_bytes=10**6)
    services["PruneBlobs"] = pb.PruneBlobsResponse(digests=["sha256:b"], freed_bytes=2 * 10**6)

    result = lns("image", "prune", "-f", "--dry-run")

    assert result.out == f"{DIGEST}\nsha256:b\n"
    assert "would free 3MB" in result.err
    assert services.asked("PruneBlobs")[0].dry_run
