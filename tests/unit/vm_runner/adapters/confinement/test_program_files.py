"""What QEMU needs of the file system, told from files that play QEMU's."""

import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from services.vm_runner.adapters.confinement import program_files
from services.vm_runner.adapters.confinement.program_files import ProgramFinder, interpreter
from services.vm_runner.adapters.confinement.switches import Code, Data

LOADER = "/lib64/ld-linux-x86-64.so.2"


def elf(loader: str | None) -> bytes:
    """Returns a program of one header, which names its loader."""
    header = struct.pack(
        "<16s HHI QQQ I HHHHHH",
        *(b"\x7fELF\x02\x01\x01", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0),
    )
    name = b"" if loader is None else loader.encode() + b"\0"
    kind = 1 if loader is None else 3
    return header + struct.pack("<II QQQQQQ", kind, 4, 120, 0, 0, len(name), 0, 1) + name


class Host:
    """A program with libraries, modules and firmware below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.program = self.add("usr/bin/qemu-system-x86_64", elf(LOADER))
        self.library = self.add("usr/lib/x/libz.so.1.2.13")
        self.link = root / "usr/lib/x/libz.so.1"
        self.link.symlink_to("libz.so.1.2.13")
        self.module = self.add("usr/lib/x/qemu/accel-tcg-x86_64.so")
        self.add("usr/lib/x/qemu/block-curl.so")
        self.bios = self.add("usr/share/seabios/bios.bin")
        self.firmware = self.add("usr/share/qemu/linuxboot.bin").parent
        self.listed = f"\tlinux-vdso.so.1 (0x00007ffe)\n\tlibz.so.1 => {self.link} (0x00007f21)\n"
        self.calls: list[list[str]] = []

    def add(self, name: str, data: bytes = b"") -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def run(self, command: list[str], **_: object) -> "subprocess.CompletedProcess[bytes]":
        self.calls.append(command)
        shown = {
            (LOADER, "--list"): self.listed,
            (str(self.program), "-L"): f"{self.root}/usr/bin/../share/qemu\n/no/such/folder\n",
        }[command[0], command[1]]
        return subprocess.CompletedProcess(command, 0, stdout=shown.encode())


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host(tmp_path)
    monkeypatch.setattr(program_files.subprocess, "run", host.run)
    return host


async def test_a_program_has_its_libraries_under_the_names_it_asks_for(host: Host) -> None:
    code = (await ProgramFinder().find(host.program)).code

    assert Code(host.program, host.program) in code
    assert Code(host.library, host.link) in code
    assert Path(LOADER) in [file.target for file in code]


async def test_only_modules_that_execute_guests_are_kept(host: Host) -> None:
    targets = [file.target for file in (await ProgramFinder().find(host.program)).code]

    assert host.module in targets
    assert not any("block-curl" in target.name for target in targets)


async def test_firmware_is_where_the_program_says(host: Host) -> None:
    data = (await ProgramFinder().find(host.program)).data

    assert Data(host.firmware, host.firmware) in data
    assert Path("/no/such/folder") not in [folder.target for folder in data]


async def test_firmware_that_is_a_link_to_elsewhere_exists_too(host: Host) -> None:
    (host.firmware / "bios.bin").symlink_to("../seabios/bios.bin")
    (host.firmware / "within.bin").symlink_to("linuxboot.bin")
    (host.firmware / "dangling.bin").symlink_to("../nothing")

    data = (await ProgramFinder().find(host.program)).data

    assert Data(host.bios, host.bios) in data
    assert len([file for file in data if host.root in file.source.parents]) == 2


async def test_the_list_is_made_once_and_anew_when_a_file_of_it_is_gone(host: Host) -> None:
    finder = ProgramFinder()
    first = await finder.find(host.program)
    assert await finder.find(host.program) is first
    calls = len(host.calls)

    newer = host.add("usr/lib/x/libz.so.1.3.0")
    host.link.unlink()
    host.link.symlink_to(newer.name)
    host.library.unlink()

    assert Code(newer, host.link) in (await finder.find(host.program)).code
    assert len(host.calls) == 2 * calls


async def test_a_missing_library_is_named(host: Host) -> None:
    host.listed = "\tlibgone.so.4 => not found\n"

    with pytest.raises(ValueError, match=r"libgone\.so\.4"):
        await ProgramFinder().find(host.program)


def truncated(data: bytes) -> bytes:
    return data[:70]


def big_endian(data: bytes) -> bytes:
    return data[:5] + b"\x02" + data[6:]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: b"",
        lambda _: b"#!/bin/sh\nexec qemu\n",
        lambda _: elf(None),
        truncated,
        big_endian,
    ],
    ids=["empty", "a script", "static", "truncated", "big-endian"],
)
def test_what_is_not_a_dynamic_program_has_no_loader(
    tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    program = tmp_path / "program"
    program.write_bytes(spoil(elf(LOADER)))

    with pytest.raises(ValueError, match=str(program)):
        interpreter(program)


def test_the_loader_of_a_real_program_exists() -> None:
    shell = Path(os.path.realpath("/bin/sh"))

    assert Path(interpreter(shell)).exists()
