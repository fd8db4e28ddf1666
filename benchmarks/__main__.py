"""python -m benchmarks: Lantern beside its peers and beside what no server can beat, interleaved in one run.

    python -m benchmarks --quick            limits, Lantern, plain FastAPI, LitServe; under ten minutes
    python -m benchmarks                    every server, every workload

Each server is started anew for each workload of each round, in turn, so that what the machine does meanwhile
meets all of them. All get the same model file, the same bytes and the same client (load.c). Every figure of the
tables is a median of rounds. Writes results.json, results.md and a plot a workload.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import torch

from benchmarks.environments import versions_of
from benchmarks.labels import check_label, expected_label
from benchmarks.load import Pattern, load
from benchmarks.report import markdown, plot
from benchmarks.results import Limit, Point, Results, Start
from benchmarks.servers import LIMITS, SERVERS, VARIANTS, Server, running
from benchmarks.workloads import ROOT, WORKLOADS, Place, Workload, lay_out
from training.machine import this_machine

WARMUP_S = 2.0
CAPACITY_CONNECTIONS = 32
SHARES = (0.5, 0.8, 1.2, 2.0)
DEADLINE_MS = 500.0
MOST_CONNECTIONS = 2000
QUICK_SERVERS = ("lantern", "lantern-auto", "lantern-workers", "fastapi", "litserve")

Each = TypeVar("Each")


def main() -> None:
    """Measure, and write what was found."""
    options = _options()
    options.servers = usable(options.servers)
    results = Results(
        machine=this_machine(torch.device("cpu")),
        started_at=datetime.now(UTC),
        versions={server.name: versions_of(server.name, server.requirements) for server in options.servers},
    )
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        places = {workload.name: lay_out(workload, Path(scratch)) for workload in options.workloads}
        for round_ in range(options.rounds):
            for workload in options.workloads:
                _measure_round(results, round_, workload, places[workload.name], options)
                _write(results, options.output)
    print(markdown(results))
    for path in plot(results, options.output):
        print(path)


def usable(servers: Sequence[Server]) -> list[Server]:
    """Those that can run here; a line tells why each of the others cannot."""
    missing = {server.name: server.missing() for server in servers}
    for name, why in missing.items():
        if why is not None:
            print(f"{name} is left out: {why}", file=sys.stderr)
    return [server for server in servers if missing[server.name] is None]


def _measure_round(
    results: Results, round_: int, workload: Workload, place: Place, options: argparse.Namespace
) -> None:
    requests = workload.requests()
    results.limits.append(_limit(round_, workload, place, workload.bodies()))
    label = expected_label(place.folder, requests[0])
    for server in (*LIMITS, *options.servers):
        if not server.takes(workload.inputs) or (server in VARIANTS and server.name not in workload.also):
            continue
        print(f"round {round_ + 1} of {options.rounds}: {workload.name}, {server.name}", file=sys.stderr)
        probe = server.request(requests[0], workload.content_type)
        with running(server, place, len(os.sched_getaffinity(0)), probe) as process:
            if server not in LIMITS:
                check_label(server.name, process.answer, label)

            def point(
                pattern: Pattern,
                share: float | None = None,
                server: Server = server,
                port: int = process.port,
            ) -> Point:
                asked = [server.request(inputs, workload.content_type, pattern.deadline_ms) for inputs in requests]
                outcome = load(port, asked, pattern)
                found = Point(
                    workload=workload.name,
                    server=server.name,
                    round=round_,
                    pattern=pattern,
                    share=share,
                    outcome=outcome,
                )
                results.points.append(found)
                return found

            _load_closed(point, options.connections, options.seconds)
            if options.open_loop and server not in LIMITS:
                _load_open(point, results, workload.name, server.name, options.seconds)
            start = Start(
                workload=workload.name,
                server=server.name,
                round=round_,
                ready_s=process.ready_s,
                memory=process.memory_mb(),
            )
            results.starts.append(start)


def _load_closed(point: Callable[[Pattern], Point], connections: Sequence[int], seconds: float) -> None:
    for count in connections:
        point(Pattern(connections=count, seconds=seconds, warmup_s=WARMUP_S))


def _load_open(
    point: Callable[[Pattern, float], Point], results: Results, workload: str, server: str, seconds: float
) -> None:
    """Load at shares of what the server itself reached in a closed loop, in this very round."""
    capacity_per_s = results.closed(workload, server, CAPACITY_CONNECTIONS)[-1].per_s
    for share in SHARES:
        pattern = Pattern(
            connections=MOST_CONNECTIONS,
            seconds=seconds,
            warmup_s=WARMUP_S,
            rate=share * capacity_per_s,
            deadline_ms=DEADLINE_MS,
        )
        point(pattern, share)


def _limit(round_: int, workload: Workload, place: Place, bodies: Sequence[bytes]) -> Limit:
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
    return Limit(workload=workload.name, round=round_, model_per_s=model, decode_per_s=decode)


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
    options = parser.parse_args()
    if options.open_loop and CAPACITY_CONNECTIONS not in options.connections:
        parser.error(f"--open-loop wants {CAPACITY_CONNECTIONS} among --connections, which tells the capacity")
    return options


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
