"""What each form of a network that could serve on a CPU does: the figures that backends are chosen by.

    python -m benchmarks.backends [resnet18] [resnet50] [efficientnet] [--candidates NAME,...] [--rounds 3]

Takes random weights of torchvision's ResNets, and the packaged EfficientNet-Lite0. All candidates get the same
weights and photographs; they take uint8 images and give logits. Each is made once, and then loaded and measured
anew in every round, in turn, on one thread and on all. Making, and every measurement, is a process of its own:
nothing that another warmed up or allocated counts. ONNX Runtime has an environment of its own. Figures are medians
of the rounds, but for the difference, which is the largest; loading is timed on all threads.

The processes that measure find no compiler, as in Lantern's container image. One that is to use one thread, and
uses more of the processor than one can, fails. What fails stays in the table, with the reason.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch

from benchmarks.candidates import BATCHES, CANDIDATES, Made, Measured
from benchmarks.environments import python_of
from benchmarks.networks import NETWORKS
from benchmarks.workloads import ROOT
from training.machine import this_machine

TIMEOUT_S = 1200.0
# Threads that only wait use a little too.
MOST_OF_ONE_CORE = 1.1
LONGEST_REASON = 160
TRACEBACK = "Traceback (most recent call last):"
# One of these is what each library takes its number of threads from, unless it is told.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
COMPILERS = ("CC", "CXX")
SIZES = "/".join(map(str, BATCHES))
HEAD = (
    "candidate",
    f"images/s, one thread, batch {SIZES}",
    "all threads",
    "largest difference",
    "to make, s",
    "to load, s",
    "MB",
    "cores used, one/all threads",
)


class Failed(Exception):
    """A process gave no answer; says why, in one line."""


class Ask(Protocol):
    """Runs a part of `benchmarks.candidates`, and returns its answer."""

    def __call__(self, part: str, name: str, folder: Path, threads: int | None = None) -> str:
        """Run it.

        Raises:
            Failed: It gives none.
        """
        ...


@dataclass
class Row:
    """What was found of a candidate: everything, or why not.

    Attributes:
        measured: Threads -> what was measured on them in each round.
    """

    name: str
    made: Made | None = None
    measured: dict[int, list[Measured]] = field(default_factory=dict)
    failure: str | None = None


def main() -> None:
    """Measure, and print a table for each network."""
    options = options_of(sys.argv[1:])
    machine = this_machine(torch.device("cpu"))
    print(f"{machine.cpu}, {_cores()} cores, torch {machine.torch}, commit {machine.commit}.")
    print(f"Rounds: {options.rounds}. Differences are those of logits from eager fp32.")
    for network in options.networks:
        print(f"\n## {network}\n")
        with tempfile.TemporaryDirectory() as scratch:
            print(_of_network(network, Path(scratch), options), flush=True)


def _of_network(network: str, folder: Path, options: argparse.Namespace) -> str:
    try:
        ask("lay-out", network, folder)
    except Failed as failure:
        return f"Not measured, for it cannot be laid out: {failure}"
    return markdown(compare(options.candidates, folder, options.rounds))


def ask(part: str, name: str, folder: Path, threads: int | None = None) -> str:
    """Run a part of `benchmarks.candidates` in a process of its own, and return the last line that it prints.

    Args:
        part: `lay-out`, `make` or `measure`.
        name: Of the network to lay out; of the candidate, in other parts.
        folder: Where the network is.
        threads: That it may use in all, where it measures.

    Raises:
        Failed: It ended without an answer, or did not end in time.
    """
    words = [part, name, str(folder), *(["--threads", str(threads)] if threads else [])]
    environment = _to_measure(threads) if threads else _to_make(folder / "compiled" / name)
    try:
        done = subprocess.run(
            [str(_python(name)), "-m", "benchmarks.candidates", *words],
            cwd=ROOT,
            env=environment,
            timeout=TIMEOUT_S,
            capture_output=True,
            text=True,
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"to {part} it took more than {TIMEOUT_S:.0f} s") from error
    if done.returncode != 0:
        raise Failed(reason(done.stderr, done.returncode))
    return done.stdout.rpartition("\n")[0].rpartition("\n")[2]


def _python(name: str) -> Path:
    candidate = CANDIDATES.get(name)
    if candidate is None or candidate.requirements is None:
        return Path(sys.executable)
    requirements = candidate.requirements
    try:
        return python_of(requirements.parent.name, requirements)
    except subprocess.CalledProcessError as error:
        raise Failed(f"its environment cannot be made from {requirements.relative_to(ROOT)}") from error


def _to_make(cache: Path) -> dict[str, str]:
    # What was compiled in another run would be found, and be no part of what making takes.
    return os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(cache)}


def _to_measure(threads: int) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in COMPILERS}
    return kept | dict.fromkeys(THREADS, str(threads)) | {"PATH": ""}


def reason(said: str, code: int) -> str:
    """Return why a process failed, in one line that fits a table.

    Args:
        said: On its standard error.
        code: That it ended with.
    """
    if code < 0:
        return f"ended by signal {-code}"
    _, traceback, last = said.rpartition(TRACEBACK)
    lines = [line for line in last.splitlines() if line.strip()]
    if traceback:
        # The exception follows what is indented; its message may begin on a line of its own.
        lines = [line for line in lines if not line.startswith(" ")]
        lines = lines[: 2 if lines and lines[0].rstrip().endswith(":") else 1]
    told = " ".join(" ".join(lines if traceback else lines[-1:]).split())
    # A bar would end the table's cell.
    told = told.replace(f"{ROOT}/", "").replace("|", "/")
    return told[:LONGEST_REASON] or f"ended with code {code}"


def compare(names: Sequence[str], folder: Path, rounds: int, ask: Ask = ask) -> list[Row]:
    """Make the candidates, then measure them in turn, round after round; what has failed is not tried again.

    Args:
        names: Theirs.
        folder: Where a network is laid out.
        rounds: How many.
        ask: What runs a part of it.
    """
    rows = [Row(name) for name in names]
    for row in rows:
        print(f"making {row.name}", file=sys.stderr)
        _try(row, lambda row: _make(row, folder, ask))
    for round_ in range(rounds):
        for row in rows:
            print(f"round {round_ + 1} of {rounds}: {row.name}", file=sys.stderr)
            _try(row, lambda row: _measure(row, folder, ask))
    return rows


def _try(row: Row, step: Callable[[Row], None]) -> None:
    if row.failure is not None:
        return
    try:
        step(row)
    except Failed as failure:
        row.failure = str(failure)


def _make(row: Row, folder: Path, ask: Ask) -> None:
    row.made = Made.model_validate_json(ask("make", row.name, folder))


def _measure(row: Row, folder: Path, ask: Ask) -> None:
    for threads in sorted({1, _cores()}):
        found = Measured.model_validate_json(ask("measure", row.name, folder, threads))
        if threads == 1 and found.cores_used > MOST_OF_ONE_CORE:
            raise Failed(f"on one thread it used {found.cores_used:.2f} cores")
        row.measured.setdefault(threads, []).append(found)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def markdown(rows: Sequence[Row]) -> str:
    """Return the candidates as a table, after a line on what their figures are to be compared with."""
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in (HEAD, ["---"] * len(HEAD), *map(_cells, rows)))
    return "\n\n".join([line for line in (_logits(rows), _versions(rows)) if line] + [table])


def _logits(rows: Iterable[Row]) -> str:
    found = [each.largest_logit for row in rows for rounds in row.measured.values() for each in rounds]
    return f"The largest logit is {max(found):.3g}." if found else ""


def _versions(rows: Iterable[Row]) -> str:
    found = {name: version for row in rows if row.made for name, version in row.made.versions.items()}
    return ", ".join(f"{name} {version}" for name, version in found.items()) + "." if found else ""


def _cells(row: Row) -> Sequence[str]:
    if row.failure is not None or row.made is None or not row.measured:
        return [row.name, f"failed: {row.failure or 'not measured'}", *[""] * (len(HEAD) - 2)]
    one, every = row.measured[min(row.measured)], row.measured[max(row.measured)]
    return [
        row.name,
        _rates(one),
        _rates(every),
        f"{max(each.largest_difference for each in one + every):.2g}",
        f"{row.made.make_s:.1f}",
        f"{statistics.median(each.load_s for each in every):.2f}",
        f"{row.made.size_mb:.1f}",
        "/".join(f"{statistics.median(each.cores_used for each in rounds):.2f}" for rounds in (one, every)),
    ]


def _rates(rounds: Sequence[Measured]) -> str:
    medians = (statistics.median(each.images_per_s[size] for each in rounds) for size in BATCHES)
    return " / ".join(f"{median:.3g}" if median < 100 else f"{median:.0f}" for median in medians)


def options_of(words: Sequence[str]) -> argparse.Namespace:
    """Return what the words of a command line say; what is unknown among them ends the program."""
    summary, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.backends",
        description=summary,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("networks", nargs="*", type=_known(NETWORKS), default=list(NETWORKS), metavar="NETWORK")
    parser.add_argument(
        "--candidates", type=_some(CANDIDATES), default=list(CANDIDATES), help="separated by commas"
    )
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(words)
    if options.rounds < 1:
        parser.error("--rounds: at least one is wanted")
    return options


def _known(names: Iterable[str]) -> Callable[[str], str]:
    def parse(word: str) -> str:
        if word not in names:
            raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(names)}")
        return word

    return parse


def _some(names: Iterable[str]) -> Callable[[str], list[str]]:
    return lambda words: [_known(names)(word) for word in words.split(",")]


if __name__ == "__main__":
    main()
