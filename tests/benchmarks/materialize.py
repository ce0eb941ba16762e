"""From a registry to an image that can be booted, against podman and against skopeo with umoci."""

import contextlib
import filecmp
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks import layouts, services
from tests.benchmarks.harness import Comparison, Comparisons, Contender, Figure, Sample, Unavailable
from tests.benchmarks.measure import measured_services, run_command
from tests.benchmarks.podman import open_podman
from tests.benchmarks.registries import run_registry
from tests.benchmarks.services import Gateway, Materializer
from tests.benchmarks.transfers import push_layout
from tests.benchmarks.workspace import new_folder

MIB = 1 << 20
_IMAGE_BYTES = 300_000_000
_LAYER_BYTES = 10_000_000
_FAMILY = 10
_LAYER_JOBS = Path(__file__).with_name("peers") / "layer_jobs.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A gateway and a materializer that share a store."""

    home: Path
    gateway: Gateway
    materializer: Materializer

    def make_bootable(self, reference: str) -> None:
        """Pulls and materializes."""
        pulled = self.gateway.pull(reference)
        self.materializer.materialize(pulled.descriptor.digest)

    def measured(self, work: Callable[[], object]) -> Sample:
        """Returns what some work costs the two services."""
        return measured_services([self.gateway.pid, self.materializer.pid], work)


@contextlib.contextmanager
def run_node() -> Iterator[Node]:
    """A node that has nothing."""
    with (
        new_folder() as folder,
        services.run_gateway(folder) as gateway,
        services.run_materializer(folder) as materializer,
    ):
        yield Node(home=folder, gateway=gateway, materializer=materializer)


def image() -> Comparisons:
    """A real image of 300 MB and 3 layers, from the registry until it can be booted."""
    with new_folder() as folder, run_registry() as registry:
        layout = layouts.write_real_layout(folder / "layout", compressed_bytes=_IMAGE_BYTES)
        reference = f"{registry.new_repository()}:v1"
        push_layout(layout, reference)
        what = f"{layout.size / 1e6:.0f} MB, {layout.unpacked_bytes / 1e6:.0f} MB unpacked"
        yield Comparison(
            title=f"pull of a real 3-layer image ({what}) until it can be booted",
            contenders=[
                Contender(name="podman pull", take=lambda: _with_podman(reference)),
                Contender(name="skopeo + umoci", take=lambda: _with_umoci(reference)),
                Contender(name="lns services", take=lambda: _with_lns(reference)),
            ],
            figures=[Figure(contender="lns services", against="podman pull", limit=0.4)],
            work=(layout.size / MIB, "MiB"),
        )
        with run_node() as node:
            node.make_bootable(reference)
            yield Comparison(
                title="the same again, everything there",
                contenders=[
                    Contender(
                        name="lns services",
                        take=lambda: node.measured(lambda: node.make_bootable(reference)),
                    )
                ],
                figures=[Figure(contender="lns services", limit=0.030)],
                notes=["the registry is still asked what the tag names"],
            )


def layer() -> Comparisons:
    """One new layer of 10 MB on an image of the store."""
    with new_folder() as folder, run_registry() as registry, run_node() as node:
        base = layouts.write_real_layout(folder / "base", compressed_bytes=_IMAGE_BYTES)
        repository = registry.new_repository()
        push_layout(base, f"{repository}:base")
        node.make_bootable(f"{repository}:base")
        numbers = itertools.count()

        def new_image() -> str:
            number = next(numbers)
            more = layouts.add_layer(base, folder / str(number), size=_LAYER_BYTES)
            push_layout(more, f"{repository}:{number}")
            return f"{repository}:{number}"

        def full() -> Sample:
            reference = new_image()
            with run_node() as fresh:
                return _materialize(fresh, reference)

        yield Comparison(
            title="an image of four layers, three of which may be stored",
            contenders=[
                Contender(name="all four", take=full),
                Contender(name="10 MB on top", take=lambda: _materialize(node, new_image())),
            ],
            figures=[Figure(contender="10 MB on top", against="all four", limit=0.1)],
            notes=["materializing alone: the blobs are in the store already"],
        )


def workers() -> Comparisons:
    """The layers of an image taken apart in turn, in two threads, in two processes."""
    with new_folder() as folder:
        layout = layouts.write_real_layout(folder / "layout", compressed_bytes=_IMAGE_BYTES)

        def take_apart(how: str) -> Sample:
            with new_folder() as target:
                return run_command([sys.executable, _LAYER_JOBS, how, layout.folder, target])

        yield Comparison(
            title="the three layers of a 300 MB image, taken apart",
            contenders=[
                Contender(name="in turn", take=lambda: take_apart("one")),
                Contender(name="two threads", take=lambda: take_apart("threads")),
                Contender(name="two processes", take=lambda: take_apart("processes")),
            ],
            work=(layout.size / MIB, "MiB"),
            notes=["inside a job one thread decompresses and hashes ahead of the one that parses"],
        )


def writer() -> Comparisons:
    """A composefs image of 100,000 entries."""
    with new_folder() as folder:
        dump = folder / "dump"
        entries = _write_dump(dump, files=96_000, per_directory=24)
        options = ["--from-file", "--min-version=1", "--max-version=1"]
        ours = [sys.executable, "-m", "services.materializer.mkcomposefs"]

        def write(command: Sequence[str | Path], name: str) -> Sample:
            return run_command([*command, *options, dump, folder / name])

        try:
            write(["mkcomposefs"], "theirs")
            write(ours, "ours")
            is_same = filecmp.cmp(folder / "theirs", folder / "ours", shallow=False)
            note = "the images are the same, byte for byte" if is_same else "THE IMAGES DIFFER"
        except Unavailable as problem:
            note = str(problem)
        yield Comparison(
            title=f"image of a dump of {entries:,} entries",
            contenders=[
                Contender(name="mkcomposefs", take=lambda: write(["mkcomposefs"], "theirs")),
                Contender(name="lns mkcomposefs", take=lambda: write(ours, "ours")),
            ],
            figures=[Figure(contender="lns mkcomposefs", against="mkcomposefs", limit=3)],
            work=(entries, "entries"),
            notes=[note],
        )


def verity() -> Comparisons:
    """fs-verity digests of a large file."""
    with new_folder() as folder:
        file = folder / "file"
        with file.open("wb") as target:
            target.writelines(os.urandom(MIB) for _ in range(1024))
        code = (
            "import mmap, sys; from services.materializer.composefs.verity import verity_digest;"
            "file = open(sys.argv[1], 'rb');"
            "print(verity_digest(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))"
        )
        yield Comparison(
            title="fs-verity digest of 1 GiB",
            contenders=[
                Contender(
                    name="fsverity digest", take=lambda: run_command(["fsverity", "digest", file])
                ),
                Contender(
                    name="lns, one process",
                    take=lambda: run_command([sys.executable, "-c", code, file]),
                ),
            ],
            work=(1024, "MiB"),
        )


def disk() -> Comparisons:
    """What ten images that share a base take on disk."""
    with new_folder() as folder, run_registry() as registry:
        base = layouts.write_real_layout(folder / "base", compressed_bytes=_IMAGE_BYTES // 3)
        repository = registry.new_repository()
        references = [f"{repository}:{number}" for number in range(_FAMILY)]
        for number, reference in enumerate(references):
            more = layouts.add_layer(base, folder / str(number), size=_LAYER_BYTES)
            push_layout(more, reference)

        def with_lns(*, blobs: bool) -> Sample:
            with run_node() as node:
                for reference in references:
                    node.make_bootable(reference)
                parts = ["layers", "images", *(["blobs"] if blobs else [])]
                return Sample(bytes=sum(_allocated(node.home / part) for part in parts))

        def with_podman() -> Sample:
            with open_podman() as podman:
                for reference in references:
                    podman.pull(reference)
                return Sample(bytes=_allocated(podman.store))

        yield Comparison(
            title=f"{_FAMILY} images: a base of {base.size / 1e6:.0f} MB and 10 MB each",
            contenders=[
                Contender(name="podman", take=with_podman),
                Contender(name="lns, bootable", take=lambda: with_lns(blobs=False)),
                Contender(name="lns, and the blobs", take=lambda: with_lns(blobs=True)),
            ],
            bytes_are="disk",
            notes=["podman keeps no blobs: what it pushes again has another digest"],
        )


def _with_podman(reference: str) -> Sample:
    with open_podman() as podman:
        return podman.pull(reference)


def _with_umoci(reference: str) -> Sample:
    with new_folder() as folder:
        source = f"docker://{reference}"
        copied = run_command(
            ["skopeo", "copy", "--quiet", "--src-tls-verify=false", source, f"oci:{folder}/oci:v1"]
        )
        unpacked = run_command(["umoci", "unpack", "--image", f"{folder}/oci:v1", f"{folder}/root"])
        return _sum(copied, unpacked)


def _with_lns(reference: str) -> Sample:
    with run_node() as node:
        return node.measured(lambda: node.make_bootable(reference))


def _materialize(node: Node, reference: str) -> Sample:
    digest = node.gateway.pull(reference).descriptor.digest
    os.sync()
    return node.measured(lambda: node.materializer.materialize(digest))


def _sum(first: Sample, second: Sample) -> Sample:
    """Returns what two commands cost, one after the other."""
    return Sample(
        wall=(first.wall or 0) + (second.wall or 0),
        cpu=(first.cpu or 0) + (second.cpu or 0),
        bytes=max(first.bytes or 0, second.bytes or 0),
    )


def _allocated(folder: Path) -> int:
    """Returns what the files below a folder take on the disk, hard links once."""
    seen: dict[tuple[int, int], int] = {}
    for parent, directories, files in os.walk(folder):
        for name in (*directories, *files):
            found = Path(parent, name).lstat()
            seen[found.st_dev, found.st_ino] = found.st_blocks * 512
    return sum(seen.values())


def _write_dump(path: Path, *, files: int, per_directory: int) -> int:
    """Writes a dump as of a system: directories, files with digests, some inline; returns lines."""
    lines = ["/ 4096 40755 2 0 0 0 1735689600.0 - - -"]
    for directory in range(files // per_directory):
        if directory % 100 == 0:
            lines.append(f"/d{directory // 100:03} 4096 40755 2 0 0 0 1735689600.0 - - -")
        parent = f"/d{directory // 100:03}/package-{directory % 100:02}"
        lines.append(f"{parent} 4096 40755 2 0 0 0 1735689600.0 - - -")
        for number in range(per_directory):
            name = f"{parent}/module_{number:02}.py"
            digest = f"{directory:032x}{number:032x}"
            if number % 8 == 0:
                lines.append(f"{name} 5 100644 1 0 0 0 1735689600.0 - hello -")
            elif number % 8 == 1:
                lines.append(f"{name} 9 120777 1 0 0 0 1735689600.0 module_00.py - -")
            else:
                payload = f"{digest[:2]}/{digest[2:]}"
                lines.append(f"{name} 70000 100644 1 0 0 0 1735689600.0 {payload} - {digest}")
    path.write_text("\n".join(lines) + "\n")
    return len(lines)
