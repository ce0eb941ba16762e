"""Generates `protos/gen` from `protos/lns`: messages, gRPC stubs and their type stubs.

    python protos/generate.py            write what differs, remove what is stale
    python protos/generate.py --check    write nothing; exit 1 and name what is not fresh

The result is committed, so that using lns needs no compiler. It does not depend on the machine:
the compiler is the one inside `grpcio-tools`, pinned together with the `protobuf` runtime that its
output demands. `protos/google` is only imported from; `googleapis-common-protos` has its Python.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
GENERATED = ROOT / "gen"


def compile_protos(target: Path) -> None:
    """Compiles every proto of `protos/lns` into the existing folder `target`.

    Files named `*_service.proto` hold the services; only they get stubs for gRPC.

    Raises:
        SystemExit: the compiler found an error, which it has printed.
    """
    scripts = Path(sys.executable).parent
    sources = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("lns/**/*.proto"))
    services = [name for name in sources if name.endswith("_service.proto")]
    search = [
        "protoc",
        f"--proto_path={ROOT}",
        f"--proto_path={Path(grpc_tools.__file__).parent / '_proto'}",
    ]
    messages = [
        f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
        f"--python_out={target}",
        f"--mypy_out=quiet:{target}",
    ]
    stubs = [
        f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
        f"--grpc_python_out={target}",
        f"--mypy_grpc_out=only_async,quiet:{target}",
    ]
    for options, files in ((messages, sources), (stubs, services)):
        if files and protoc.main([*search, *options, *files]) != 0:
            raise SystemExit("protoc failed; nothing was written")


def snapshot(folder: Path) -> dict[str, bytes]:
    """Returns the generated files below `folder` by their path in it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*_pb2*.py*"))
        if path.suffix in {".py", ".pyi"}
    }


def main() -> int:
    """Brings `protos/gen` up to date, or checks that it is; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if not fresh")
    check: bool = parser.parse_args().check
    with tempfile.TemporaryDirectory() as folder:
        compile_protos(Path(folder))
        fresh = snapshot(Path(folder))
    present = snapshot(GENERATED)
    differing = sorted(
        name for name in fresh.keys() | present.keys() if fresh.get(name) != present.get(name)
    )
    for name in differing:
        print(f"{'stale' if check else 'changed'}: protos/gen/{name}")
        path = GENERATED / name
        if check:
            continue
        if name in fresh:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(fresh[name])
        else:
            path.unlink()
    if check and differing:
        print("run `python protos/generate.py` and commit the result")
    return int(check and bool(differing))


if __name__ == "__main__":
    raise SystemExit(main())
