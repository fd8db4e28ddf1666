"""More is asked than can be answered: as much is answered as ever, in time, and the rest is told so at once."""

import shutil
import statistics
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import pairwise

import httpx
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from benchmarks.load import Outcome, Pattern, allow_connections, load, post
from models.repository import Repository
from tests.bundles import decoding, publish
from tests.faults import LONG
from tests.faults.figures import Figures
from tests.faults.memory import resident_mb
from tests.servers import ROOT, Process, process

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="the load client needs a C compiler")

JPEG = "image/jpeg"
PHOTOGRAPH = (ROOT / "docs" / "images" / "china.jpg").read_bytes()
SIDE = 224
DEADLINE_MS = 500.0
TIMEOUT = {"X-Request-Timeout-Ms": f"{DEADLINE_MS:.0f}"}
ROUNDS = 12 if LONG else 2
SECONDS = 6.0 if LONG else 2.0
CAPACITY_S = 4.0 if LONG else 2.0
WARM_UP_S = 2.0
CONNECTIONS = 32
# Seldom: what this client has answered counts as nobody's (twice a second, that is a twentieth of what ResNet-18
# can answer on two cores), and its own work is done by the same processors.
PROBED_EVERY_S = 2.0 if LONG else 0.5
# Of the admitted, that may come late or be told that they cannot be in time any more.
MOST_LATE = 0.01
LEAST_GOODPUT = 0.9
# Of seconds, on a machine that does other things too: without admission hardly anything would be in time.
LEAST_GOODPUT_SHORT = 0.4
MOST_REFUSAL_MS = 50.0
MOST_GROWTH = 0.03


class Photographs(nn.Module):
    """ResNet-18, untrained: some ten milliseconds of work."""

    def __init__(self) -> None:
        super().__init__()
        self.net = resnet18(num_classes=3)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return torch.softmax(self.net(images_NCHW.float() / 255), dim=1)


@dataclass(frozen=True)
class Overload:
    """What came of a load's rounds.

    Attributes:
        capacities_per_s: What the service did when asked all it can do: before each round, and after the last.
        resident_mb: After each round.
        refusals: Answers that were none, to a client beside the load.
    """

    capacities_per_s: list[float]
    outcomes: list[Outcome]
    resident_mb: list[float]
    refusals: list[httpx.Response]

    @property
    def capacity_per_s(self) -> float:
        return statistics.median(self.capacities_per_s)

    @property
    def goodput(self) -> float:
        """The share of the capacity: the median round's, beside what was seen just before and after it.

        A machine that others use too can be a third slower from one round to the next.
        """
        beside = (statistics.mean(two) for two in pairwise(self.capacities_per_s))
        return statistics.median(
            outcome.goodput_per_s / capacity for outcome, capacity in zip(self.outcomes, beside, strict=True)
        )

    @property
    def growth(self) -> float:
        """By what share the memory grew from the first half of the rounds to the second."""
        half = len(self.resident_mb) // 2
        return statistics.median(self.resident_mb[-half:]) / statistics.median(self.resident_mb[:half]) - 1

    @property
    def late(self) -> float:
        """The share of the admitted that had no answer in time."""
        admitted = sum(outcome.begun - outcome.refused for outcome in self.outcomes)
        return 1 - sum(outcome.in_time for outcome in self.outcomes) / admitted

    @property
    def statuses(self) -> dict[int, int]:
        return dict(sum((Counter(outcome.statuses) for outcome in self.outcomes), Counter()))

    @property
    def accepted_p99_ms(self) -> float:
        """Of the worst round."""
        return max(outcome.accepted_ms.p99 or 0 for outcome in self.outcomes)

    @property
    def refused_max_ms(self) -> float:
        return max(outcome.refused_ms.max or 0 for outcome in self.outcomes)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    repository = Repository(tmp_path_factory.mktemp("overload") / "artifacts")
    publish(repository, "photographs", Photographs(), decode=decoding(color="RGB", size=(SIDE, SIDE)))
    # Its own number of threads: that of the processors.
    with process(repository.root, cpu_threads=0, log_level="info") as started:
        started.until_ready()
        # Until allocators have what the busiest moments take.
        overload(started, 5)
        yield started


def overload(service: Process, times: float) -> Overload:
    # In turn: what a machine can do changes with what else it does.
    found = Overload([capacity(service.port)], [], [], [])
    for number in range(ROUNDS):
        outcome, refused = ask(service, times * found.capacities_per_s[-1], number)
        found.outcomes.append(outcome)
        found.resident_mb.append(resident_mb(service.popen.pid))
        found.refusals.extend(refused)
        found.capacities_per_s.append(capacity(service.port))
    return found


def ask(service: Process, rate_per_s: float, seed: int) -> tuple[Outcome, list[httpx.Response]]:
    """Load the service, and see what it answers one more client meanwhile that asks now and then."""
    pattern = Pattern(
        connections=allow_connections(),
        seconds=SECONDS,
        warmup_s=WARM_UP_S,
        rate=rate_per_s,
        deadline_ms=DEADLINE_MS,
        seed=seed,
    )
    refusals = []
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(load, service.port, [post("/predict", PHOTOGRAPH, JPEG, TIMEOUT)], pattern)
        while not wait([loading], timeout=PROBED_EVERY_S).done:
            answer = service.client.post("/predict", content=PHOTOGRAPH, headers={"Content-Type": JPEG, **TIMEOUT})
            if answer.status_code != httpx.codes.OK:
                refusals.append(answer)
        return loading.result(), refusals


def capacity(port: int) -> float:
    pattern = Pattern(connections=CONNECTIONS, seconds=CAPACITY_S, warmup_s=1)
    return load(port, [post("/predict", PHOTOGRAPH, JPEG)], pattern).per_s


@pytest.mark.parametrize("times", [1, 2, 5])
def test_as_much_is_answered_in_time_as_ever(service: Process, figures: Figures, times: int) -> None:
    found = overload(service, times)
    wanted = f"goodput at least {LEAST_GOODPUT:.0%} of capacity; " if times > 1 else ""
    figures.tell(
        f"ResNet-18 asked at {times} times its capacity, deadline {DEADLINE_MS:.0f} ms",
        f"{wanted}99 % of the admitted in time; every refusal a 503 with Retry-After within "
        f"{MOST_REFUSAL_MS:.0f} ms; memory within {MOST_GROWTH:.0%}",
        f"goodput {found.goodput:.0%} of {found.capacity_per_s:.0f}/s; p99 {found.accepted_p99_ms:.0f} ms, "
        f"{found.late:.2%} of the admitted late; {found.statuses.get(503, 0)} refused within "
        f"{found.refused_max_ms:.1f} ms; memory {found.growth:+.1%}; statuses {found.statuses}, "
        f"median of {ROUNDS} rounds of {SECONDS:.0f} s",
    )
    assert set(found.statuses) <= {200, 503, 504}
    assert all(outcome.broken == outcome.unanswered == 0 for outcome in found.outcomes)
    for refusal in found.refusals:
        assert refusal.status_code == 503 or refusal.json()["code"] == "deadline_exceeded", refusal.text
        assert refusal.status_code == 504 or int(refusal.headers["retry-after"]) > 0
    assert all(outcome.advised == outcome.refused for outcome in found.outcomes)
    assert times < 5 or found.statuses.get(503, 0) > found.statuses.get(200, 0)
    assert times == 1 or found.goodput >= (LEAST_GOODPUT if LONG else LEAST_GOODPUT_SHORT)
    if not LONG:
        return
    assert found.late <= MOST_LATE
    assert found.refused_max_ms <= MOST_REFUSAL_MS
    assert found.growth <= MOST_GROWTH
