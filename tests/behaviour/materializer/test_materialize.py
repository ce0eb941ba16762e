"""Images made over the service, good and bad."""

import asyncio
import gzip
import json
import random
import tarfile
from pathlib import Path
from typing import Any

import pytest
from lns.materializer.v1 import materializer_service_pb2 as pb
from lns.types.v1 import usage_pb2

from services.core import errors
from services.core.artifacts.families import AGENT, FILESET, KNOWLEDGE, MODEL, TOOL
from services.core.descriptor import OCI_IMAGE_CONFIG, OCI_MANIFEST
from services.core.digest import Digest
from services.materializer.composefs.dump import parse_dump
from services.materializer.composefs.image import write_image
from services.materializer.composefs.verity import verity_digest
from services.materializer.settings import LimitSettings, MaterializerSettings
from tests.support.erofs_reader import Reader
from tests.support.eventually import eventually
from tests.support.materializer import Client, served
from tests.support.tars import archive, entry, layer

LOWER = layer(
    ("etc", {"kind": tarfile.DIRTYPE, "mode": 0o755}),
    ("etc/passwd", {"content": b"root\n" * 50}),
    ("etc/motd", {"content": b"hello"}),
    ("bin/tool", {"content": b"\x7fELF" * 5000, "mode": 0o755}),
)
UPPER = archive(entry(b"etc/.wh.motd"), entry(b"etc/passwd", b"other\n" * 50))


def large_layer(size: int = 30 << 20) -> bytes:
    """A layer that takes a while."""
    return layer(("large", {"content": random.Random(1).randbytes(size)}))  # noqa: S311 - test data


def assert_nothing_left(client: Client) -> None:
    assert client.stored() == {"layers": [], "images": [], "materializer/work": []}


@pytest.mark.parametrize("compression", ["gzip", "zstd", "xz", "bzip2", "none"])
async def test_an_image_is_made_of_its_layers(client: Client, compression: str) -> None:
    manifest = client.blobs.image(LOWER, UPPER, compression=compression)

    made = await client.materialize(manifest)

    image = made.image
    metadata = (client.home / image.metadata_path).read_bytes()
    assert image.composefs_digest == f"sha256:{verity_digest(metadata).hex()}"
    assert image.metadata_path == f"images/{image.composefs_digest[7:]}.cfs"
    assert image.manifest_digest == manifest
    assert (image.metadata_bytes, image.inode_count) == (len(metadata), Reader(metadata).inodes)
    assert [one.diff_id for one in image.layers] == [Digest.of(LOWER), Digest.of(UPPER)]
    assert not image.has_acl
    assert not made.already_existed
    assert [line.split()[0] for line in await client.dump(image.composefs_digest)] == [
        "/",
        "/bin",
        "/bin/tool",
        "/etc",
        "/etc/passwd",
    ]


async def test_the_files_of_an_image_are_its_objects(client: Client) -> None:
    image = (await client.materialize(client.blobs.image(LOWER, UPPER))).image

    root = parse_dump("\n".join(await client.dump(image.composefs_digest)).encode())
    packs = [
        Reader((client.home / one.objects_path).read_bytes()).root.children for one in image.layers
    ]
    passwd = root.children[b"etc"].children[b"passwd"]  # type: ignore[index]  # directories
    prefix, _, name = passwd.payload.partition(b"/")
    assert packs[1][prefix].children[name].data == b"other\n" * 50
    assert write_image(root) == (client.home / image.metadata_path).read_bytes()


async def test_progress_tells_what_happens_to_each_layer(client: Client) -> None:
    manifest = client.blobs.image(LOWER, UPPER)

    first = await client.materialize(manifest)
    other = await client.materialize(client.blobs.image(LOWER, archive(entry(b"new"))))
    again = await client.materialize(manifest)

    blobs = [one.blob_digest for one in first.image.layers]
    for blob in blobs:
        stages = [stage for digest, stage in first.stages if digest == blob]
        assert (stages[0], stages[-1]) == (usage_pb2.STAGE_WAITING, usage_pb2.STAGE_DONE)
    assert (blobs[0], usage_pb2.STAGE_EXISTS) in other.stages
    assert again.already_existed
    assert again.stages == []
    assert again.image == first.image


async def test_a_layer_is_kept_once_however_many_images_use_it(client: Client) -> None:
    await client.materialize(client.blobs.image(LOWER))
    await client.materialize(client.blobs.image(LOWER, UPPER))
    await client.materialize(client.blobs.image(LOWER, compression="zstd"))

    assert len(client.stored()["layers"]) == 2


async def test_equal_trees_are_one_image(client: Client) -> None:
    one = await client.materialize(client.blobs.image(layer(("a", {}), ("b", {}))))
    two = await client.materialize(client.blobs.image(layer(("a", {})), layer(("b", {}))))

    assert one.image.composefs_digest == two.image.composefs_digest
    assert len(client.stored()["images"]) == 1


async def test_two_requests_at_once_do_the_work_once(client: Client) -> None:
    manifest = client.blobs.image(large_layer())

    made = await asyncio.gather(*(client.materialize(manifest) for _ in range(5)))

    assert len({one.image.composefs_digest for one in made}) == 1
    unpacking = [stage for one in made for _, stage in one.stages]
    assert unpacking.count(usage_pb2.STAGE_WAITING) == 1


async def test_a_client_that_leaves_ends_the_work(client: Client) -> None:
    manifest = client.blobs.image(large_layer(60 << 20))
    call = client.stub.Materialize(pb.MaterializeRequest(manifest_digest=manifest))
    await eventually(lambda: client.stored()["materializer/work"] != [])

    call.cancel()

    await eventually(lambda: client.stored()["materializer/work"] == [])
    assert_nothing_left(client)


async def test_one_of_two_clients_may_leave(client: Client) -> None:
    manifest = client.blobs.image(large_layer())
    leaving = client.stub.Materialize(pb.MaterializeRequest(manifest_digest=manifest))
    staying = asyncio.create_task(client.materialize(manifest))
    await eventually(lambda: client.stored()["materializer/work"] != [])

    leaving.cancel()

    assert (await staying).image.composefs_digest


async def test_an_image_without_layers_is_an_empty_root(client: Client) -> None:
    made = await client.materialize(client.blobs.image())

    assert [line.split()[0] for line in await client.dump(made.image.composefs_digest)] == ["/"]


@pytest.mark.parametrize(
    "config",
    [{}, {"rootfs": None}, {"rootfs": {}}, {"rootfs": {"type": "layers", "diff_ids": None}}],
)
@pytest.mark.parametrize("layers", [{"layers": None}, {"layers": []}, {}])
async def test_what_docker_writes_for_no_layers_is_an_empty_root(
    client: Client, config: dict[str, Any], layers: dict[str, Any]
) -> None:
    descriptor = client.blobs.descriptor(json.dumps(config).encode(), OCI_IMAGE_CONFIG)
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor, **layers}

    made = await client.materialize(client.blobs.put_json(manifest))

    assert not made.image.layers


async def test_an_image_may_be_named_by_sha512_all_the_way(client: Client) -> None:
    manifest = client.blobs.image(LOWER, UPPER, algorithm="sha512")

    made = await client.materialize(manifest)
    again = await client.materialize(manifest)
    plain = await client.materialize(client.blobs.image(LOWER, UPPER))

    assert made.image.manifest_digest == manifest
    assert made.image.manifest_digest.startswith("sha512:")
    assert [one.diff_id for one in made.image.layers] == [
        Digest.of(LOWER, algorithm="sha512"),
        Digest.of(UPPER, algorithm="sha512"),
    ]
    assert made.image.composefs_digest == plain.image.composefs_digest
    assert again.already_existed
    assert (client.home / made.image.layers[1].objects_path).exists()


async def test_a_layer_that_does_not_have_its_sha512_is_refused(client: Client) -> None:
    wrong = [Digest.of(UPPER, algorithm="sha512")]

    with pytest.raises(errors.ContentCorrupt, match="hash to sha512:"):
        await client.materialize(client.blobs.image(LOWER, diff_ids=wrong))
    assert_nothing_left(client)


async def test_no_manifest_and_no_mounts_are_an_empty_root(client: Client) -> None:
    made = await client.materialize("")

    assert made.image.manifest_digest == ""
    assert not made.image.layers


async def test_missing_blobs_are_named(client: Client) -> None:
    manifest = client.blobs.image(LOWER)
    raw = json.loads((client.blobs.path / manifest.hex).read_bytes())
    missing = raw["layers"][0]["digest"]
    (client.blobs.path / missing[7:]).unlink()

    with pytest.raises(errors.BlobsMissing) as caught:
        await client.materialize(manifest)
    with pytest.raises(errors.BlobsMissing):
        await client.materialize(Digest.of(b"never"))

    assert caught.value.violations[0].subject == missing
    assert_nothing_left(client)


async def test_a_layer_without_its_diff_id_is_refused(client: Client) -> None:
    wrong = str(Digest.of(b"else"))

    with pytest.raises(errors.ContentCorrupt) as caught:
        await client.materialize(client.blobs.image(LOWER, diff_ids=[wrong]))

    assert caught.value.metadata["diff_id"] == wrong
    assert_nothing_left(client)


async def test_a_hostile_layer_is_refused_by_entry_and_leaves_nothing(client: Client) -> None:
    with pytest.raises(errors.LayerUnsafe) as caught:
        await client.materialize(client.blobs.image(archive(entry(b"a"), entry(b"../b"))))

    assert caught.value.metadata["entry"] == "../b"
    assert caught.value.metadata["layer"].startswith("sha256:")
    assert_nothing_left(client)


async def test_a_layer_that_does_not_fit_on_the_one_below_is_refused(client: Client) -> None:
    lower = layer(("s", {"kind": tarfile.SYMTYPE, "link": "/f"}), ("f", {"content": b"x"}))
    upper = archive(entry(b"s/passwd"))

    with pytest.raises(errors.LayerUnsafe) as caught:
        await client.materialize(client.blobs.image(lower, upper))

    assert caught.value.metadata == {"entry": "s/passwd", "diff_id": Digest.of(upper).hex}
    assert client.stored()["images"] == []


async def test_damaged_compression_is_refused(client: Client) -> None:
    cut_off = gzip.compress(LOWER)[:-9]
    manifest = client.blobs.image(cut_off, compression="none", diff_ids=[Digest.of(LOWER)])

    with pytest.raises(errors.LayerUnsafe, match="gzip"):
        await client.materialize(manifest)

    assert_nothing_left(client)


@pytest.mark.parametrize("which", ["layer", "config", "manifest"])
async def test_a_blob_that_is_damaged_in_the_store_is_named(client: Client, which: str) -> None:
    manifest = client.blobs.image(LOWER)
    raw = json.loads((client.blobs.path / manifest.hex).read_bytes())
    digests = {
        "layer": raw["layers"][0]["digest"],
        "config": raw["config"]["digest"],
        "manifest": manifest,
    }
    blob = client.blobs.path / digests[which][7:]
    blob.write_bytes(blob.read_bytes()[:-9])

    with pytest.raises(errors.ContentCorrupt, match=f"{digests[which]} is damaged in the store"):
        await client.materialize(manifest)

    assert_nothing_left(client)


async def test_what_is_no_image_is_refused(client: Client) -> None:
    index = client.blobs.put_json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [],
        }
    )
    cases = [
        (client.blobs.artifact(AGENT, {}), errors.ArtifactTypeUnsupported),
        (index, errors.ArtifactTypeUnsupported),
        (client.blobs.put(b"{"), errors.RegistryProtocol),
        (client.blobs.image(LOWER, diff_ids=[]), errors.RegistryProtocol),
        (client.blobs.image(LOWER, diff_ids=["sha512:x"]), errors.RegistryProtocol),
    ]
    for manifest, expected in cases:
        with pytest.raises(expected):
            await client.materialize(manifest)
    assert_nothing_left(client)


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    ],
)
async def test_a_layer_that_not_every_registry_has_is_one_where_it_came(
    client: Client, media_type: str
) -> None:
    made = await client.materialize(client.blobs.image(LOWER, media_type=media_type))

    assert made.image == (await client.materialize(client.blobs.image(LOWER))).image


async def test_an_encrypted_layer_is_refused(client: Client) -> None:
    encrypted = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"

    with pytest.raises(errors.LayerUnsupported, match="encrypted"):
        await client.materialize(client.blobs.image(LOWER, media_type=encrypted))


async def test_limits_come_from_the_settings(short_directory: Path) -> None:
    limits = LimitSettings(entries=3)
    async with served(short_directory, MaterializerSettings(limits=limits)) as client:
        with pytest.raises(errors.LayerUnsafe, match="3"):
            await client.materialize(client.blobs.image(LOWER))


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.MaterializeRequest(manifest_digest="sha256:x"), "manifest_digest"),
        (pb.MaterializeRequest(mounts=[pb.Mount(path="/a", manifest_digest="x")]), "mounts[0]"),
        (pb.MaterializeRequest(mounts=[pb.Mount(path="a")]), "mounts[0].path"),
        (pb.MaterializeRequest(mounts=[pb.Mount(path="/a/../b")]), "mounts[0].path"),
        (pb.MaterializeRequest(mounts=[pb.Mount(path="/./")]), "mounts[0].path"),
        (pb.MaterializeRequest(mounts=[pb.Mount(path="/")]), "mounts[0].path"),
    ],
)
async def test_a_malformed_request_is_named_by_field(
    client: Client, request_: pb.MaterializeRequest, field: str
) -> None:
    with pytest.raises((errors.RequestInvalid, errors.DigestInvalid)) as caught:
        async for _ in client.stub.Materialize(request_):
            pass

    assert caught.value.violations[0].subject.startswith(field)


async def test_artifacts_are_mounted_as_one_more_layer(client: Client) -> None:
    tree = archive(
        entry(b"doc/", kind=b"5", mode=0o700),
        entry(b"doc/a.txt", b"text" * 100),
        entry(b"doc/b.txt", kind=b"1", link=b"doc/a.txt"),
        entry(b".wh.kept", b"verbatim"),
        entry(b"empty", kind=b"5"),
    )
    model = {"provider": "p", "model": "m", "parameters": {"ü": [1.5, None, True]}}
    mounts = [
        pb.Mount(
            family="model",
            path="/etc/agent//model",
            read_only=True,
            manifest_digest=client.blobs.artifact(MODEL, model),
        ),
        pb.Mount(
            family="fileset",
            path="/srv/files",
            manifest_digest=client.blobs.artifact(FILESET, {}, gzip.compress(tree)),
        ),
        pb.Mount(
            family="knowledge",
            path="/srv/files/more",
            read_only=True,
            manifest_digest=client.blobs.artifact(KNOWLEDGE, {}, archive(entry(b"k", b"k"))),
        ),
    ]
    base = client.blobs.image(LOWER, archive(entry(b"srv/files/old")))

    made = await client.materialize(base, *mounts)
    plain = await client.materialize(base)

    assert made.image.layers[:2] == plain.image.layers
    assert len(made.image.layers) == 3
    assert made.image.layers[2].blob_digest == ""
    assert made.image.read_only_paths == ["/etc/agent/model", "/srv/files/more"]
    lines = {
        line.split()[0]: line.split() for line in await client.dump(made.image.composefs_digest)
    }
    assert "/srv/files/old" not in lines
    assert lines["/srv/files/doc"][2] == "40700"
    assert lines["/srv/files/empty"][2] == "40644"
    assert lines["/srv/files/.wh.kept"][9] == "verbatim"
    assert lines["/srv/files/doc/b.txt"][2] == "@100644"
    assert lines["/srv/files/more/k"][9] == "k"
    assert lines["/etc/agent/model"][2] == "100644"
    assert "trusted.lns.read_only=y" in lines["/etc/agent/model"]
    assert "trusted.lns.read_only=y" in lines["/srv/files/more"]
    assert "trusted.lns.read_only=y" not in lines["/srv/files"]
    pack = Reader((client.home / made.image.layers[2].objects_path).read_bytes()).root
    contents = [
        one.data for directory in pack.children.values() for one in directory.children.values()
    ]
    assert json.dumps(model, ensure_ascii=False, indent=2).encode() + b"\n" in contents


async def test_an_artifact_without_layers_warns_and_mounts_nothing(client: Client) -> None:
    mount = pb.Mount(
        family="tool",
        path="/tools/t",
        read_only=True,
        manifest_digest=client.blobs.artifact(TOOL, {"kind": "api"}),
    )

    for expected in (False, True):
        made = await client.materialize(client.blobs.image(LOWER), mount)
        assert made.already_existed is expected
        assert "/tools/t" in made.warnings[0]
        assert not made.image.read_only_paths


def oras_artifact(client: Client, media_type: str, *files: tuple[bytes, str]) -> str:
    """A file set whose layers are single files, as `oras push FILE` writes them."""
    layers = []
    for content, title in files:
        layer_ = client.blobs.descriptor(content, media_type)
        if title:
            layer_["annotations"] = {"org.opencontainers.image.title": title}
        layers.append(layer_)
    manifest = client.blobs.artifact(FILESET, {})
    document = json.loads((client.home / "blobs" / "sha256" / manifest[7:]).read_bytes())
    return client.blobs.put_json(document | {"layers": layers})


async def test_a_layer_that_is_a_file_is_mounted_as_the_file(client: Client) -> None:
    large = b"large" * 50_000
    files = [(b"hello\n", "notes.txt"), (large, "deep/large.bin"), (b"", "empty")]
    artifact = oras_artifact(client, "text/plain", *files)

    made = await client.materialize(
        "", pb.Mount(family="fileset", path="/srv", manifest_digest=artifact)
    )

    lines = {
        line.split()[0]: line.split() for line in await client.dump(made.image.composefs_digest)
    }
    assert lines["/srv/notes.txt"][1:3] == ["6", "100644"]
    assert lines["/srv/deep/large.bin"][1] == str(len(large))
    assert lines["/srv/empty"][1] == "0"
    pack = Reader((client.home / made.image.layers[0].objects_path).read_bytes()).root
    assert large in [
        one.data for directory in pack.children.values() for one in directory.children.values()
    ]


@pytest.mark.parametrize("title", ["", "../evil", "/etc/passwd", "a//b", "a\0b"])
async def test_a_layer_that_is_no_archive_and_no_file_is_refused(
    client: Client, title: str
) -> None:
    artifact = oras_artifact(client, "text/plain", (b"hello", title))

    with pytest.raises(errors.LayerUnsupported, match="fileset for /srv is a 'text/plain'"):
        await client.materialize(
            "", pb.Mount(family="fileset", path="/srv", manifest_digest=artifact)
        )


async def test_a_bad_layer_of_a_mount_names_the_artifact(client: Client) -> None:
    artifact = client.blobs.artifact(FILESET, {}, archive(entry(b"../evil")))
    mount = pb.Mount(family="fileset", path="/srv", manifest_digest=artifact)

    with pytest.raises(errors.LayerUnsafe) as caught:
        await client.materialize(client.blobs.image(LOWER), mount)

    assert caught.value.message.startswith(f"the mounted fileset {artifact} at /srv: entry")
    assert caught.value.metadata["entry"] == "../evil"
    assert "mend the artifact" in caught.value.hint


async def test_a_mounted_directory_does_not_replace_a_file_unnoticed(client: Client) -> None:
    files = client.blobs.artifact(FILESET, {}, archive(entry(b"f", b"x")))
    model = client.blobs.artifact(MODEL, {"provider": "p", "model": "m"})
    base = client.blobs.image(LOWER)

    with pytest.raises(errors.LayerUnsafe, match="the image has a file there"):
        await client.materialize(
            base, pb.Mount(family="fileset", path="/etc/passwd", manifest_digest=files)
        )
    made = await client.materialize(
        base, pb.Mount(family="model", path="/etc/passwd", manifest_digest=model)
    )
    assert made.image.composefs_digest


async def test_read_only_is_part_of_an_image(client: Client) -> None:
    artifact = client.blobs.artifact(FILESET, {}, archive(entry(b"f", b"x")))

    def mount(*, read_only: bool) -> pb.Mount:
        return pb.Mount(family="fileset", path="/f", manifest_digest=artifact, read_only=read_only)

    writable = await client.materialize("", mount(read_only=False))
    read_only = await client.materialize("", mount(read_only=True))

    assert writable.image.composefs_digest != read_only.image.composefs_digest
    assert writable.image.layers == read_only.image.layers


async def test_a_mount_goes_where_the_links_of_an_image_lead(client: Client) -> None:
    base = layer(
        ("usr/lib/x", {"content": b"x"}), ("lib", {"kind": tarfile.SYMTYPE, "link": "usr/lib"})
    )
    mount = pb.Mount(
        family="fileset",
        path="/lib/data",
        read_only=True,
        manifest_digest=client.blobs.artifact(FILESET, {}, archive(entry(b"f", b"f"))),
    )

    image = (await client.materialize(client.blobs.image(base), mount)).image

    assert image.read_only_paths == ["/usr/lib/data"]
    paths = [line.split()[0] for line in await client.dump(image.composefs_digest)]
    assert "/usr/lib/data/f" in paths
    found = await client.stub.VerifyImage(pb.VerifyImageRequest(image=image.composefs_digest))
    assert not found.damages


async def test_mounts_that_cannot_be_are_refused(client: Client) -> None:
    fileset = client.blobs.artifact(FILESET, {}, archive(entry(b"f")))
    hostile = client.blobs.artifact(FILESET, {}, archive(entry(b"../f")))

    def mount(family: str, digest: str, path: str = "/m") -> pb.Mount:
        return pb.Mount(family=family, path=path, manifest_digest=digest)

    cases: list[tuple[list[pb.Mount], type[errors.LnsError]]] = [
        ([mount("agent", fileset)], errors.ArtifactTypeUnsupported),
        ([mount("knowledge", fileset)], errors.ArtifactTypeUnsupported),
        ([mount("fileset", client.blobs.image(LOWER))], errors.ArtifactTypeUnsupported),
        ([mount("fileset", fileset), mount("fileset", fileset, "/m/")], errors.RequestInvalid),
        ([mount("fileset", hostile)], errors.LayerUnsafe),
    ]
    for mounts, expected in cases:
        with pytest.raises(expected):
            await client.materialize("", *mounts)
    assert_nothing_left(client)
