"""A worker process is killed under load: what was under way in it is lost, and it is back within seconds."""

import os
import shutil
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from benchmarks.load import Pattern, load, post
from models.repository import Repository
from tests.faults import LONG
from tests.faults.figures import Figures
from tests.images import png
from tests.servers import Process, metric, process, until

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="the load client needs a C compiler")

SERVICES = 5 if LONG else 1
# Who is killed again and again is started anew later and later.
KILLS = 4 if LONG else 1
CONNECTIONS = 32
SLICE_S = 2.0
BACK_WITHIN_S = 20.0
# One of two processes has half of the connections, or one or two more.
MOST_LOST = CONNECTIONS // 2 + 2
ASK = post("/predict", png(0), "image/png")


@dataclass(frozen=True)
class Load:
    """What came of the requests of all connections, each asking again once answered.

    Attributes:
        lost: Requests that ended without an answer; the client sent them anew.
    """

    statuses: Counter[int]
    lost: int


def load_on(service: Process, pool: ThreadPoolExecutor, kills: int) -> tuple[Load, list[float]]:
    """Kill a worker in turn while the service is asked; return what came of that, and how long each was away."""
    statuses: Counter[int] = Counter()
    lost = 0
    away_s = []
    for number in range(kills):
        asking = pool.submit(
            load, service.port, [ASK], Pattern(connections=CONNECTIONS, seconds=SLICE_S, seed=number)
        )
        until(lambda: in_flight(service) > 1)
        away_s.append(kill(service, number))
        outcome = asking.result()
        statuses += Counter(outcome.statuses)
        assert outcome.unanswered == 0
        # Each connection has a request under way, always.
        lost += outcome.connects - CONNECTIONS
    return Load(statuses, lost), away_s


def in_flight(service: Process) -> float:
    return metric(service, "lantern_in_flight_requests")


def kill(service: Process, number: int) -> float:
    """Kill one of the workers; return after how many seconds there were as many as before."""
    pid = service.popen.pid
    workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    replaced = metric(service, "lantern_worker_replacements_total")
    start_s = time.monotonic()
    os.kill(int(workers[number % len(workers)]), signal.SIGKILL)
    until(lambda: metric(service, "lantern_worker_replacements_total") > replaced)
    until(lambda: metric(service, "lantern_worker_processes") == 2)
    away_s = time.monotonic() - start_s
    # Or the other went too.
    assert metric(service, "lantern_worker_replacements_total") == replaced + 1
    return away_s


def test_only_what_was_under_way_in_it_is_lost(shades: Repository, figures: Figures) -> None:
    found, away_s = Load(Counter(), 0), list[float]()
    for _ in range(SERVICES):
        with process(shades.root, workers=2) as service, ThreadPoolExecutor(1) as pool:
            service.until_ready()
            own, away = load_on(service, pool, KILLS)
            assert httpx.get(f"{service.client.base_url}/health/ready").status_code == 200
        found = Load(found.statuses + own.statuses, found.lost + own.lost)
        away_s += away
    figures.tell(
        f"kill -9 of one of two worker processes under load, {SERVICES * KILLS} times",
        f"at most {MOST_LOST} of the {CONNECTIONS} requests under way lost by each; two again within "
        f"{BACK_WITHIN_S:.0f} s",
        f"{found.lost} lost in all, and sent anew by their client; {found.statuses.total()} answers, all "
        f"{', '.join(map(str, found.statuses))}; "
        f"two again after {max(away_s):.1f} s at most",
    )
    assert set(found.statuses) == {200}
    assert 0 < found.lost <= SERVICES * KILLS * MOST_LOST
    assert max(away_s) < BACK_WITHIN_S
