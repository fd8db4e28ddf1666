"""SIGTERM under load, again and again: readiness fails first, and whatever was admitted is answered."""

import json
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime

import httpx
import torch
from torch import Tensor, nn

from app import server
from app.service import LAST_WORK_S
from models.repository import Repository
from tests import hasty
from tests.bundles import publish
from tests.faults import LONG
from tests.faults.asking import ask
from tests.faults.figures import Figures
from tests.faults.models import WHITE, Hangs, Lingers, toil
from tests.images import png
from tests.servers import Process, metric, process, until

TIMES = 50 if LONG else 2
PNG = {"Content-Type": "image/png"}
CLIENTS = 8
GRACE_S = 0.3
DRAIN_TIMEOUT_S = 20.0
# What is admitted takes under a second, so that a stop is over long before it is cut short.
EXIT_WITHIN_S = 10.0
# What a client began so long before the service had drained it has read, unless the machine is busy.
READ_WITHIN_S = 0.02 if LONG else 0.25
DRAINED = "drained: every admitted item was answered"


class Slow(nn.Module):
    """Takes some tens of milliseconds, so that there is always something under way."""

    def forward(self, images_NCHW: Tensor) -> Tensor:
        # As the image says: what is the same each time, freezing makes once.
        rounds = 60 if bool((images_NCHW.float().amax() < 256).item()) else 0
        return torch.softmax(images_NCHW.float().mean(dim=(2, 3)) + toil(rounds) * torch.ones(1, 3), dim=1)


@dataclass
class Stop:
    """What came of one stop.

    Attributes:
        statuses: Of the answers that came.
        cut_s: When each request was begun that had no answer; of the wall clock, as the log has it.
        answered: Statuses of the answers that the service gave, by its log.
        drained_s: When it had answered all that was admitted, by its log.
    """

    statuses: list[int] = field(default_factory=list)
    cut_s: list[float] = field(default_factory=list)
    answered: list[int] = field(default_factory=list)
    drained_s: float = 0.0
    after_unready: int = 0
    exit_s: float = 0.0

    @property
    def lost(self) -> int:
        """Requests that it must have read and did not answer, and answers that did not arrive."""
        unanswered = sum(begun_s < self.drained_s - READ_WITHIN_S for begun_s in self.cut_s)
        return unanswered + len(self.answered) - len(self.statuses)


def stop_under_load(models: Repository) -> Stop:
    found = Stop()
    with process(models.root, drain_grace_s=GRACE_S, drain_timeout_s=DRAIN_TIMEOUT_S) as service:
        service.until_ready()
        asking = [
            threading.Thread(target=ask_on, args=(service, name, found))
            for name in ("shades", "slow") * (CLIENTS // 2)
        ]
        for thread in asking:
            thread.start()
        until(lambda: len(found.statuses) > 5 * CLIENTS)
        start_s = time.monotonic()
        service.popen.send_signal(signal.SIGTERM)
        until(lambda: service.client.get("/health/ready").status_code == 503)
        found.after_unready = service.client.post("/predict", content=png(0), headers=PNG).status_code
        found.statuses.append(found.after_unready)
        assert service.wait() == 0
        found.exit_s = time.monotonic() - start_s
        for thread in asking:
            thread.join()
    lines = [json.loads(line) for line in service.lines]
    found.answered = [line["status"] for line in lines if line.get("path", "").endswith("/predict")]
    (drained,) = (line["time"] for line in lines if line["message"] == DRAINED)
    found.drained_s = datetime.fromisoformat(drained).timestamp()
    return found


def ask_on(service: Process, model: str, found: Stop) -> None:
    """Ask again and again until nobody listens."""
    with httpx.Client(base_url=service.client.base_url, timeout=60) as client:
        while True:
            begun_s = time.time()
            try:
                answer = client.post(f"/models/{model}/predict", content=png(0), headers=PNG)
            except httpx.TransportError:
                found.cut_s.append(begun_s)
                return
            found.statuses.append(answer.status_code)


def test_whatever_was_admitted_is_answered(shades: Repository, figures: Figures) -> None:
    publish(shades, "slow", Slow())
    shades.set_default("image", "shades")
    stops = [stop_under_load(shades) for _ in range(TIMES)]
    longest_s = max(stop.exit_s for stop in stops)
    figures.tell(
        f"SIGTERM under load, {TIMES} times",
        f"all that was admitted answered; readiness fails first; exit within {EXIT_WITHIN_S:.0f} s",
        f"{sum(stop.lost for stop in stops)} of {sum(len(stop.answered) for stop in stops)} lost; "
        f"readiness first in {sum(stop.after_unready == 200 for stop in stops)}; longest {longest_s:.1f} s, "
        f"{GRACE_S} s of grace",
    )
    for stop in stops:
        # Whatever the service read it answered, and every answer arrived: only what came when it was done was cut.
        assert stop.lost == 0
        assert sorted(stop.answered) == sorted(stop.statuses)
        assert {*stop.statuses} <= {200, 503}
        assert stop.after_unready == 200
        assert len(stop.cut_s) == CLIENTS
        assert stop.exit_s < EXIT_WITHIN_S


def test_what_takes_longer_than_last_answers_may_is_waited_for(repository: Repository) -> None:
    publish(repository, "lingers", Lingers())
    with process(repository.root, module="tests.hasty", drain_grace_s=0) as service, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, service.until_ready().client, "lingers", WHITE)
        until(lambda: is_under_way(service))
        service.popen.send_signal(signal.SIGTERM)
        start_s = time.monotonic()
        assert asked.result().status_code == 200
        # Or it would have been answered in any case.
        assert time.monotonic() - start_s > 2 * hasty.LAST_BYTES_S
        assert service.wait() == 0


def test_what_does_not_come_back_holds_up_the_exit_no_longer_than_its_limit(repository: Repository) -> None:
    publish(repository, "hangs", Hangs())
    drain_timeout_s = 1.0
    with (
        process(repository.root, drain_grace_s=0, drain_timeout_s=drain_timeout_s, hang_timeout_s=600) as stopped,
        ThreadPoolExecutor(1) as pool,
    ):
        asked = pool.submit(ask, stopped.until_ready().client, "hangs", WHITE)
        until(lambda: is_under_way(stopped))
        stopped.popen.send_signal(signal.SIGTERM)
        start_s = time.monotonic()
        assert stopped.wait() == 0
        limit_s = drain_timeout_s + server.LAST_BYTES_S + LAST_WORK_S + server.LAST_WORK_S
        assert time.monotonic() - start_s < limit_s + EXIT_WITHIN_S
        assert (asked.result().status_code, asked.result().json()["code"]) == (503, "draining")
    told = "1 admitted items were not answered within LANTERN_DRAIN_TIMEOUT_S"
    assert any(told in line for line in stopped.lines)


def is_under_way(service: Process) -> bool:
    return metric(service, "lantern_queue_items") > 0
