"""A command compatible with `mkcomposefs --from-file`: a composefs dump to an image.

    python -m services.materializer.mkcomposefs --from-file [--min-version=N] [--max-version=N]
        [--print-digest | --print-digest-only] DUMP|- [IMAGE|-]

Without version options the format is chosen as `mkcomposefs` does: 0, or 1 where the tree has
whiteouts. Exit code 1 and one line on standard error say what is wrong with a dump or a command
line; no image is left behind then.
"""

import argparse
import gc
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from services.materializer.composefs.dump import DumpInvalid, parse_dump
from services.materializer.composefs.image import VERSION_MAX, write_image
from services.materializer.composefs.verity import verity_digest


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    try:
        _run(_parse(arguments))
    except (_Refused, DumpInvalid) as error:
        sys.stderr.write(f"mkcomposefs: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"mkcomposefs: {error.filename or 'output'}: {error.strerror}\n")
        return 1
    return 0


class _Refused(Exception):
    """The command line cannot be followed."""


class _ArgumentParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _Refused(message)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _ArgumentParser(prog="mkcomposefs", description="Makes a composefs image.")
    parser.add_argument("--from-file", action="store_true", help="SOURCE is a composefs dump")
    parser.add_argument("--min-version", type=int, metavar="N", help="smallest format version")
    parser.add_argument("--max-version", type=int, metavar="N", help="largest format version")
    parser.add_argument("--print-digest", action="store_true", help="print the image's digest")
    parser.add_argument(
        "--print-digest-only", action="store_true", help="print the digest, write no image"
    )
    parser.add_argument("source", metavar="SOURCE", help="the dump, or - for standard input")
    parser.add_argument("image", nargs="?", metavar="IMAGE", help="the image, or -")
    options = parser.parse_args(arguments)
    if not options.from_file:
        raise _Refused("only dumps can be read: give --from-file")
    if options.print_digest_only and options.image is not None:
        raise _Refused("an image cannot be written with --print-digest-only")
    if not options.print_digest_only and not options.image:
        raise _Refused("no image to write was named")
    if options.min_version is None and options.max_version is None:
        options.max_version = VERSION_MAX
    options.min_version = options.min_version or 0
    options.max_version = max(options.max_version or 0, options.min_version)
    if options.min_version < 0 or options.max_version > VERSION_MAX:
        raise _Refused(f"the format versions are 0 to {VERSION_MAX}")
    return options


def _run(options: argparse.Namespace) -> None:
    if options.image == "-" and sys.stdout.isatty():
        raise _Refused("an image is not written to a terminal")
    dump = sys.stdin.buffer.read() if options.source == "-" else Path(options.source).read_bytes()
    image = write_image(
        parse_dump(dump), min_version=options.min_version, max_version=options.max_version
    )
    if options.image == "-":
        sys.stdout.buffer.write(image)
        sys.stdout.buffer.flush()
    elif options.image:
        _write(Path(options.image), image)
    if options.print_digest or options.print_digest_only:
        sys.stdout.write(verity_digest(image).hex() + "\n")


def _write(path: Path, image: bytearray) -> None:
    """Writes a file as a whole or not at all; what is not a regular file is written in place."""
    if path.exists() and not path.is_file():
        path.write_bytes(image)
        return
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name[:64]}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(image)
            umask = os.umask(0)
            os.umask(umask)
            os.fchmod(file.fileno(), 0o666 & ~umask)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


if __name__ == "__main__":
    gc.disable()  # nothing here makes cycles, and a large tree makes every collection slow
    sys.exit(main())
