"""What can be done with images once they are made."""

import asyncio
import stat
from pathlib import Path

import pytest
from google.protobuf import duration_pb2
from lns.materializer.v1 import materializer_service_pb2 as pb

from services.core import errors
from services.core.digest import Digest
from services.materializer.composefs.verity import verity_digest
from tests.support.eventually import eventually
from tests.support.materializer import Client, served
from tests.support.tars import archive, entry

ONE = archive(entry(b"one", b"1" * 5000), entry(b"dir/two", b"2" * 100))
OTHER = archive(entry(b"other", b"3" * 5000))


async def make(client: Client, *layers: bytes) -> pb.Image:
    return (await client.materialize(client.blobs.image(*layers))).image


def damage(path: Path, needle: bytes) -> None:
    """Changes one byte of what lies at a place that is found by its content."""
    data = bytearray(path.read_bytes())
    at = data.index(needle)
    data[at] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


async def test_an_image_is_found_by_digest_and_by_prefix(client: Client) -> None:
    image = await make(client, ONE)

    for name in (image.composefs_digest, image.composefs_digest[7:], image.composefs_digest[7:13]):
        answer = await client.stub.GetImage(pb.GetImageRequest(image=name))
        assert answer.image == image


@pytest.mark.parametrize("name", ["", "abc", "zzzzzz", "sha256:", "sha256:" + "a" * 65])
async def test_what_cannot_name_an_image_is_refused(client: Client, name: str) -> None:
    with pytest.raises(errors.RequestInvalid):
        await client.stub.GetImage(pb.GetImageRequest(image=name))


async def test_an_unknown_image_is_unknown_to_every_call(client: Client) -> None:
    name = str(Digest.of(b"unknown"))
    stub = client.stub
    calls = [
        stub.GetImage(pb.GetImageRequest(image=name)),
        stub.VerifyImage(pb.VerifyImageRequest(image=name)),
        stub.RemoveImage(pb.RemoveImageRequest(image=name)),
        stub.AcquireLease(pb.AcquireLeaseRequest(image=name, lease_id="l")),
        client.read(name, pb.IMAGE_FILE_METADATA),
    ]
    for call in calls:
        with pytest.raises(errors.ImageUnknown):
            await call


async def test_images_are_listed_newest_first_by_pages(client: Client) -> None:
    made = [await make(client, archive(entry(b"%d" % number))) for number in range(5)]

    found: list[pb.Image] = []
    token = ""
    sizes = []
    while True:
        request = pb.ListImagesRequest(page_size=2, page_token=token)
        page = await client.stub.ListImages(request)
        found += page.images
        sizes.append(len(page.images))
        token = page.next_page_token
        if not token:
            break

    assert sizes == [2, 2, 1]
    assert found == made[::-1]


@pytest.mark.parametrize(
    "request_",
    [
        pb.ListImagesRequest(page_size=-1),
        pb.ListImagesRequest(page_token="nonsense"),
        pb.ListImagesRequest(page_token="bm9uc2Vuc2U="),
    ],
)
async def test_a_malformed_page_is_refused(client: Client, request_: pb.ListImagesRequest) -> None:
    with pytest.raises(errors.RequestInvalid):
        await client.stub.ListImages(request_)


async def test_the_files_of_an_image_can_be_read(client: Client) -> None:
    image = await make(client, ONE)
    name = image.composefs_digest

    metadata = await client.read(name, pb.IMAGE_FILE_METADATA)
    rest = await client.read(name, pb.IMAGE_FILE_METADATA, offset_bytes=5000)
    pack = await client.read(name, pb.IMAGE_FILE_OBJECTS, diff_id=image.layers[0].diff_id)

    assert f"sha256:{verity_digest(metadata).hex()}" == name
    assert rest == metadata[5000:]
    assert pack == (client.home / image.layers[0].objects_path).read_bytes()
    end = await client.read(name, pb.IMAGE_FILE_METADATA, offset_bytes=len(metadata))
    assert end == b""


async def test_a_file_that_an_image_does_not_have_is_refused(client: Client) -> None:
    name = (await make(client, archive(entry(b"small", b"x")))).composefs_digest
    wrong = [
        {"file": pb.IMAGE_FILE_UNSPECIFIED},
        {"file": pb.IMAGE_FILE_METADATA, "offset_bytes": 1 << 40},
        {"file": pb.IMAGE_FILE_METADATA, "offset_bytes": -1},
        {"file": pb.IMAGE_FILE_OBJECTS, "diff_id": Digest.of(b"other layer")},
        {"file": pb.IMAGE_FILE_OBJECTS, "diff_id": Digest.of(archive(entry(b"small", b"x")))},
    ]
    for fields in wrong:
        with pytest.raises(errors.RequestInvalid):
            await client.read(name, **fields)  # type: ignore[arg-type]  # names of fields


async def test_prune_removes_what_no_lease_keeps(client: Client) -> None:
    kept = await make(client, ONE)
    gone = await make(client, ONE, OTHER)
    await client.stub.AcquireLease(
        pb.AcquireLeaseRequest(lease_id="run 1", holder="a run", image=kept.composefs_digest)
    )

    would = await client.stub.PruneImages(pb.PruneImagesRequest(dry_run=True))
    assert len(client.stored()["images"]) == 2
    did = await client.stub.PruneImages(pb.PruneImagesRequest())

    assert list(would.images) == list(did.images) == [gone.composefs_digest]
    assert list(would.layers) == list(did.layers) == [gone.layers[1].diff_id]
    assert did.freed_bytes > 0
    assert client.stored()["images"] == [f"{kept.composefs_digest[7:]}.cfs"]
    assert client.stored()["layers"] == [kept.layers[0].diff_id[7:]]
    assert (await client.stub.GetUsage(pb.GetUsageRequest())).reclaimable_bytes == 0

    await client.stub.ReleaseLease(pb.ReleaseLeaseRequest(lease_id="run 1"))
    await client.stub.ReleaseLease(pb.ReleaseLeaseRequest(lease_id="run 1"))
    await client.stub.PruneImages(pb.PruneImagesRequest())
    assert client.stored()["layers"] == []


async def test_a_prune_leaves_work_under_way_alone(client: Client) -> None:
    layers = [archive(entry(b"f", bytes([number]) * (8 << 20))) for number in range(4)]
    work = asyncio.create_task(client.materialize(client.blobs.image(*layers)))
    await eventually(lambda: client.stored()["layers"] != [])

    await client.stub.PruneImages(pb.PruneImagesRequest())

    image = (await work).image
    assert all((client.home / layer.objects_path).exists() for layer in image.layers)


async def test_a_lease_ends_by_itself(client: Client) -> None:
    image = await make(client, ONE)
    answer = await client.stub.AcquireLease(
        pb.AcquireLeaseRequest(
            lease_id="short",
            holder="test",
            image=image.composefs_digest,
            time_to_live=duration_pb2.Duration(nanos=1_000_000),
        )
    )
    assert answer.lease.expire_time.ToDatetime() > image.create_time.ToDatetime()
    assert answer.image == image

    async def pruned() -> bool:
        pruned = await client.stub.PruneImages(pb.PruneImagesRequest())
        return list(pruned.images) == [image.composefs_digest]

    for _ in range(500):
        if await pruned():
            break
    assert client.stored()["images"] == []


async def test_a_lease_can_be_taken_again_with_the_same_id(client: Client) -> None:
    first, second = await make(client, ONE), await make(client, OTHER)
    for image in (first, second, second):
        await client.stub.AcquireLease(
            pb.AcquireLeaseRequest(lease_id="l", holder="h", image=image.composefs_digest)
        )

    pruned = await client.stub.PruneImages(pb.PruneImagesRequest(dry_run=True))

    assert list(pruned.images) == [first.composefs_digest]


@pytest.mark.parametrize(
    "request_",
    [
        pb.AcquireLeaseRequest(image="a" * 64),
        pb.AcquireLeaseRequest(image="a" * 64, lease_id="l" * 201),
        pb.AcquireLeaseRequest(
            image="a" * 64, lease_id="l", time_to_live=duration_pb2.Duration(seconds=-1)
        ),
        pb.AcquireLeaseRequest(image="a" * 64, lease_id="l", time_to_live=duration_pb2.Duration()),
    ],
)
async def test_a_malformed_lease_is_refused(
    client: Client, request_: pb.AcquireLeaseRequest
) -> None:
    with pytest.raises(errors.RequestInvalid):
        await client.stub.AcquireLease(request_)


async def test_nothing_that_an_image_is_made_of_can_be_written_to(client: Client) -> None:
    image = await make(client, ONE)
    hexadecimal = image.composefs_digest.removeprefix("sha256:")
    files = [client.home / "images" / f"{hexadecimal}.cfs"]
    files += [path for path in (client.home / "layers").rglob("*") if path.is_file()]

    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in files} == {
        files[0].name: 0o444,
        "entries": 0o444,
        "objects.erofs": 0o444,
    }


async def test_an_image_in_use_is_not_removed(client: Client) -> None:
    image = await make(client, ONE)
    request = pb.RemoveImageRequest(image=image.composefs_digest)
    await client.stub.AcquireLease(
        pb.AcquireLeaseRequest(lease_id="l", holder="h", image=image.composefs_digest)
    )

    with pytest.raises(errors.InUse):
        await client.stub.RemoveImage(request)
    await client.stub.ReleaseLease(pb.ReleaseLeaseRequest(lease_id="l"))
    await client.stub.RemoveImage(request)

    assert client.stored()["images"] == []
    assert (await client.materialize(image.manifest_digest)).image.layers == image.layers


async def test_usage_counts_what_is_stored(client: Client) -> None:
    await make(client, ONE)
    await make(client, ONE, OTHER)

    usage = await client.stub.GetUsage(pb.GetUsageRequest())

    assert (usage.image_count, usage.layer_count) == (2, 2)
    assert usage.metadata_bytes > 0
    assert usage.layer_bytes > 10_000
    assert usage.reclaimable_bytes >= usage.layer_bytes


async def test_a_sound_image_verifies(client: Client) -> None:
    image = await make(client, ONE, OTHER)

    found = await client.stub.VerifyImage(pb.VerifyImageRequest(image=image.composefs_digest))

    assert (found.object_count, found.checked_bytes) == (3, 10_100)
    assert not found.damages


async def test_damage_is_named_by_path_and_repaired(client: Client) -> None:
    image = await make(client, ONE, OTHER)
    pack = client.home / image.layers[0].objects_path
    damage(pack, b"1111")
    request = pb.VerifyImageRequest(image=image.composefs_digest)

    found = await client.stub.VerifyImage(request)
    assert [(one.path, one.diff_id, one.repaired) for one in found.damages] == [
        ("/one", image.layers[0].diff_id, False)
    ]
    assert found.damages[0].object_digest == f"sha256:{verity_digest(b'1' * 5000).hex()}"

    request.repair = True
    repaired = await client.stub.VerifyImage(request)
    assert [one.repaired for one in repaired.damages] == [True]
    assert not (await client.stub.VerifyImage(request)).damages


@pytest.mark.parametrize(
    "what", ["lost pack", "cut pack", "superblock", "inode", "mode", "entries"]
)
async def test_every_damage_of_a_layer_is_found_and_repaired(client: Client, what: str) -> None:
    image = await make(client, ONE)
    directory = client.home / "layers" / image.layers[0].diff_id[7:]
    pack = directory / "objects.erofs"
    if what == "lost pack":
        pack.unlink()
    elif what == "cut pack":
        pack.chmod(0o644)
        pack.write_bytes(pack.read_bytes()[:-4096])
    elif what == "superblock":
        damage(pack, b"\xe2\xe1\xf5\xe0")
    elif what == "mode":
        damage(pack, (0o100444).to_bytes(2, "little"))
    elif what == "inode":
        damage(pack, verity_digest(b"1" * 5000).hex()[2:].encode())
    else:
        damage(directory / "entries", b"/dir/two")
    request = pb.VerifyImageRequest(image=image.composefs_digest)

    found = await client.stub.VerifyImage(request)
    assert found.damages
    assert all(one.description for one in found.damages)

    request.repair = True
    repaired = await client.stub.VerifyImage(request)
    assert all(one.repaired for one in repaired.damages)
    assert not (await client.stub.VerifyImage(request)).damages


async def test_very_many_damages_are_counted(client: Client) -> None:
    many = archive(*(entry(b"%d" % number, b"%d" % number * 70) for number in range(1500)))
    image = await make(client, many)
    (client.home / image.layers[0].objects_path).unlink()

    found = await client.stub.VerifyImage(pb.VerifyImageRequest(image=image.composefs_digest))

    assert len(found.damages) == 1001
    assert found.damages[-1].description == "and 500 more files"


async def test_damaged_metadata_is_found_and_repaired(client: Client) -> None:
    image = await make(client, ONE)
    path = client.home / image.metadata_path
    sound = path.read_bytes()
    damage(path, b"one")
    request = pb.VerifyImageRequest(image=image.composefs_digest)

    found = await client.stub.VerifyImage(request)
    assert [one.path for one in found.damages] == [image.metadata_path]

    request.repair = True
    repaired = await client.stub.VerifyImage(request)
    assert [one.repaired for one in repaired.damages] == [True]
    assert path.read_bytes() == sound


async def test_damage_without_a_blob_stays_and_says_so(client: Client) -> None:
    image = await make(client, ONE)
    damage(client.home / image.layers[0].objects_path, b"1111")
    (client.blobs.path / image.layers[0].blob_digest[7:]).unlink()

    found = await client.stub.VerifyImage(
        pb.VerifyImageRequest(image=image.composefs_digest, repair=True)
    )

    assert [one.repaired for one in found.damages] == [False]
    assert "could not be repaired" in found.damages[0].description


async def test_a_damaged_image_is_served_to_nobody_until_it_is_whole_again(client: Client) -> None:
    image = await make(client, ONE, OTHER)
    name = image.composefs_digest
    lease = pb.AcquireLeaseRequest(lease_id="l", holder="h", image=name)
    damage(client.home / image.layers[1].objects_path, b"3333")

    for call in (
        client.stub.AcquireLease(lease),
        client.read(name, pb.IMAGE_FILE_METADATA),
        client.read(name, pb.IMAGE_FILE_OBJECTS, diff_id=image.layers[1].diff_id),
    ):
        with pytest.raises(errors.ContentCorrupt):
            await call
    assert len((await client.stub.PruneImages(pb.PruneImagesRequest(dry_run=True))).images) == 1

    again = await client.materialize(image.manifest_digest)
    assert (again.already_existed, again.image.layers) == (False, image.layers)
    await client.stub.AcquireLease(lease)
    found = await client.stub.VerifyImage(pb.VerifyImageRequest(image=name))
    assert not found.damages


@pytest.mark.parametrize("what", ["pack", "entries", "metadata"])
async def test_a_lost_file_is_noticed_and_made_again(client: Client, what: str) -> None:
    image = await make(client, ONE)
    path = (
        client.home
        / {
            "pack": image.layers[0].objects_path,
            "entries": f"layers/{image.layers[0].diff_id[7:]}/entries",
            "metadata": image.metadata_path,
        }[what]
    )
    sound = path.read_bytes()
    path.unlink()

    again = await client.materialize(image.manifest_digest)

    assert again.image.composefs_digest == image.composefs_digest
    assert path.read_bytes() == sound


async def test_a_file_that_was_only_touched_is_checked_and_used(client: Client) -> None:
    image = await make(client, ONE)
    (client.home / image.layers[0].objects_path).touch()
    lease = pb.AcquireLeaseRequest(lease_id="l", holder="h", image=image.composefs_digest)
    with pytest.raises(errors.ContentCorrupt):
        await client.stub.AcquireLease(lease)

    await client.stub.VerifyImage(pb.VerifyImageRequest(image=image.composefs_digest))

    await client.stub.AcquireLease(lease)


async def test_a_store_has_one_owner(client: Client) -> None:
    with pytest.raises(errors.InUse):
        async with served(client.home):
            pass


async def test_a_restart_finds_everything_and_sweeps_what_was_left(short_directory: Path) -> None:
    async with served(short_directory) as client:
        image = await make(client, ONE)
        await client.stub.AcquireLease(
            pb.AcquireLeaseRequest(lease_id="l", holder="h", image=image.composefs_digest)
        )
        lost = await make(client, OTHER)
    leftover = short_directory / "materializer" / "work" / "leftover"
    leftover.mkdir()
    (leftover / "objects.erofs").write_bytes(b"half")
    (short_directory / "images" / ("ab" * 32 + ".cfs")).write_bytes(b"unrecorded")
    (short_directory / lost.metadata_path).unlink()

    async with served(short_directory) as client:
        listed = (await client.stub.ListImages(pb.ListImagesRequest())).images
        pruned = await client.stub.PruneImages(pb.PruneImagesRequest())

        assert list(listed) == [image]
        assert list(pruned.images) == []
        assert client.stored()["materializer/work"] == []
        assert client.stored()["images"] == [f"{image.composefs_digest[7:]}.cfs"]
