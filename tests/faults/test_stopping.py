"""SIGTERM under load, again and again: readiness fails first, and whatever was admitted is answered."""

import json
import signal
import threading
import time
from dataclasses import dataclass, field

import httpx
import torch
from torch import Tensor, nn

from models.repository import Repository
from tests.bundles import publish
from tests.faults import LONG
from tests.faults.figures import Figures
from tests.images import png
from tests.servers import Process, process, until

TIMES = 50 if LONG else 2
PNG = {"Content-Type": "image/png"}
CLIENTS = 8
GRACE_S = 0.3
DRAIN_TIMEOUT_S = 20.0
# What is admitted takes under a second, so that a stop is over long before it is cut short.
EXIT_WITHIN_S = 10.0


class Slow(nn.Module):
    """Takes some tens of milliseconds, so that there is always something under way."""

    def forward(self, images_NCHW: Tensor) -> Tensor:
        square = torch.ones(256, 256)
        for _ in range(60):
            square = torch.mm(square, square) * 0.001
        return torch.softmax(images_NCHW.float().mean(dim=(2, 3)) + square.sum() * torch.zeros(1, 3), dim=1)


@dataclass
class Stop:
    """What came of one stop."""

    statuses: list[int] = field(default_factory=list)
    cut: int = 0
    answered: list[int] = field(default_factory=list)
    after_unready: int = 0
    exit_s: float = 0.0


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
    return found


def ask_on(service: Process, model: str, found: Stop) -> None:
    """Ask again and again until nobody listens."""
    with httpx.Client(base_url=service.client.base_url, timeout=60) as client:
        while True:
            try:
                answer = client.post(f"/models/{model}/predict", content=png(0), headers=PNG)
            except httpx.TransportError:
                found.cut += 1
                return
            found.statuses.append(answer.status_code)


def test_whatever_was_admitted_is_answered(shades: Repository, figures: Figures) -> None:
    publish(shades, "slow", Slow())
    shades.set_default("image", "shades")
    stops = [stop_under_load(shades) for _ in range(TIMES)]
    lost = sum(len(stop.answered) - len(stop.statuses) for stop in stops)
    longest_s = max(stop.exit_s for stop in stops)
    figures.tell(
        f"SIGTERM under load, {TIMES} times",
        f"all that was admitted answered; readiness fails first; exit within {EXIT_WITHIN_S:.0f} s",
        f"{lost} of {sum(len(stop.answered) for stop in stops)} answers lost; readiness first in "
        f"{sum(stop.after_unready == 200 for stop in stops)}; longest {longest_s:.1f} s, {GRACE_S} s of grace",
    )
    for stop in stops:
        # Whatever the service read it answered, and every answer arrived: only connections that were never
        # accepted were cut, when it stopped listening.
        assert sorted(stop.answered) == sorted(stop.statuses)
        assert {*stop.statuses} <= {200, 503}
        assert stop.after_unready == 200
        assert stop.cut == CLIENTS
        assert stop.exit_s < EXIT_WITHIN_S
