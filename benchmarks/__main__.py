"""python -m benchmarks: Lantern beside its peers and beside what no server can beat, interleaved in one run.

    python -m benchmarks --quick            limits, Lantern, plain FastAPI, LitServe; under ten minutes
    python -m benchmarks                    every server, every workload

Each server is started anew for each workload of each round, in turn, so that what the machine does meanwhile
meets all of them. All get the same model file, the same bytes and the same client (load.c). Every figure of the
tables is a median of rounds. Writes results.json, results.md and a plot a workload. A server that fails is told
with the end of its log, and the others go on; the exit status is not 0 if Lantern failed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import torch

from benchmarks.load import allow_connections
from benchmarks.places import Place, lay_out
from benchmarks.report import markdown, plot
from benchmarks.results import Limit, Results
from benchmarks.rounds import Plan, Round, noting
from benchmarks.servers import LANTERN_AUTO, LIMITS, OURS, SERVERS, Server
from benchmarks.workloads import ROOT, WORKLOADS, Mix, Workload
from training.machine import this_machine

QUICK_SERVERS = ("lantern", "lantern-auto", "lantern-workers", "fastapi", "litserve")

Each = TypeVar("Each")


def main() -> None:
    """Measure, and write what was found."""
    options = _options()
    results = Results(machine=this_machine(torch.device("cpu")), started_at=datetime.now(UTC))
    servers = installed(options.servers, results)
    plan = Plan(options.connections, options.seconds, options.open_loop, allow_connections())
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        optimize = LANTERN_AUTO in servers
        places = {each.name: lay_out(each, Path(scratch), optimize=optimize) for each in options.workloads}
        for number in range(options.rounds):
            for workload in options.workloads:
                place = places[workload.name]
                results.limits += _limits(number, workload, place)
                Round(results, number, workload, place, plan).measure((*LIMITS, *servers))
                _write(results, options.output)
    print(markdown(results))
    for path in plot(results, options.output):
        print(path)
    if failed := {each.server for each in results.absences if each.failed} & {server.name for server in OURS}:
        sys.exit(f"failed: {', '.join(sorted(failed))}")


def installed(servers: Sequence[Server], results: Results) -> list[Server]:
    """Those that can run here, with their versions; why each of the others cannot goes to the results as well."""
    found = []
    for server in servers:
        with noting(results, server):
            results.versions[server.name] = server.install()
            found.append(server)
    return found


def _limits(round_: int, workload: Workload | Mix, place: Place) -> list[Limit]:
    """Those of each model."""
    alone = len(workload.parts) == 1
    found = []
    for part, where in zip(workload.parts, place.each, strict=True):
        model_per_s, decode_per_s = _limits_per_s(where, part.bodies())
        limit = Limit(
            workload=workload.name,
            round=round_,
            model=None if alone else part.model,
            model_per_s=model_per_s,
            decode_per_s=decode_per_s,
        )
        found.append(limit)
    return found


def _limits_per_s(place: Place, bodies: Sequence[bytes]) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    files = [place.folder / f"body-{index}" for index in range(len(bodies))]
    for file, body in zip(files, bodies, strict=True):
        file.write_bytes(body)
    # Processes of their own: nothing that this one holds or has warmed up counts.
    model, decode = (
        json.loads(
            subprocess.run(
                [sys.executable, "-m", "benchmarks.limits", what, str(place.models_dir), *map(str, files)],
                cwd=ROOT,
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        for what in ("model", "decode")
    )
    return model, decode


def _write(results: Results, directory: Path) -> None:
    (directory / "results.json").write_text(results.model_dump_json(indent=1, by_alias=True))
    (directory / "results.md").write_text(markdown(results))


def _options() -> argparse.Namespace:
    summary, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=summary,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    quick = "--quick" in sys.argv[1:]
    parser.add_argument("--quick", action="store_true", help="fewer servers, workloads, rounds and seconds")
    parser.add_argument(
        "--servers",
        type=_some(SERVERS),
        default=",".join(QUICK_SERVERS if quick else SERVERS),
    )
    parser.add_argument(
        "--workloads", type=_some(WORKLOADS), default=",".join(("tiny", "resnet18") if quick else WORKLOADS)
    )
    parser.add_argument("--connections", type=_numbers, default="1,32" if quick else "1,8,32,64")
    parser.add_argument("--rounds", type=int, default=1 if quick else 3)
    parser.add_argument("--seconds", type=float, default=4 if quick else 8, help="of each load")
    parser.add_argument("--open-loop", action=argparse.BooleanOptionalAction, default=not quick)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"))
    return parser.parse_args()


def _some(known: dict[str, Each]) -> Callable[[str], list[Each]]:
    def parse(words: str) -> list[Each]:
        if unknown := [word for word in words.split(",") if word not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
        return [known[word] for word in words.split(",")]

    return parse


def _numbers(words: str) -> list[int]:
    return [int(word) for word in words.split(",")]


if __name__ == "__main__":
    main()
