"""python -m benchmarks.publishing: is anything lost, or late, while versions of a model are published?

The service gets requests in open loop at 0.7 of its capacity: for a while in peace, for a while in which version
after version goes live, and in peace once more, round after round until so many versions went live under load.
Capacity is the median of what was measured before each round: from one minute to the next a machine may be a third
faster. A version is the same bundle under a new name, so that nothing but the publishing differs. It is published
as soon as the one before is live, by this process, on the same machine, whose processors the client needs too.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import torch
from pydantic import BaseModel

from benchmarks.load import Outcome, Pattern, allow_connections, load
from benchmarks.places import Place, lay_out
from benchmarks.servers import LANTERN, Running, running
from benchmarks.workloads import WORKLOADS
from models.repository import Repository
from training.machine import this_machine

OF_CAPACITY = 0.7
DEADLINE_MS = 10_000
LIVE_WITHIN_S = 60.0
CAPACITY_S = 10.0
# Before the first round; one more before each later one.
CAPACITIES = 3
PEACE_S = 20.0
# Between two looks for whether a version is live.
LOOK_INTERVAL_S = 0.1

# Versions go live as fast as they are published.
SOON = replace(LANTERN, environment={**LANTERN.environment, "LANTERN_RELOAD_INTERVAL_S": "0.2"})


class Round(BaseModel):
    """What came of the requests in peace before, while versions were published, and in peace after.

    Attributes:
        published: Versions that went live meanwhile.
    """

    capacity_per_s: float
    before: Outcome
    publishing: Outcome
    after: Outcome
    published: int

    @property
    def parts(self) -> tuple[Outcome, Outcome, Outcome]:
        """All three, in order."""
        return self.before, self.publishing, self.after

    @property
    def peace_p99_ms(self) -> float:
        """The mean of the 99th percentiles before and after: the machine may get faster or slower by itself."""
        return statistics.fmean(_p99_ms(each) for each in (self.before, self.after))

    @property
    def p99_ratio(self) -> float:
        """Of the 99th percentile while versions were published to that in peace."""
        return _p99_ms(self.publishing) / self.peace_p99_ms

    @property
    def begun(self) -> int:
        """Requests in all three parts."""
        return sum(each.begun for each in self.parts)

    @property
    def lost(self) -> int:
        """Requests without a good answer, in all three parts."""
        return self.begun - sum(each.accepted_ms.count for each in self.parts)

    def __str__(self) -> str:
        """A line."""
        quantiles = ", ".join(f"{_p99_ms(each):.1f}" for each in self.parts)
        return (
            f"{self.capacity_per_s:.0f} a second at most; {self.begun} requests, {self.lost} lost"
            f"{self._losses()}; {self.published} versions; p99 before, while they were published, after: "
            f"{quantiles} ms; {self.p99_ratio:.2f}"
        )

    def _losses(self) -> str:
        if not self.lost:
            return ""
        statuses = dict(sum((Counter(each.statuses) for each in self.parts), Counter()))
        broken = sum(each.broken + each.unanswered for each in self.parts)
        return f" ({statuses}, {broken} without an answer)"


def _p99_ms(outcome: Outcome) -> float:
    if outcome.accepted_ms.p99 is None:
        raise SystemExit(f"no request was answered: {outcome.statuses}, {outcome.samples}")
    return outcome.accepted_ms.p99


def main() -> None:
    """Measure, and print a line for each round and what they come to."""
    options = _options()
    most = allow_connections()
    print(this_machine(torch.device("cpu")))
    rounds: list[Round] = []
    capacities_per_s: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        workload = WORKLOADS[options.workload].parts[0]
        place = lay_out(workload, Path(scratch))
        requests = [LANTERN.request(inputs, workload.content_type) for inputs in workload.requests()]
        with running(SOON, place, threads=0, probes=requests[:1]) as service:
            while (left := options.publishes - sum(each.published for each in rounds)) > 0:
                tries = 1 if rounds else CAPACITIES
                capacities_per_s += [_capacity_per_s(service, requests) for _ in range(tries)]
                typical = statistics.median(capacities_per_s)
                rounds.append(_round(service, place, requests, typical, left, options.seconds, most))
                print(rounds[-1], flush=True)
    print(_summary(rounds))
    if options.output:
        options.output.write_text(json.dumps([each.model_dump(by_alias=True) for each in rounds], indent=1))


def _capacity_per_s(service: Running, requests: Sequence[bytes]) -> float:
    return load(service.port, requests, Pattern(connections=32, seconds=CAPACITY_S, warmup_s=1)).per_s


def _round(
    service: Running,
    place: Place,
    requests: Sequence[bytes],
    capacity: float,
    publishes: int,
    seconds: float,
    most: int,
) -> Round:
    peace = Pattern(
        connections=most, seconds=PEACE_S, warmup_s=1, rate=OF_CAPACITY * capacity, deadline_ms=DEADLINE_MS
    )
    before = load(service.port, requests, peace)
    over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        published = pool.submit(_publish, service, place, publishes, over)
        publishing = load(service.port, requests, peace.model_copy(update={"seconds": seconds}))
        over.set()
        count = published.result()
    after = load(service.port, requests, peace)
    return Round(capacity_per_s=capacity, before=before, publishing=publishing, after=after, published=count)


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


def _summary(rounds: Sequence[Round]) -> str:
    ratios = sorted(each.p99_ratio for each in rounds)
    return (
        f"{sum(each.published for each in rounds)} versions went live under load; "
        f"{sum(each.lost for each in rounds)} of {sum(each.begun for each in rounds)} requests lost; p99 while "
        f"publishing / in peace, median of {len(rounds)} rounds: {statistics.median(ratios):.2f} "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f})"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.publishing", description=__doc__)
    parser.add_argument(
        "--workload",
        choices=[name for name, each in WORKLOADS.items() if len(each.parts) == 1],
        default="resnet18",
    )
    parser.add_argument("--publishes", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60, help="of a round, in which versions are published")
    parser.add_argument("--output", type=Path, help="a JSON file for all that was measured")
    return parser.parse_args()


if __name__ == "__main__":
    main()
