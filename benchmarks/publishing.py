"""python -m benchmarks.publishing: is anything lost, or late, while versions of a model are published?

The service gets requests in open loop at 0.7 of its capacity: for a while in peace, for a while in which one
version after the other goes live, in turn, until so many did under load. Capacity is the median of what was
measured before each turn: from one minute to the next a machine may be a third faster. A version is the same
bundle under a new name, so that nothing but the publishing differs. It is published as soon as the one before
is live, by this process, on the same machine, whose processors the client needs too. After every tenth the one
before is rolled back to and the new one again, and another model is unloaded and loaded.

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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import httpx
import torch
from pydantic import BaseModel

from benchmarks.load import Outcome, Pattern, allow_connections, load, together
from benchmarks.places import lay_out
from benchmarks.servers import LANTERN, running
from benchmarks.workloads import WORKLOADS, Workload
from models.repository import Repository
from training.machine import this_machine

DEADLINE_MS = 10_000
LIVE_WITHIN_S = 60.0
# Before the first turn; one more before each later one.
CAPACITIES = 3
MOST_STOLEN = 0.03
# The same model under another name.
OTHER = "another"
# Between two looks for whether a version is live.
LOOK_INTERVAL_S = 0.1

# Versions go live as fast as they are published.
SOON = replace(
    LANTERN,
    environment={**LANTERN.environment, "LANTERN_RELOAD_INTERVAL_S": "0.2", "LANTERN_VERSIONS": "current"},
)


@dataclass(frozen=True)
class Plan:
    """What is done, and for how long.

    Attributes:
        publishes: How many versions are to go live under load.
        turn_s: Of the part of a turn in which they do.
        peaceful_slices: In the part before it.
        turn_back_every: After so many versions one is rolled back, and another model unloaded and loaded.
        of_capacity: How much is asked meanwhile.
    """

    publishes: int
    turn_s: float
    of_capacity: float = 0.7
    slice_s: float = 10.0
    capacity_s: float = 10.0
    peaceful_slices: int = 3
    turn_back_every: int = 10


class Slice(BaseModel):
    """What came of the requests of some seconds.

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
            raise _unanswered(self.outcome)
        return self.outcome.accepted_ms.p99


def _unanswered(outcome: Outcome) -> SystemExit:
    return SystemExit(f"no request was answered: {outcome.statuses}, {outcome.samples}")


@dataclass
class Found:
    """What was measured so far.

    Attributes:
        live: How many versions went live under load.
        turned_back: How many times, under load too, one was rolled back, and another model unloaded and loaded.
    """

    live: int = 0
    turned_back: int = 0
    slices: list[Slice] = field(default_factory=list)


def main() -> None:
    """Measure, and print a line for each turn and what they come to."""
    options = _options()
    plan = Plan(options.publishes, options.seconds)
    print(this_machine(torch.device("cpu")))
    found = Found()
    with tempfile.TemporaryDirectory() as scratch:
        for found in measure(WORKLOADS[options.workload].parts[0], plan, Path(scratch)):
            print(f"{_told(found)}; {lateness(found.slices)}", flush=True)
            # All that was measured so far, for the run may be ended.
            if options.output:
                told = [each.model_dump(by_alias=True) for each in found.slices]
                options.output.write_text(json.dumps(told, indent=1))
    print(f"{_told(found)}\n{lateness(found.slices)}")


def _told(found: Found) -> str:
    return (
        f"{found.live} versions went live under load, {found.turned_back} were rolled back and as many times "
        f"another model was unloaded and loaded; {losses(found.slices)}"
    )


def measure(workload: Workload, plan: Plan, scratch: Path) -> Iterator[Found]:
    """Measure; yield what was found, after each turn."""
    most = allow_connections()
    place = lay_out(workload, scratch)
    repository = Repository(place.models_dir)
    (name,) = repository.names()
    _copy(repository, name, OTHER)
    # By its name: of two there is no default.
    requests = [LANTERN.request(inputs, workload.content_type, model=name) for inputs in workload.requests()]
    found = Found()
    capacities_per_s: list[float] = []
    with (
        running(SOON, place, threads=0, probes=requests[:1]) as service,
        httpx.Client(base_url=f"http://127.0.0.1:{service.port}", timeout=30) as client,
    ):
        publisher = Publisher(repository, name, client, plan, found)
        while found.live < plan.publishes:
            tries = 1 if found.slices else CAPACITIES
            capacities_per_s += [_capacity_per_s(service.port, requests, plan) for _ in range(tries)]
            rate = plan.of_capacity * statistics.median(capacities_per_s)
            pattern = Pattern(connections=most, seconds=plan.slice_s, rate=rate, deadline_ms=DEADLINE_MS)
            take = partial(_slice, service.port, requests, pattern)
            found.slices += [take(publishing=False) for _ in range(plan.peaceful_slices)]
            found.slices += _while_publishing(publisher, plan, take)
            yield found


def _capacity_per_s(port: int, requests: Sequence[bytes], plan: Plan) -> float:
    outcome = load(port, requests, Pattern(connections=32, seconds=plan.capacity_s, warmup_s=1))
    if not outcome.per_s:
        raise _unanswered(outcome)
    return outcome.per_s


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


def _while_publishing(publisher: "Publisher", plan: Plan, take: Callable[..., Slice]) -> list[Slice]:
    over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        published = pool.submit(publisher.publish_until, over)
        count = round(plan.turn_s / plan.slice_s)
        try:
            slices = [take(publishing=True) for _ in range(count) if not published.done()]
        finally:
            over.set()
        published.result()
        return slices


class Publisher:
    """Publishes versions, each as soon as the one before is live.

    Args:
        repository: Where.
        name: Of the model.
        client: Of the service that is to take them over.
        plan: How many there are to be.
        found: Counts them.
    """

    def __init__(self, repository: Repository, name: str, client: httpx.Client, plan: Plan, found: Found) -> None:
        self._repository = repository
        self._name = name
        self._client = client
        self._plan = plan
        self._found = found

    def publish_until(self, over: threading.Event) -> None:
        """Go on until there are as many as planned, or it is over; what is live only then does not count."""
        while self._found.live < self._plan.publishes and not over.is_set():
            before = self._repository.open(self._name).directory
            version = _copy(self._repository, self._name, self._name)
            self._until_live(version)
            if not over.is_set():
                self._found.live += 1
                if self._found.live % self._plan.turn_back_every == 0:
                    self._turn_back(before.name, version)
                    self._found.turned_back += not over.is_set()
            shutil.rmtree(before)

    def _turn_back(self, before: str, version: str) -> None:
        for each in (before, version):
            self._repository.rollback(self._name, each)
            self._until_live(each)
        self._repository.unload(OTHER)
        self._until(lambda: not self._is_ready(OTHER), f"{OTHER} is not unloaded")
        self._repository.load(OTHER)
        self._until(lambda: self._is_ready(OTHER), f"{OTHER} is not loaded")

    def _until_live(self, version: str) -> None:
        self._until(lambda: self._is_ready(f"{self._name}/versions/{version}"), f"{version} is not live")

    def _is_ready(self, model: str) -> bool:
        return self._client.get(f"/v2/models/{model}/ready").status_code == httpx.codes.OK

    def _until(self, condition: Callable[[], bool], otherwise: str) -> None:
        give_up_s = time.monotonic() + LIVE_WITHIN_S
        while not condition():
            if time.monotonic() > give_up_s:
                why = self._client.get("/health/ready").text
                raise SystemExit(f"{otherwise} after {LIVE_WITHIN_S:.0f} s: {why}")
            time.sleep(LOOK_INTERVAL_S)


def _copy(repository: Repository, name: str, to: str) -> str:
    """Publish a model's current version once more, under a name that may be another; return the new version."""
    bundle = repository.open(name)
    with repository.staging(to) as staging:
        shutil.copytree(bundle.directory, staging.directory, dirs_exist_ok=True)
        staging.write_manifest(bundle.manifest.model_copy(update={"name": to, "version": staging.version}))
        repository.publish(to, staging)
    return staging.version


def losses(slices: Sequence[Slice]) -> str:
    """What was lost of all requests, and how."""
    total = together([each.outcome for each in slices])
    count = lost(slices)
    how = f" ({total.statuses}, {total.broken + total.unanswered} without an answer)" if count else ""
    return f"{count} of {total.begun} requests lost{how}"


def lost(slices: Sequence[Slice]) -> int:
    """How many requests had no good answer."""
    return sum(each.outcome.begun - each.outcome.accepted_ms.count for each in slices)


def lateness(slices: Sequence[Slice]) -> str:
    """The 99th percentiles while versions were published and in peace, and their ratio."""
    return f"{_ratio(whole(slices))}; with those that the machine was not whole in: {_ratio(slices)}"


def whole(slices: Sequence[Slice]) -> list[Slice]:
    """Those in which the machine was this one's."""
    return [each for each in slices if each.stolen <= MOST_STOLEN]


def p99s_ms(slices: Sequence[Slice], *, publishing: bool) -> list[float]:
    """The 99th percentile of each slice of a kind."""
    return [each.p99_ms for each in slices if each.publishing is publishing]


def _ratio(slices: Sequence[Slice]) -> str:
    peace, publishing = p99s_ms(slices, publishing=False), p99s_ms(slices, publishing=True)
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
