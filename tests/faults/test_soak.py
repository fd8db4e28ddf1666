"""Under steady load, with versions published all along, memory stays as it is; and a leak would be seen."""

import itertools
import shutil
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from benchmarks.load import Pattern, load, post
from models.repository import Repository
from tests.bundles import Always, publish, publish_texts
from tests.faults import LONG
from tests.faults.figures import Figures
from tests.faults.memory import resident_mb
from tests.images import png
from tests.leaking import LEAK_BYTES
from tests.servers import Process, process

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="the load client needs a C compiler")

SOAK_S = 1800.0 if LONG else 20.0
CONTROL_S = 300.0 if LONG else 15.0
# Of each request. Over the time of the control, some tens of megabytes.
LEAK = 1_000 if LONG else 20_000
# In which allocators get what the busiest moments take.
WARM_UP_S = 300.0 if LONG else 10.0
REQUESTS_PER_S = 200.0
PUBLISH_INTERVAL_S = 5.0 if LONG else 1.0
KEPT_VERSIONS = 3
SAMPLE_INTERVAL_S = 1.0 if LONG else 0.2
SLICE_S = 60.0 if LONG else 5.0
# Beginning and end are this share of what came after the warm-up.
SHARE = 0.1
MOST_GROWTH = 0.03

PNG = "image/png"
JSON = "application/json"
V2 = b'{"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 1, 8, 8], "data": [%s]}]}'
GOOD = (
    *(post("/predict", png(grey), PNG) for grey in range(0, 250, 25)),
    post("/models/shades/predict", png(200, (400, 300)), PNG),
    post("/models/mood/predict", b"a good film", "text/plain"),
    post("/models/mood/predict", b'{"instances": [{"text": "good"}, {"text": "bad film"}]}', JSON),
    post("/v2/models/shades/infer", V2 % b",".join([b"200"] * 64), JSON),
    b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /models HTTP/1.1\r\nHost: x\r\n\r\n",
)
BAD = (
    post("/predict", b"no image", PNG),
    post("/predict", png(200)[:-20], PNG),
    post("/models/nobody/predict", png(0), PNG),
    post("/models/mood/predict", b'{"instances": [', JSON),
    post("/v2/models/shades/infer", V2 % b"1,2,3", JSON),
    b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n",
)
BAD_SHARE = 0.2


@dataclass(frozen=True)
class Soaked:
    """What a soak found; memory in MB, of the time after the warm-up."""

    good: Counter[int]
    bad: Counter[int]
    lost: int
    versions: int
    resident_mb: list[float]

    @property
    def growth(self) -> float:
        """Of the end beside the beginning."""
        count = max(1, round(SHARE * len(self.resident_mb)))
        begin, end = self.resident_mb[:count], self.resident_mb[-count:]
        return statistics.median(end) / statistics.median(begin) - 1


def soak(service: Process, repository: Repository, seconds: float) -> Soaked:
    """Load a service for so long, publish all along, and look at its memory."""
    over = threading.Event()
    with ThreadPoolExecutor(3) as pool:
        good = pool.submit(load_on, service.port, GOOD, (1 - BAD_SHARE) * REQUESTS_PER_S, seconds)
        bad = pool.submit(load_on, service.port, BAD, BAD_SHARE * REQUESTS_PER_S, seconds)
        published = pool.submit(publish_on, repository, over)
        try:
            resident = watch(service, seconds, lambda: good.done() or bad.done())
        finally:
            over.set()
        (good_statuses, good_lost), (bad_statuses, bad_lost) = good.result(), bad.result()
        return Soaked(good_statuses, bad_statuses, good_lost + bad_lost, published.result(), resident)


def load_on(port: int, requests: tuple[bytes, ...], rate: float, seconds: float) -> tuple[Counter[int], int]:
    """Ask at that rate; return the statuses of the answers, and how many there were none of."""
    statuses: Counter[int] = Counter()
    lost = 0
    for seed in range(round(seconds / SLICE_S)):
        outcome = load(port, requests, Pattern(connections=200, seconds=SLICE_S, rate=rate, seed=seed))
        statuses += Counter(outcome.statuses)
        lost += outcome.broken + outcome.unanswered
    return statuses, lost


def publish_on(repository: Repository, over: threading.Event) -> int:
    """Publish a version of each model in turn until it is over; return how many."""
    for count in itertools.count():
        if over.wait(PUBLISH_INTERVAL_S):
            return count
        publish(repository, "shades", Always(count % 3))
        for version in repository.versions("shades")[:-KEPT_VERSIONS]:
            shutil.rmtree(repository.root / "shades" / version)
    raise AssertionError


def watch(service: Process, seconds: float, ended: Callable[[], bool]) -> list[float]:
    """Look at the memory now and then; what is found after the warm-up is returned."""
    found = []
    pause = threading.Event()
    start_s = time.monotonic()
    while (at_s := time.monotonic() - start_s) < seconds and not ended():
        if at_s > WARM_UP_S * min(1.0, seconds / SOAK_S):
            found.append(resident_mb(service.popen.pid))
        pause.wait(SAMPLE_INTERVAL_S)
    return found


@pytest.fixture
def models(repository: Repository) -> Repository:
    publish(repository, "shades")
    publish_texts(repository, "mood")
    repository.set_default("image", "shades")
    return repository


@pytest.mark.timeout(int(SOAK_S) + 300)
def test_memory_stays_flat_over_reloads(models: Repository, figures: Figures) -> None:
    with process(models.root, reload_interval_s=0.2) as service:
        found = soak(service.until_ready(), models, SOAK_S)
        live = service.client.get("/models/shades").json()
    figures.tell(
        f"{SOAK_S / 60:.3g} minutes of {REQUESTS_PER_S:.0f} requests a second, of {len(GOOD) + len(BAD)} kinds",
        f"resident memory within {MOST_GROWTH:.0%} after warm-up; nothing lost",
        f"{found.growth:+.2%} of {statistics.median(found.resident_mb):.0f} MB; {found.versions} versions; "
        f"{found.lost} of {found.good.total() + found.bad.total()} requests lost",
    )
    assert set(found.good) == {200}
    assert all(400 <= status < 500 for status in found.bad)
    assert found.lost == 0
    assert live["version"] == models.current("shades").version
    assert live["refused"] is None
    assert found.growth <= MOST_GROWTH


@pytest.mark.timeout(int(CONTROL_S) + 300)
def test_a_leak_is_seen(models: Repository, figures: Figures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LEAK_BYTES, str(LEAK))
    with process(models.root, module="tests.leaking", reload_interval_s=0.2) as service:
        found = soak(service.until_ready(), models, CONTROL_S)
    figures.tell(
        f"The same for {CONTROL_S / 60:.3g} minutes with a planted leak of {LEAK:,} bytes a request",
        f"seen: more than {MOST_GROWTH:.0%}",
        f"{found.growth:+.2%}",
    )
    assert found.growth > MOST_GROWTH
