"""A blob that the disk has no room for is refused before a byte of it is written."""

import os
from pathlib import Path

import pytest

from services.chassis.blocking import Blocking
from services.core.descriptor import OCI_LAYER_TAR, Descriptor
from services.core.digest import Digest
from services.core.errors import CapacityExhausted
from services.registry_gateway.adapters.store.disk_store import DiskStore


async def test_the_error_names_directory_need_and_what_is_free(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    kept = disk.f_blocks * disk.f_frsize
    blob = Descriptor(media_type=OCI_LAYER_TAR, digest=Digest.of(b"x"), size=3 << 30)
    with Blocking(1, name="disk") as blocking:
        store = DiskStore(tmp_path / "blobs", blocking, reserve_bytes=kept)
        with pytest.raises(CapacityExhausted) as refused:
            await store.ingest(blob, resume=False)

    metadata = refused.value.metadata
    assert metadata["directory"] == str(tmp_path / "blobs" / "ingest")
    assert metadata["needed_bytes"] == str(3 << 30)
    assert int(metadata["free_bytes"]) > 0
    assert "3.0 GiB are needed" in refused.value.message
    assert list((tmp_path / "blobs" / "ingest").iterdir()) == []
