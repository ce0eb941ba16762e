"""The agent packs and unpacks trees, held against Python's tarfile."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from cli.archive import unpack
from services.vm_runner.attachments import start_exec
from services.vm_runner.channel.requests import Builtin, ProcessSpec
from services.vm_runner.records.run_log import LogStream
from tests.support.guest_agent import agent_session

pytestmark = pytest.mark.integration

LONG = "n" * 200


async def run(builtin: Builtin, path: Path, data: bytes = b"") -> tuple[int, bytes, str]:
    """Return exit code, output and complaints of a builtin of a real agent."""
    async with agent_session() as session:
        await session.wait_ready()
        ids = [session.new_id() for _ in range(3)]
        spec = ProcessSpec(
            argv=(str(path),), builtin=builtin, stdio_stream=ids[1], stderr_stream=ids[2]
        )
        attachment = await start_exec(session, spec, process_id=ids[0])
        await attachment.write(data)
        await attachment.close_input()
        written = {LogStream.STDOUT: b"", LogStream.STDERR: b""}
        async for output in attachment.output():
            written[output.stream] += output.data
        status = await attachment.exit_status()
        return status.code, written[LogStream.STDOUT], written[LogStream.STDERR].decode()


def archive(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for entry, content in entries:
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, 0o644
    info.uid, info.gid = os.getuid(), os.getgid()
    return info


def target_of(link: Path) -> Path:
    return link.readlink()


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def test_a_packed_tree_reads_as_any_other_archive(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / LONG).mkdir(parents=True)
    (tree / LONG / LONG).write_bytes(b"deep")
    (tree / "big").write_bytes(os.urandom(300_000))
    (tree / "empty").touch(mode=0o600)
    (tree / "link").symlink_to("x" * 150)
    (tree / LONG / "zz").hardlink_to(tree / LONG / LONG)
    (tree / "grüße").write_text("hello")
    os.mkfifo(tree / "fifo")

    code, packed, said = await run(Builtin.PACK, tree)

    assert (code, said) == (0, "")
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        members = {member.name: member for member in tar}
        big = tar.extractfile("tree/big")
        assert big is not None
        assert big.read() == (tree / "big").read_bytes()
    names = ["", f"/{LONG}", f"/{LONG}/{LONG}", f"/{LONG}/zz", "/big", "/empty", "/grüße", "/link"]
    assert sorted(members) == sorted(f"tree{name}" for name in names)
    assert members["tree/link"].linkname == "x" * 150
    assert members["tree/empty"].mode == 0o600
    shared = members[f"tree/{LONG}/{LONG}"], members[f"tree/{LONG}/zz"]
    assert sorted(member.type for member in shared) == [tarfile.REGTYPE, tarfile.LNKTYPE]
    assert unpack([packed], tmp_path / "copy", name="tree") == len(members)
    assert (tmp_path / "copy" / LONG / LONG).read_bytes() == b"deep"
    assert target_of(tmp_path / "copy" / "link") == Path("x" * 150)


async def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    code, packed, said = await run(Builtin.PACK, tmp_path / "absent")

    assert (code, packed) == (1, b"")
    assert said == "absent: No such file or directory\n"


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
async def test_an_archive_is_unpacked_and_counted(tmp_path: Path, form: int) -> None:
    (tmp_path / "old").write_text("gives way")
    data = archive(
        (entry("dir/", tarfile.DIRTYPE), b""),
        (entry("dir/file"), b"x" * 100_000),
        (entry("dir/hard", tarfile.LNKTYPE, "dir/file"), b""),
        (entry("dir/soft", tarfile.SYMTYPE, "/anywhere"), b""),
        (entry("old"), b"new"),
        (entry("without/parent"), b""),
        (entry(f"{'p' * 90}/{'q' * 90}"), b"long"),
        form=form,
    )

    code, printed, said = await run(Builtin.UNPACK, tmp_path, data)

    assert (code, printed, said) == (0, b"7\n", "")
    assert (tmp_path / "dir/file").read_bytes() == b"x" * 100_000
    assert (tmp_path / "dir/hard").stat().st_ino == (tmp_path / "dir/file").stat().st_ino
    assert target_of(tmp_path / "dir/soft") == Path("/anywhere")
    assert (tmp_path / "old").read_text() == "new"
    assert (tmp_path / ("p" * 90) / ("q" * 90)).read_text() == "long"


HOSTILE = {
    "a path upwards": archive((entry("a/../../out"), b"bad")),
    "an absolute path": archive((entry("/out"), b"bad")),
    "a file through a link out": archive(
        (entry("door", tarfile.SYMTYPE, ".."), b""), (entry("door/out"), b"bad")
    ),
    "a hard link to the outside": archive((entry("out", tarfile.LNKTYPE, "../secret"), b"")),
    "a device": archive((entry("device", tarfile.CHRTYPE), b"")),
    "a cut archive": archive((entry("file"), b"x" * 5000))[:2000],
    "no archive": b"not a tar archive".ljust(1024, b"!"),
    "nothing": b"",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
async def test_a_hostile_archive_reaches_nothing_outside(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "secret").write_text("secret")
    inside = tmp_path / "inside"
    inside.mkdir()

    code, printed, said = await run(Builtin.UNPACK, inside, data)

    assert (code, printed) == (1, b"")
    assert said.endswith("\n")
    assert said.count("\n") == 1
    assert names_in(tmp_path) == ["inside", "secret"]
    assert (tmp_path / "secret").stat().st_nlink == 1
