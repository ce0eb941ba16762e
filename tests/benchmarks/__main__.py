"""`python -m tests.benchmarks [NAME…] [--samples N] [--json FILE]`: runs benchmarks.

A name selects what it is the beginning of: `transfers` all transfers, `transfers/blob` one.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.benchmarks import boots, channel, commands, egress, materialize, ports, transfers
from tests.benchmarks.harness import DEFAULT_SAMPLES, Benchmark, Result, run_comparison
from tests.benchmarks.report import format_result, to_json

BENCHMARKS: Mapping[str, Benchmark] = {
    "transfers/blob": transfers.blob,
    "transfers/many": transfers.many,
    "transfers/image": transfers.image,
    "transfers/large": transfers.large,
    "materialize/image": materialize.image,
    "materialize/layer": materialize.layer,
    "materialize/workers": materialize.workers,
    "materialize/writer": materialize.writer,
    "materialize/verity": materialize.verity,
    "materialize/disk": materialize.disk,
    "boots/starts": boots.starts,
    "boots/output": boots.output,
    "boots/memory": boots.memory,
    "channel": channel.channel,
    "ports": ports.ports,
    "egress": egress.egress,
    "commands": commands.commands,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 when all that was selected was run, 1 when some could not be, 2 when nothing is.

    Whether figures are reached is no part of it.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="beginning of a name; default all")
    parser.add_argument("--list", action="store_true", help="show the names and exit")
    parser.add_argument(
        "--samples", type=int, default=DEFAULT_SAMPLES, help="of each contender (%(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    options = parser.parse_args(arguments)
    selected = {
        name: benchmark
        for name, benchmark in BENCHMARKS.items()
        if not options.names or any(name.startswith(one) for one in options.names)
    }
    if not selected:
        print(f"nothing is called so; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    if options.list:
        for name, benchmark in selected.items():
            print(f"{name:20} {(benchmark.__doc__ or '').splitlines()[0]}")
        return 0
    results: list[Result] = []
    failed = 0
    for name, benchmark in selected.items():
        try:
            for result in _run(name, benchmark, options.samples):
                results.append(result)
                print(format_result(result), flush=True)
        except Exception as problem:  # noqa: BLE001 - one benchmark must not stop the others
            failed = 1
            print(f"\n{name}: could not be run: {problem}", file=sys.stderr, flush=True)
    if options.json is not None:
        options.json.write_text(to_json(results))
    return failed


def _run(name: str, benchmark: Benchmark, samples: int) -> Iterator[Result]:
    with contextlib.closing(benchmark()) as comparisons:
        for comparison in comparisons:
            result = run_comparison(name, comparison, samples=samples, progress=_progress)
            _progress("")
            yield result


def _progress(text: str) -> None:
    """Shows what is going on, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
