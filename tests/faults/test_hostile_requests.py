"""Thousands of hostile requests: none fails the service, none makes it grow, none is left without an end."""

import socket
import statistics
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.api_keys import line_of
from models.repository import Repository
from tests.bundles import publish_texts
from tests.faults import LONG
from tests.faults.figures import Figures
from tests.faults.hostile import ADMIN_KEY, KINDS, Hostile, hostile_requests
from tests.faults.memory import resident_mb
from tests.images import png
from tests.leaking import LEAK_BYTES
from tests.servers import Process, process

PNG = {"Content-Type": "image/png"}
COUNT = 10_000 if LONG else 20 * len(KINDS)
SENDERS = 8
PARTS = 10
PATIENCE_S = 30.0
# What allocators keep of what was used once: a few times the largest body, which is small for that.
MAX_BODY_BYTES = 4 * 1024**2
MOST_GROWTH_MB = 10.0 if LONG else 20.0
# Of each request that is read.
LEAK = 4_000 if LONG else 200_000
# What is no HTTP may be ended without an answer.
NO_REQUESTS = {"noise", "less than announced", "bad chunks"}
REQUEST_TIMEOUT_S = 5


def send(port: int, request: Hostile) -> int | None:
    """Return the status of the answer; None if the connection was ended without one."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
            try:
                connection.sendall(request.content)
                if request.ends:
                    connection.shutdown(socket.SHUT_WR)
            except ConnectionError:
                pass  # It was answered before it was read to its end.
            head = connection.recv(65_536)
            while connection.recv(65_536):
                pass
    except ConnectionError:
        return None
    return int(head.split()[1]) if head else None


@dataclass(frozen=True)
class Attack:
    """What became of hostile requests: how many of each kind had which status, and the memory they left behind."""

    found: Counter[tuple[str, int | None]]
    growth_mb: float


def attack(service: Process) -> Attack:
    """Send them twice: the first time until allocators have what the largest of them take."""
    with ThreadPoolExecutor(SENDERS) as senders:

        def send_all(requests: list[Hostile]) -> tuple[Counter[tuple[str, int | None]], float]:
            """Send them in parts; return what became of them, and the median of the memory after each."""
            found: Counter[tuple[str, int | None]] = Counter()
            held_mb = []
            for first in range(0, len(requests), len(requests) // PARTS):
                part = requests[first : first + len(requests) // PARTS]
                statuses = senders.map(lambda request: send(service.port, request), part)
                found.update((each.kind, status) for each, status in zip(part, statuses, strict=True))
                held_mb.append(resident_mb(service.popen.pid))
            return found, statistics.median(held_mb)

        _, before_mb = send_all(list(hostile_requests(COUNT, seed=1)))
        found, after_mb = send_all(list(hostile_requests(COUNT)))
    return Attack(found, after_mb - before_mb)


@pytest.fixture
def settings(shades: Repository, tmp_path: Path) -> dict[str, Any]:
    publish_texts(shades, "moods")
    (tmp_path / "admin-keys").write_text(line_of("operator", ADMIN_KEY))
    return {
        "models_dir": shades.root,
        "request_timeout_s": REQUEST_TIMEOUT_S,
        "cpu_threads": 2,
        "max_body_bytes": MAX_BODY_BYTES,
        "feedback_file": tmp_path / "corrections",
        "admin_keys_file": tmp_path / "admin-keys",
    }


def test_no_hostile_request_fails_the_service(settings: dict[str, Any], figures: Figures) -> None:
    with process(**settings) as service:
        client = service.until_ready().client
        attacked = attack(service)
        failed = [each for each in attacked.found if each[1] is not None and each[1] >= 500]
        figures.tell(
            f"{2 * COUNT:,} hostile requests of {len(KINDS)} kinds",
            f"no 5xx; memory by less than {MOST_GROWTH_MB:.0f} MB from the first half to the second; none hangs",
            f"{len(failed)} kinds with a 5xx; {attacked.growth_mb:+.0f} MB",
        )
        assert failed == []
        assert {kind for kind, _ in attacked.found} == {each.kind for each in hostile_requests(len(KINDS))}
        # Of each kind but those that are no request, some are read and answered.
        answered = {kind for kind, status in attacked.found if status is not None}
        assert {kind for kind, _ in attacked.found} - answered <= NO_REQUESTS
        assert attacked.growth_mb < MOST_GROWTH_MB
        start_s = time.monotonic()
        assert client.post("/predict", content=png(0), headers=PNG).status_code == 200
        assert time.monotonic() - start_s < 1
        assert "lantern_in_flight_requests 1.0" in client.get("/metrics").text
    assert not [line for line in service.lines if "Traceback" in line]


def test_growth_would_be_seen(settings: dict[str, Any], figures: Figures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LEAK_BYTES, str(LEAK))
    with process(module="tests.leaking", **settings) as service:
        attacked = attack(service.until_ready())
    figures.tell(
        f"{2 * COUNT:,} hostile requests with a planted leak of {LEAK:,} bytes each",
        f"seen: over {MOST_GROWTH_MB:.0f} MB",
        f"{attacked.growth_mb:+.0f} MB",
    )
    assert attacked.growth_mb > MOST_GROWTH_MB
