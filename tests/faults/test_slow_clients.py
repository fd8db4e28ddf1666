"""Clients that are slow or say nothing, in number: others are served as ever, and it ends."""

import math
import resource
import select
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from app.protocol import HEAD_WITHIN_S, REST_WITHIN_S, TAKEN_WITHIN_S
from models.repository import Repository
from tests.bundles import Always, publish
from tests.faults import LONG
from tests.faults.figures import Figures
from tests.faults.memory import resident_mb
from tests.images import png
from tests.servers import Process, process, spent_s, until

COUNT = 2_000 if LONG else 200
PNG = {"Content-Type": "image/png"}
REQUEST_TIMEOUT_S = 3
# uvicorn's own.
IDLE_WITHIN_S = 5.0
# Between two bytes of a slow client.
PAUSE_S = 0.25
# The server looks once a second, and the machine does other things besides.
LATE_S = 4.0
MOST_MB_EACH = 0.1
# Beyond that a client would notice.
LONGEST_S = 1.0
FLOODS = 20
FLOOD_BYTES = 20_000_000
# What was read at once, a quarter of a megabyte, is many small things.
MOST_FLOOD_MB_EACH = 1.0
PATIENCE_S = 30.0
MOST_FILES = 256
EXHAUSTED_S = 3.0

GET = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 1000000\r\n\r\n"
CHUNKED = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
SHORT_POST = POST.replace(b"1000000", b"%d" % len(png(0)))
DOCUMENT = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass(frozen=True)
class Habit:
    """How a client is slow.

    Attributes:
        first: What it sends at once.
        then: What it sends after that, a byte at a time.
        within_s: Its connection is ended after no longer than this.
        reads: Whether it takes what is answered.
    """

    first: bytes
    then: bytes
    within_s: float
    reads: bool = True


HABITS = {
    "says nothing": Habit(b"", b"", HEAD_WITHIN_S),
    "headers that do not end": Habit(GET, b"X-A: y\r\n", HEAD_WITHIN_S),
    "idle after an answer": Habit(GET + b"\r\n", b"", IDLE_WITHIN_S),
    # It is answered that its time ran out, and sends on.
    "a body that does not end": Habit(POST, b"y", REQUEST_TIMEOUT_S + REST_WITHIN_S),
    "a body that nobody asked for": Habit(GET + b"Content-Length: 1000000\r\n\r\n", b"y", REST_WITHIN_S),
    "empty lines after an answer": Habit(GET + b"\r\n", b"\r\n", REST_WITHIN_S),
    "does not read": Habit(DOCUMENT * 4, b"", TAKEN_WITHIN_S, reads=False),
}


@dataclass
class SlowClient:
    """One of them."""

    kind: str
    socket: socket.socket
    opened_s: float = field(default_factory=time.monotonic)
    sent: int = 0
    ended_s: float = math.inf

    @classmethod
    def connect(cls, kind: str, port: int) -> "SlowClient":
        own = socket.socket()
        if not HABITS[kind].reads:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        own.connect(("127.0.0.1", port))
        own.setblocking(False)
        own.send(HABITS[kind].first)
        return cls(kind, own)

    def go_on(self) -> None:
        """Send another byte, and see whether the connection is still there."""
        try:
            self._exchange()
        except BlockingIOError:
            pass
        except ConnectionError:
            self.ended_s = time.monotonic() - self.opened_s

    def _exchange(self) -> None:
        habit = HABITS[self.kind]
        if habit.then:
            at = self.sent % len(habit.then)
            self.sent += self.socket.send(habit.then[at : at + 1])
        if habit.reads:
            if not self.socket.recv(65_536):
                raise ConnectionResetError
        elif _is_broken(self.socket):
            raise ConnectionResetError


def _is_broken(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, 0)
    return bool(poll.poll(0))


class Crowd:
    """Many of them, on a thread of their own."""

    def __init__(self, port: int, count: int) -> None:
        kinds = sorted(HABITS)
        self.clients = [SlowClient.connect(kinds[number % len(kinds)], port) for number in range(count)]
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def staying(self) -> list[SlowClient]:
        return [client for client in self.clients if client.ended_s == math.inf]

    def close(self) -> None:
        self._done.set()
        self._thread.join()
        for client in self.clients:
            client.socket.close()

    def _run(self) -> None:
        while not self._done.wait(PAUSE_S):
            for client in self.staying():
                client.go_on()


@contextmanager
def crowd(port: int, count: int) -> Iterator[Crowd]:
    found = Crowd(port, count)
    try:
        yield found
    finally:
        found.close()


def answer(client: httpx.Client) -> httpx.Response:
    return client.post("/predict", content=png(0), headers=PNG).raise_for_status()


def latencies_s(client: httpx.Client, seconds: float) -> list[float]:
    """Ask again and again for so long."""
    found = []
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        start_s = time.monotonic()
        answer(client)
        found.append(time.monotonic() - start_s)
        time.sleep(0.01)  # As a client does that has something else to do.
    return found


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_many_slow_clients_are_in_nobodys_way_and_are_ended(shades: Repository, figures: Figures) -> None:
    with process(shades.root, request_timeout_s=REQUEST_TIMEOUT_S) as service:
        client, pid = service.until_ready().client, service.popen.pid
        usual_s = latencies_s(client, 2)
        files, before_mb = open_files(pid), resident_mb(service.popen.pid)
        within_s = {
            kind: habit.within_s for kind, habit in HABITS.items() if LONG or habit.within_s <= HEAD_WITHIN_S
        }
        with crowd(service.port, COUNT) as slow:
            found_s = latencies_s(client, max(within_s.values()) + LATE_S)
            grown_mb = resident_mb(service.popen.pid) - before_mb
            # Who does not read does not see the end either: the open files tell of those.
            late = [
                each
                for each in slow.clients
                if HABITS[each.kind].reads and each.ended_s > within_s.get(each.kind, math.inf) + LATE_S
            ]
            staying = sum(each.kind not in within_s for each in slow.clients)
            assert open_files(pid) <= files + staying
        figures.tell(
            f"{COUNT:,} slow clients of {len(HABITS)} kinds",
            f"all ended in time; median latency of another at most twice the usual; {MOST_MB_EACH} MB each",
            f"{len(late)} late; median {statistics.median(found_s) * 1e3:.1f} ms beside "
            f"{statistics.median(usual_s) * 1e3:.1f}; {grown_mb / COUNT:.3f} MB each",
        )
        assert late == []
        assert statistics.median(found_s) < 2 * statistics.median(usual_s) + 0.005
        assert max(found_s) < LONGEST_S
        assert grown_mb < MOST_MB_EACH * COUNT
        until(lambda: open_files(pid) <= files)
    assert not [line for line in service.lines if "Traceback" in line]


def flood(port: int, begin: bytes, piece: bytes) -> bool:
    """Send as fast as it is taken; whether the connection was ended before `FLOOD_BYTES`."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        try:
            connection.sendall(begin)
            for _ in range(FLOOD_BYTES // len(piece)):
                connection.sendall(piece)
                # Answers are read, or it would be ended for that.
                if select.select([connection], [], [], 0)[0] and not connection.recv(1_000_000):
                    return True
        except ConnectionError:
            return True
    return False


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (GET, b"a:b\r\n" * 10_000),
        (CHUNKED + b"1\r\nx\r\n0\r\n", b"a:b\r\n" * 10_000),
        (CHUNKED + b"1\r\nx\r\n0\r\nX-A: ", b"y" * 50_000),
        (b"", b"GET / HTTP/1.1\r\n\r\n" * 3_000),
        (b"", (SHORT_POST + png(0)) * 500),
    ],
    ids=["headers", "headers behind a body", "a header without an end", "requests", "requests with bodies"],
)
def test_a_flood_ends_its_connection_before_it_takes_memory(
    shades: Repository, begin: bytes, piece: bytes
) -> None:
    with process(shades.root) as service:
        client = service.until_ready().client
        latencies_s(client, 0.5)
        before_mb = resident_mb(service.popen.pid)
        with ThreadPoolExecutor(FLOODS) as pool:
            ended = list(pool.map(lambda _: flood(service.port, begin, piece), range(FLOODS)))
        assert ended == [True] * FLOODS
        assert resident_mb(service.popen.pid) - before_mb < MOST_FLOOD_MB_EACH * FLOODS
        assert answer(client).status_code == 200
    assert not [line for line in service.lines if "Traceback" in line]


def limit_files(service: Process, count: int) -> list[int]:
    """Allow the processes of a service so many open files each; return their ids."""
    pids = [service.popen.pid]
    pids += map(int, Path(f"/proc/{pids[0]}/task/{pids[0]}/children").read_text().split())
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (count, count))
    return pids


@pytest.mark.parametrize("workers", [1, 2])
def test_who_is_connected_is_served_where_no_more_files_can_be_opened(shades: Repository, workers: int) -> None:
    with process(shades.root, workers=workers, reload_interval_s=0.2) as service:
        client = service.until_ready().client
        pids, start_s = limit_files(service, MOST_FILES), time.monotonic()
        with ExitStack() as stack:
            for _ in range(2 * workers * MOST_FILES):
                own = stack.enter_context(socket.socket())
                own.setblocking(False)
                own.connect_ex(("127.0.0.1", service.port))
            until(lambda: any("as many files are open as may be" in line for line in service.lines))
            before_s = sum(map(spent_s, pids))
            found_s = latencies_s(client, EXHAUSTED_S)
            assert max(found_s) < LONGEST_S
            assert sum(map(spent_s, pids)) - before_s < EXHAUSTED_S / 2
            # The service's own work goes on.
            version = publish(shades, "shades", Always(1)).manifest.version
            until(lambda: answer(client).json()["version"] == version)
            assert client.get("/health/ready").json()["models"]["shades"]["refused"] is None
            about_files = [line for line in service.lines if "ulimit" in line]
            assert len(about_files) < 2 * len(pids) * (time.monotonic() - start_s)
        # The others are gone.
        with httpx.Client(base_url=client.base_url, timeout=20) as other:
            assert answer(other).status_code == 200
    assert not [line for line in service.lines if "Traceback" in line]
