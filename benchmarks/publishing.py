"""python -m benchmarks.publishing: is anything lost, or late, while versions of a model are published?

The service gets requests in open loop at 0.7 of its capacity: for a while in peace, for a while in which one
version after the other goes live, in turn, until so many did under load. Capacity is the median of what was
measured before each turn: from one minute to the next a machine may be a third faster. A version is the same
bundle under a new name, so that nothing but the publishing differs. It is published as soon as the one before
is live, by this process, on the same machine, whose processors the client needs too.

Latencies are those of slices of ten seconds, and are compared by their medians. A slice in which a hypervisor gave
over 3 % of the processors' time to others ("steal") tells of those; it counts for what is lost, not for how late
what was answered came.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import torch
from pydantic import BaseModel

from benchmarks.load import Outcome, Pattern, allow_connections, load, together
from benchmarks.places import Place, lay_out
from benchmarks.servers import LANTERN, Running, running
from benchmarks.workloads import WORKLOADS
from models.repository import Repository
from training.machine import this_machine

OF_CAPACITY = 0.7
DEADLINE_MS = 10_000
LIVE_WITHIN_S = 60.0
CAPACITY_S = 10.0
# Before the first turn; one more before each later one.
CAPACITIES = 3
SLICE_S = 10.0
# In each turn.
PEACEFUL_SLICES = 3
MOST_STOLEN = 0.03
# Between two looks for whether a version is live.
LOOK_INTERVAL_S = 0.1

# Versions go live as fast as they are published.
SOON = replace(LANTERN, environment={**LANTERN.environment, "LANTERN_RELOAD_INTERVAL_S": "0.2"})


class Slice(BaseModel):
    """What came of the requests of ten seconds.

    Attributes:
        publishing: Whether versions were published meanwhile.
        stolen: The share of the processors' time that a hypervisor gave to others.
    """

    publishing: bool
    stolen: float
    outcome: Outcome

    @property
    def p99_ms(self) -> float:
        """The 99th percentile of those that were answered."""
        if self.outcome.accepted_ms.p99 is None:
            raise SystemExit(f"no request was answered: {self.outcome.statuses}, {self.outcome.samples}")
        return self.outcome.accepted_ms.p99


def main() -> None:
    """Measure, and print a line for each round and what they come to."""
    options = _options()
    most = allow_connections()
    print(this_machine(torch.device("cpu")))
    slices: list[Slice] = []
    capacities_per_s: list[float] = []
    live = 0
    with tempfile.TemporaryDirectory() as scratch:
        workload = WORKLOADS[options.workload].parts[0]
        place = lay_out(workload, Path(scratch))
        requests = [LANTERN.request(inputs, workload.content_type) for inputs in workload.requests()]
        with running(SOON, place, threads=0, probes=requests[:1]) as service:
            while live < options.publishes:
                tries = 1 if slices else CAPACITIES
                capacities_per_s += [_capacity_per_s(service, requests) for _ in range(tries)]
                rate = OF_CAPACITY * statistics.median(capacities_per_s)
                pattern = Pattern(
                    connections=most, seconds=SLICE_S, warmup_s=1, rate=rate, deadline_ms=DEADLINE_MS
                )
                take = partial(_slice, service.port, requests, pattern)
                turn = [take(publishing=False) for _ in range(PEACEFUL_SLICES)]
                published, more = _while_publishing(
                    service, place, options.publishes - live, options.seconds, take
                )
                live += published
                slices += [*turn, *more]
                print(
                    f"{rate:.0f} a second; {published} versions; {losses(slices)}; {lateness(slices)}", flush=True
                )
                _write(options.output, slices)
    print(f"{live} versions went live under load; {losses(slices)}\n{lateness(slices)}")


def _write(output: Path | None, slices: Sequence[Slice]) -> None:
    """Write all that was measured so far, for the run may be ended."""
    if output:
        output.write_text(json.dumps([each.model_dump(by_alias=True) for each in slices], indent=1))


def _capacity_per_s(service: Running, requests: Sequence[bytes]) -> float:
    return load(service.port, requests, Pattern(connections=32, seconds=CAPACITY_S, warmup_s=1)).per_s


def _slice(port: int, requests: Sequence[bytes], pattern: Pattern, *, publishing: bool) -> Slice:
    start_s, before_s = time.monotonic(), _stolen_s()
    outcome = load(port, requests, pattern)
    processors_s = (time.monotonic() - start_s) * (os.cpu_count() or 1)
    return Slice(publishing=publishing, stolen=(_stolen_s() - before_s) / processors_s, outcome=outcome)


def _stolen_s() -> float:
    """Seconds of all processors since the start that a hypervisor gave to others; man 5 proc_stat."""
    file = Path("/proc/stat")
    if not file.exists():
        return 0.0
    return int(file.read_text().split()[8]) / os.sysconf("SC_CLK_TCK")


def _while_publishing(
    service: Running, place: Place, most: int, seconds: float, take: Callable[..., Slice]
) -> tuple[int, list[Slice]]:
    over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        published = pool.submit(_publish, service, place, most, over)
        slices = [take(publishing=True) for _ in range(round(seconds / SLICE_S)) if not published.done()]
        over.set()
        return published.result(), slices


def _publish(service: Running, place: Place, most: int, over: threading.Event) -> int:
    """Publish versions, each as soon as the one before is live; return how many were before it was over."""
    repository = Repository(place.models_dir)
    (name,) = repository.names()
    live = 0
    with httpx.Client(base_url=f"http://127.0.0.1:{service.port}", timeout=30) as client:
        while live < most and not over.is_set():
            _await_live(client, name, _publish_again(repository, name))
            live += not over.is_set()
    return live


def _publish_again(repository: Repository, name: str) -> str:
    bundle = repository.open(name)
    with repository.staging(name) as staging:
        shutil.copytree(bundle.directory, staging.directory, dirs_exist_ok=True)
        staging.write_manifest(bundle.manifest.model_copy(update={"version": staging.version}))
        repository.publish(name, staging)
    shutil.rmtree(bundle.directory)
    return staging.version


def _await_live(client: httpx.Client, name: str, version: str) -> None:
    give_up_s = time.monotonic() + LIVE_WITHIN_S
    while client.get(f"/v2/models/{name}/versions/{version}/ready").status_code != httpx.codes.OK:
        if time.monotonic() > give_up_s:
            why = client.get("/health/ready").text
            raise SystemExit(f"{version} is not live after {LIVE_WITHIN_S:.0f} s: {why}")
        time.sleep(LOOK_INTERVAL_S)


def losses(slices: Sequence[Slice]) -> str:
    """What was lost of all requests, and how."""
    total = together([each.outcome for each in slices])
    lost = total.begun - total.accepted_ms.count
    how = f" ({total.statuses}, {total.broken + total.unanswered} without an answer)" if lost else ""
    return f"{lost} of {total.begun} requests lost{how}"


def lateness(slices: Sequence[Slice]) -> str:
    """The 99th percentiles while versions were published and in peace, and their ratio."""
    whole = [each for each in slices if each.stolen <= MOST_STOLEN]
    return f"{_ratio(whole)}; with those that the machine was not whole in: {_ratio(slices)}"


def _ratio(slices: Sequence[Slice]) -> str:
    peace, publishing = ([each.p99_ms for each in slices if each.publishing is kind] for kind in (False, True))
    if not peace or not publishing:
        return f"no ratio, of {len(peace)} slices in peace and {len(publishing)} while publishing"
    peace_ms, publishing_ms = statistics.median(peace), statistics.median(publishing)
    return (
        f"p99 {publishing_ms:.1f} ms while publishing ({len(publishing)} slices) / {peace_ms:.1f} ms in peace "
        f"({len(peace)}): {publishing_ms / peace_ms:.2f}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.publishing", description=__doc__)
    parser.add_argument(
        "--workload",
        choices=[name for name, each in WORKLOADS.items() if len(each.parts) == 1],
        default="resnet18",
    )
    parser.add_argument("--publishes", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60, help="of a turn, in which versions are published")
    parser.add_argument("--output", type=Path, help="a JSON file for all that was measured")
    return parser.parse_args()


if __name__ == "__main__":
    main()
