"""The layers of an OCI layout, taken apart: `layer_jobs.py one|threads|processes LAYOUT TARGET`.

The same work in turn, in two threads, or in two processes: what the materializer's workers are for.
"""

import json
import sys
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from services.materializer.jobs import build_layer
from services.materializer.layers.limits import LayerLimits

WORKERS = 2


def main(how: str, layout: str, target: str) -> None:
    """Takes every layer apart."""
    requests = layer_requests(Path(layout), Path(target))
    if how == "one":
        for request in requests:
            take_apart(request)
        return
    with workers(how) as executor:
        list(executor.map(take_apart, requests))


def workers(how: str) -> Executor:
    """Returns two threads or two processes."""
    if how == "threads":
        return ThreadPoolExecutor(WORKERS)
    return ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn"))


def layer_requests(layout: Path, target: Path) -> list[dict[str, Any]]:
    """Returns a job for each layer, with a directory of its own."""
    index = json.loads((layout / "index.json").read_bytes())
    manifest = json.loads(blob(layout, index["manifests"][0]["digest"]).read_bytes())
    config = json.loads(blob(layout, manifest["config"]["digest"]).read_bytes())
    requests = []
    for number, layer in enumerate(manifest["layers"]):
        directory = target / str(number)
        directory.mkdir(parents=True)
        requests.append(
            {
                "blob": {
                    "digest": layer["digest"].removeprefix("sha256:"),
                    "path": str(blob(layout, layer["digest"])),
                },
                "directory": str(directory),
                "diff_id": config["rootfs"]["diff_ids"][number].removeprefix("sha256:"),
                "limits": asdict(LayerLimits()),
            }
        )
    return requests


def take_apart(request: dict[str, Any]) -> None:
    """Does one job."""
    build_layer(request, lambda _: None)


def blob(layout: Path, digest: str) -> Path:
    """Returns the file of a blob."""
    return layout / "blobs" / digest.replace(":", "/")


if __name__ == "__main__":
    main(*sys.argv[1:])
