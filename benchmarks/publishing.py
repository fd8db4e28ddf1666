"""python -m benchmarks.publishing: is anything lost, or late, while versions of a model are published?

The service gets requests in open loop at 0.7 of the capacity that was measured just before: for a while in peace,
and for a while in which version after version goes live, in turn, round after round. A version is the same bundle
under a new name, so that nothing but the publishing differs. It is published once the one before is live, by this
process, on the same machine, whose processors the client needs too.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import threading
import time
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
# So long it is in peace, or as long as versions are published if that is less.
QUIET_S = 60.0
# Between two looks for whether a version is live.
LOOK_INTERVAL_S = 0.1

# Versions go live as fast as they are published.
SOON = replace(LANTERN, environment={**LANTERN.environment, "LANTERN_RELOAD_INTERVAL_S": "0.2"})


class Round(BaseModel):
    """What came of the requests in peace, and while versions were published."""

    capacity_per_s: float
    quiet: Outcome
    publishing: Outcome
    published: int

    @property
    def p99_ratio(self) -> float:
        """Of the 99th percentile while versions were published to that in peace."""
        return (self.publishing.accepted_ms.p99 or 0) / (self.quiet.accepted_ms.p99 or 1)

    @property
    def lost(self) -> int:
        """Requests without a good answer, in both parts."""
        return sum(each.begun - each.accepted_ms.count for each in (self.quiet, self.publishing))


def main() -> None:
    """Measure, and print a line for each round and what they come to."""
    options = _options()
    most = allow_connections()
    print(this_machine(torch.device("cpu")))
    with tempfile.TemporaryDirectory() as scratch:
        workload = WORKLOADS[options.workload].parts[0]
        place = lay_out(workload, Path(scratch))
        requests = [LANTERN.request(inputs, workload.content_type) for inputs in workload.requests()]
        with running(SOON, place, threads=0, probes=requests[:1]) as service:
            rounds = [
                _round(service, place, requests, options.publishes // options.rounds, options.seconds, most)
                for _ in range(options.rounds)
            ]
    print(_summary(rounds))
    if options.output:
        options.output.write_text(json.dumps([each.model_dump(by_alias=True) for each in rounds], indent=1))


def _round(
    service: Running, place: Place, requests: Sequence[bytes], publishes: int, seconds: float, most: int
) -> Round:
    capacity = load(service.port, requests, Pattern(connections=32, seconds=5, warmup_s=1)).per_s
    pattern = Pattern(
        connections=most, seconds=seconds, warmup_s=1, rate=OF_CAPACITY * capacity, deadline_ms=DEADLINE_MS
    )
    quiet = load(service.port, requests, pattern.model_copy(update={"seconds": min(seconds, QUIET_S)}))
    over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        published = pool.submit(_publish, service, place, publishes, seconds / publishes, over)
        publishing = load(service.port, requests, pattern)
        over.set()
        count = published.result()
    found = Round(capacity_per_s=capacity, quiet=quiet, publishing=publishing, published=count)
    print(
        f"{capacity:.0f} a second at most; {quiet.begun} and {publishing.begun} requests, {found.lost} lost; "
        f"{count} versions; p99 {quiet.accepted_ms.p99:.1f} ms in peace, {publishing.accepted_ms.p99:.1f} ms "
        f"while they were published: {found.p99_ratio:.2f}",
        flush=True,
    )
    return found


def _publish(service: Running, place: Place, count: int, interval_s: float, over: threading.Event) -> int:
    """Publish versions, one each interval or as soon as the one before is live; return how many went live."""
    repository = Repository(place.models_dir)
    (name,) = repository.names()
    start_s = time.monotonic()
    with httpx.Client(base_url=f"http://127.0.0.1:{service.port}", timeout=30) as client:
        for number in range(count):
            if over.wait(max(0.0, start_s + number * interval_s - time.monotonic())):
                return number
            _await_live(client, name, _publish_again(repository, name))
    return count


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
            raise SystemExit(f"{version} is not live after {LIVE_WITHIN_S:.0f} s")
        time.sleep(LOOK_INTERVAL_S)


def _summary(rounds: Sequence[Round]) -> str:
    ratio = statistics.median(each.p99_ratio for each in rounds)
    begun = sum(each.quiet.begun + each.publishing.begun for each in rounds)
    return (
        f"{sum(each.published for each in rounds)} versions published under load; "
        f"{sum(each.lost for each in rounds)} of {begun} requests lost; p99 while publishing / in peace, "
        f"median of {len(rounds)} rounds: {ratio:.2f}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.publishing", description=__doc__)
    parser.add_argument(
        "--workload",
        choices=[name for name, each in WORKLOADS.items() if len(each.parts) == 1],
        default="resnet18",
    )
    parser.add_argument("--publishes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument(
        "--seconds", type=float, default=300, help="in which the versions of a round are published"
    )
    parser.add_argument("--output", type=Path, help="a JSON file for all that was measured")
    return parser.parse_args()


if __name__ == "__main__":
    main()
