"""Transfers between a registry and the gateway's store, against skopeo and oras-py.

Every push goes to a registry of its own that knows none of the blobs, in any repository. Every pull
of the gateway goes into an empty store of a process that has done nothing before.
"""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks import layouts, services
from tests.benchmarks.harness import Comparison, Comparisons, Contender, Figure, Quantity, Sample
from tests.benchmarks.layouts import Layout
from tests.benchmarks.measure import measured_services, run_command
from tests.benchmarks.registries import run_registry
from tests.benchmarks.workspace import new_folder
from tests.support.registry import RunningRegistry

MIB = 1 << 20
_ORAS = Path(__file__).with_name("peers") / "oras_transfer.py"
_SKOPEO = ("skopeo", "copy", "--quiet", "--preserve-digests")


def blob() -> Comparisons:
    """One blob of 512 MiB."""
    with new_folder() as folder:
        layout = layouts.write_random_layout(folder / "layout", layers=1, layer_bytes=512 * MIB)
        yield _push(layout, "push of one 512 MiB blob", limit=1.1)
        yield from _pull(layout, "pull of one 512 MiB blob", limit=0.5)


def many() -> Comparisons:
    """200 blobs of 1 MiB."""
    with new_folder() as folder:
        layout = layouts.write_random_layout(folder / "layout", layers=200, layer_bytes=MIB)
        yield _push(layout, "push of 200 blobs of 1 MiB", limit=0.7)
        yield from _pull(layout, "pull of 200 blobs of 1 MiB", limit=0.7)


def image() -> Comparisons:
    """A real image of three layers."""
    with new_folder() as folder:
        layout = layouts.write_real_layout(folder / "layout", compressed_bytes=180_000_000)
        size = f"a real 3-layer image of {layout.size / 1e6:.0f} MB"
        yield _push(layout, f"push of {size}", limit=None)
        yield from _pull(layout, f"pull of {size}", limit=0.9)


def large() -> Comparisons:
    """The memory of a gateway that moves a blob of 2 GiB."""
    with new_folder() as folder:
        layout = layouts.write_repeating_layout(folder / "layout", layer_bytes=2048 * MIB)
        most = Figure(contender="lns gateway", limit=200 * MIB, quantity=Quantity.BYTES)
        yield Comparison(
            title="push of one 2 GiB blob",
            contenders=[Contender(name="lns gateway", take=lambda: _push_with_lns(layout))],
            figures=[most],
            work=(layout.size / MIB, "MiB"),
        )
        with run_registry() as registry:
            reference = _fill(registry, layout)
            yield Comparison(
                title="pull of one 2 GiB blob",
                contenders=[Contender(name="lns gateway", take=lambda: _pull_with_lns(reference))],
                figures=[most],
                work=(layout.size / MIB, "MiB"),
            )


def _push(layout: Layout, title: str, *, limit: float | None) -> Comparison:
    return Comparison(
        title=title,
        contenders=[
            Contender(name="skopeo copy", take=lambda: _push_with_skopeo(layout)),
            Contender(name="oras-py", take=lambda: _push_with_oras(layout)),
            Contender(name="lns gateway", take=lambda: _push_with_lns(layout)),
        ],
        figures=_figures(limit),
        work=(layout.size / MIB, "MiB"),
    )


def _pull(layout: Layout, title: str, *, limit: float) -> Iterator[Comparison]:
    with run_registry() as registry:
        reference = _fill(registry, layout)
        yield Comparison(
            title=title,
            contenders=[
                Contender(name="skopeo copy", take=lambda: _pull_with_skopeo(reference)),
                Contender(name="oras-py", take=lambda: _pull_with_oras(reference)),
                Contender(name="lns gateway", take=lambda: _pull_with_lns(reference)),
            ],
            figures=_figures(limit),
            work=(layout.size / MIB, "MiB"),
            notes=["oras-py verifies no digest; the others verify all"],
        )


def _figures(limit: float | None) -> list[Figure]:
    if limit is None:
        return []
    return [Figure(contender="lns gateway", against="skopeo copy", limit=limit)]


def _push_with_skopeo(layout: Layout) -> Sample:
    with _empty_registry() as reference:
        return push_layout(layout, reference)


def _push_with_oras(layout: Layout) -> Sample:
    with _empty_registry() as reference:
        return run_command([sys.executable, _ORAS, "push", reference, layout.folder])


def _push_with_lns(layout: Layout) -> Sample:
    with (
        _empty_registry() as reference,
        new_folder() as folder,
        services.run_gateway(folder / "home") as gateway,
    ):
        source = f"oci:{layout.folder}:latest"
        return measured_services([gateway.pid], lambda: gateway.push(source, reference))


def _pull_with_skopeo(reference: str) -> Sample:
    with new_folder() as folder:
        return run_command(
            [*_SKOPEO, "--src-tls-verify=false", f"docker://{reference}", f"oci:{folder}/layout"]
        )


def _pull_with_oras(reference: str) -> Sample:
    with new_folder() as folder:
        return run_command([sys.executable, _ORAS, "pull", reference, folder / "layout"])


def _pull_with_lns(reference: str) -> Sample:
    with new_folder() as folder, services.run_gateway(folder / "home") as gateway:
        return measured_services([gateway.pid], lambda: gateway.pull(reference))


@contextlib.contextmanager
def _empty_registry() -> Iterator[str]:
    """Yields a reference in a registry that has nothing."""
    with run_registry() as registry:
        yield f"{registry.new_repository()}:v1"


def _fill(registry: RunningRegistry, layout: Layout) -> str:
    """Puts a layout into a registry and returns its reference."""
    reference = f"{registry.new_repository()}:v1"
    push_layout(layout, reference)
    return reference


def push_layout(layout: Layout, reference: str) -> Sample:
    """Pushes an OCI layout with skopeo."""
    source = f"oci:{layout.folder}:latest"
    return run_command([*_SKOPEO, "--dest-tls-verify=false", source, f"docker://{reference}"])
