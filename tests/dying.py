"""`python -m app` with worker processes, of which the first dies twice before it serves.

Run as `python -m tests.dying` it is the supervisor, as `python -m tests.dying CONTROL HANDOVER` one that dies.
"""

import itertools
import subprocess
import sys

from app.processes import child

# The second start is that of the second worker process.
DEADLY_STARTS = (1, 3)


def main() -> int:
    if len(sys.argv) > 1:
        return 1
    from app.__main__ import main as supervise

    run, program, starts = child._run, child.PROGRAM, itertools.count(1)

    def run_or_die(numbers: list[int]) -> "subprocess.Popen[bytes]":
        child.PROGRAM = "tests.dying" if next(starts) in DEADLY_STARTS else program
        return run(numbers)

    vars(child)["_run"] = run_or_die
    return supervise()


if __name__ == "__main__":
    sys.exit(main())
