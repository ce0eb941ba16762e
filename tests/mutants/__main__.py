"""`make mutants`: says of every harmful change whether the tests notice it.

Arguments are areas, or words of files and names; a change is tried if one of them fits. The exit
code is 1 when a change goes unnoticed, and 2 when the tests fail without any.
"""

import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.mutants.records import Mutant, all_mutants
from tests.mutants.trial import Copy, Verdict


def main(words: list[str]) -> int:
    """Tries the changes and prints a line for each."""
    known = all_mutants()
    areas = {one.area for one in known}.intersection(words)
    others = [word for word in words if word not in areas]
    mutants = [
        one
        for one in known
        if not words
        or one.area in areas
        or any(word in f"{one.file} {one.name}" for word in others)
    ]
    if not mutants:
        print(f"no change has one of these words: {' '.join(words)}")
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # cleans up like Control-C
    with tempfile.TemporaryDirectory(prefix="lns-mutants-") as place:
        copy = Copy(Path(place))
        tests = sorted({test for mutant in mutants for test in mutant.tests})
        if copy.run_tests(tests, seconds=900) != 0:
            print(copy.last_output())
            print("the tests fail without a change, so they say nothing")
            return 2
        failed: list[Mutant] = []
        for mutant in mutants:
            begin = time.monotonic()
            verdict = copy.attempt(mutant)
            seconds = time.monotonic() - begin
            print(
                f"{mutant.area:12} {verdict.value:10} {seconds:4.0f} s  {mutant.name}", flush=True
            )
            if verdict not in (Verdict.NOTICED, Verdict.HUNG):
                failed.append(mutant)
                print(
                    f"  {mutant.file}: {mutant.reason}\n  not noticed by {' '.join(mutant.tests)}"
                )
            if verdict is Verdict.BROKEN:
                print(copy.last_output()[-2000:])
    print(f"\n{len(mutants)} changes, {len(mutants) - len(failed)} noticed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
