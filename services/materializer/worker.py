"""The process that does the materializer's heavy work: one job a line on standard input.

A job is a JSON object with the member `job` and what that job needs; the answer is any number of
lines `{"progress": BYTES}` and one line `{"result": …}` or `{"error": …}`. Hostile bytes are parsed
here and nowhere else in the service, so a job can be stopped by killing its process, and what it
allocates goes with it; `worker_ground` says what else is not there for whatever breaks into it.
After a job that took much memory the last line has `"leaving": true` and the process ends. It ends
with its parent too.
"""

import argparse
import contextlib
import gc
import json
import os
import resource
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from services.chassis import reserve
from services.core.errors import CapacityExhausted, Internal, LnsError
from services.isolation import system_calls
from services.materializer import jobs
from services.materializer.worker_ground import confine

_MADE = ("directory", "image", "output")  # what a job writes
_MUCH_MEMORY_KIB = 256 << 10

JOBS: Mapping[str, Callable[[dict[str, Any], Callable[[int], None]], dict[str, Any]]] = {
    "layer": jobs.build_layer,
    "mounts": jobs.build_mounts,
    "compose": jobs.compose_image,
    "dump": jobs.write_dump,
    "verify": jobs.verify_layers,
}


def main(arguments: argparse.Namespace) -> int:
    """Does jobs until standard input ends or the process that started it does."""
    system_calls.end_with_parent()
    if os.getppid() != arguments.parent:
        return 0  # the parent died before it could be watched; it may be pid 1, in a container
    obstacle = confine(read=arguments.read, write=arguments.write)
    if obstacle:
        sys.stderr.write(f"a worker has no view of its own: {obstacle}\n")
        sys.stderr.flush()
    gc.disable()  # a collector would walk every inode of a tree again and again
    output = os.dup(1)
    os.dup2(2, 1)  # nothing else may write between the answers
    with contextlib.suppress(KeyboardInterrupt):
        for line in sys.stdin.buffer:
            answer = _run(line, lambda done: _answer(output, {"progress": done}))
            # The system keeps what a process once took, so one that took much is better replaced.
            leaving = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > _MUCH_MEMORY_KIB
            _answer(output, {**answer, "leaving": leaving})
            if leaving:
                break
            gc.collect()
    return 0


def _run(line: bytes, progress: Callable[[int], None]) -> dict[str, Any]:
    request: dict[str, Any] = {}
    try:
        request = json.loads(line)
        return {"result": JOBS[request["job"]](request, progress)}
    except LnsError as error:
        failure = error
    except OSError as error:
        failure = _translate(error, request)
    except MemoryError:
        failure = CapacityExhausted("the materializer has no memory left for this image")
    except Exception as error:  # noqa: BLE001 - the parent must get an answer for every job
        failure = Internal(f"the materializer's worker failed: {error!r}")
    return {
        "error": {
            "reason": failure.reason,
            "message": failure.message,
            "hint": failure.hint,
            "metadata": failure.metadata,
        }
    }


def _translate(error: OSError, request: Mapping[str, Any]) -> LnsError:
    if reserve.is_full(error):
        made = next((request[name] for name in _MADE if name in request), "/")
        return reserve.exhausted(Path(made).parent, what="an image")
    return Internal(f"the image store cannot be used: {error.strerror} ({error.filename})")


def _answer(output: int, message: dict[str, Any]) -> None:
    data = memoryview(json.dumps(message).encode() + b"\n")
    while data:
        data = data[os.write(output, data) :]


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="lns-layer-worker", description=__doc__)
    parser.add_argument("--parent", required=True, type=int, help="process that started it")
    parser.add_argument("--read", action="append", default=[], type=Path, help="directory to read")
    parser.add_argument(
        "--write", action="append", required=True, type=Path, help="directory to write to"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(_parse(sys.argv[1:])))
