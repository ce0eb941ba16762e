"""Writes the OCI layer that turns one root file system into another, both given as tar archives.

    python scripts/layer_difference.py BASE.tar FULL.tar [EXTRA_TREE] > LAYER.tar

The layer holds what of FULL is new or different, a whiteout for what of BASE is gone, and the files
of EXTRA_TREE, owned by root with the mode they have. Its bytes depend on nothing but the input.
"""

import hashlib
import io
import sys
import tarfile
from pathlib import Path, PurePosixPath

Fingerprint = tuple[object, ...]


def fingerprint(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Fingerprint:
    """What two entries have in common when the later need not be in the layer."""
    stream = archive.extractfile(member) if member.isreg() else None
    content = hashlib.sha256(stream.read()).digest() if stream else b""
    attributes = (member.type, member.mode, member.uid, member.gid, member.mtime, member.linkname)
    return (*attributes, member.devmajor, member.devminor, content)


def fingerprints(path: Path) -> dict[str, Fingerprint]:
    """The entries of an archive by their name."""
    with tarfile.open(path) as archive:
        return {member.name: fingerprint(archive, member) for member in archive}


def whiteout(name: str) -> tarfile.TarInfo:
    """The entry that removes `name` from the layers below."""
    path = PurePosixPath(name)
    return tarfile.TarInfo(str(path.with_name(f".wh.{path.name}")))


def add_tree(layer: tarfile.TarFile, tree: Path, mtime: float) -> None:
    """Add the files of a folder, not the folders themselves: those are in the layers below."""
    for path in sorted(path for path in tree.rglob("*") if not path.is_dir()):
        member = layer.gettarinfo(path, f"./{path.relative_to(tree).as_posix()}")
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.mode = 0o755 if member.mode & 0o100 else 0o644
        member.mtime = mtime
        with path.open("rb") as content:
            layer.addfile(member, content)


def main(arguments: list[str]) -> None:
    """Write the layer to standard output."""
    base, full, *extra = map(Path, arguments)
    before = fingerprints(base)
    mtime = 0.0
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=tarfile.PAX_FORMAT) as layer:
        with tarfile.open(full) as archive:
            names = set()
            for member in archive:
                names.add(member.name)
                mtime = max(mtime, member.mtime)
                if fingerprint(archive, member) != before.get(member.name):
                    content = archive.extractfile(member) if member.isreg() else io.BytesIO()
                    layer.addfile(member, content)
        for name in sorted(before.keys() - names):
            layer.addfile(whiteout(name))
        for tree in extra:
            add_tree(layer, tree, mtime)


if __name__ == "__main__":
    main(sys.argv[1:])
