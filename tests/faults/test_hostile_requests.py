"""Thousands of hostile requests: none fails the service, none makes it grow, none is left without an end."""

import os
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from models.repository import Repository
from tests.faults.hostile import KINDS, Hostile, hostile_requests
from tests.images import png
from tests.servers import Process, process

PNG = {"Content-Type": "image/png"}
SHORT = 20 * len(KINDS)
LONG = 10_000
SENDERS = 8
PATIENCE_S = 30.0
# What allocators keep of what was used once.
MOST_GROWTH_MB = 40.0
REQUEST_TIMEOUT_S = 5


def count() -> int:
    return LONG if os.environ.get("LANTERN_FAULTS") == "long" else SHORT


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


def resident_mb(service: Process) -> float:
    text = Path(f"/proc/{service.popen.pid}/status").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def test_no_hostile_request_fails_the_service(shades: Repository) -> None:
    with process(shades.root, request_timeout_s=REQUEST_TIMEOUT_S, cpu_threads=2) as service:
        client = service.until_ready().client
        port = client.base_url.port
        assert port is not None
        with ThreadPoolExecutor(SENDERS) as senders:

            def send_all(requests: list[Hostile]) -> Counter[tuple[str, int | None]]:
                statuses = senders.map(lambda request: send(port, request), requests)
                return Counter((each.kind, status) for each, status in zip(requests, statuses, strict=True))

            # Until allocators have what the largest of them take.
            send_all(list(hostile_requests(count(), seed=1)))
            before_mb = resident_mb(service)
            found = send_all(list(hostile_requests(count())))
        assert [each for each in found if each[1] is not None and each[1] >= 500] == []
        assert {kind for kind, _ in found} == {each.kind for each in hostile_requests(len(KINDS))}
        assert resident_mb(service) - before_mb < MOST_GROWTH_MB
        start_s = time.monotonic()
        assert client.post("/predict", content=png(0), headers=PNG).status_code == 200
        assert time.monotonic() - start_s < 1
        assert "lantern_in_flight_requests 1.0" in client.get("/metrics").text
    assert not [line for line in service.lines if "Traceback" in line]
