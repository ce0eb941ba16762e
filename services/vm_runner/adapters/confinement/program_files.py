"""What QEMU needs of the file system: its program, libraries, modules, firmware.

The libraries are those that the dynamic loader says it would load. Their list is kept as long as
every file of it is there; a file that is replaced under its name is taken as it is then.
"""

import asyncio
import os
import re
import struct
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from services.vm_runner.adapters.confinement.measures import ProgramFiles
from services.vm_runner.adapters.confinement.switches import Code, Data

_SECONDS = 10.0
_LOADER_CACHE = Path("/etc/ld.so.cache")
_MODULE_FOLDERS = ("lib/*/qemu", "lib64/qemu", "lib/qemu")
_LISTED = re.compile(r"\s*(?:\S+ => )?(/.+) \(0x[0-9a-f]+\)")

_ELF_HEADER = struct.Struct("<16s HHI QQQ I HHHHHH")  # Elf64_Ehdr of elf(5)
_PROGRAM_HEADER = struct.Struct("<II QQQQQQ")  # Elf64_Phdr
_PT_INTERP = 3


class ProgramFinder:
    """Finds what QEMU needs, once."""

    def __init__(self) -> None:
        self._found: dict[Path, ProgramFiles] = {}

    async def find(self, program: Path) -> ProgramFiles:
        """Returns what a program of QEMU needs.

        Raises:
            ValueError: that cannot be told.
        """
        return await asyncio.to_thread(self._find, program)

    def _find(self, program: Path) -> ProgramFiles:
        found = self._found.get(program)
        if found is None or not all(source.exists() for source in found.sources()):
            found = self._found[program] = _look(program)
        return found


def _look(program: Path) -> ProgramFiles:
    modules = [
        module
        for folder in _MODULE_FOLDERS
        for module in program.parent.parent.glob(f"{folder}/accel-*.so")
    ]
    code = {program, *_libraries(program), *modules}
    data = [*_outermost(_data_folders(program))]
    linked = [target for folder in data for target in _links_outside(folder, data)]
    if _LOADER_CACHE.exists():
        data.append(_LOADER_CACHE)
    return ProgramFiles(
        code=tuple(Code(path.resolve(), path) for path in sorted(code)),
        data=tuple(Data(path.resolve(), path) for path in sorted({*data, *linked})),
    )


def _libraries(program: Path) -> Iterator[Path]:
    """Yields the loader of a program and what it loads."""
    loader = Path(interpreter(program))
    yield loader
    output = _run([str(loader), "--list", str(program)])
    if "not found" in output:
        raise ValueError(f"{program} lacks libraries: {output.strip()}")
    for line in output.splitlines():
        if match := _LISTED.fullmatch(line):
            yield Path(match[1])


def _data_folders(program: Path) -> Iterator[Path]:
    """Yields where QEMU looks for firmware."""
    for line in _run([str(program), "-L", "help"]).splitlines():
        folder = Path(os.path.normpath(line))
        if folder.is_absolute() and folder.is_dir():
            yield folder


def _outermost(folders: Iterable[Path]) -> Iterator[Path]:
    known = sorted(set(folders))
    return (path for path in known if not any(other in path.parents for other in known))


def _links_outside(folder: Path, folders: list[Path]) -> Iterator[Path]:
    """Yields files that links in a folder lead to and that are in none of the folders."""
    for entry in folder.iterdir():
        target = entry.resolve()
        inside = any(known.resolve() in target.parents for known in folders)
        if entry.is_symlink() and not inside and target.is_file():
            yield target


def interpreter(program: Path) -> str:
    """Returns the path of the dynamic loader that a program names.

    Raises:
        ValueError: it is not a dynamically linked 64-bit little-endian ELF program.
    """
    try:
        with program.open("rb") as file:
            header = _ELF_HEADER.unpack(file.read(_ELF_HEADER.size))
            if header[0][:6] != b"\x7fELF\x02\x01":
                raise ValueError(f"{program} is not an ELF program")
            offset, size, count = header[5], header[9], header[10]
            for number in range(count):
                file.seek(offset + number * size)
                kind, _, start, _, _, length, _, _ = _PROGRAM_HEADER.unpack(
                    file.read(_PROGRAM_HEADER.size)
                )
                if kind == _PT_INTERP:
                    file.seek(start)
                    return os.fsdecode(file.read(min(length, 4096)).rstrip(b"\0"))
    except (OSError, struct.error) as error:
        raise ValueError(f"{program} is not an ELF program: {error}") from error
    raise ValueError(f"{program} is not linked dynamically")


def _run(command: list[str]) -> str:
    try:
        result = subprocess.run(
            command,
            env={},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ValueError(f"{' '.join(command)} does not work: {error}") from error
    return result.stdout.decode("utf-8", "replace")
