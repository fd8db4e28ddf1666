"""The service over real HTTP: in a thread of the test's own process, or as a process of its own."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from app.main import create_app
from app.server import Server
from app.service import Service
from app.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 60.0
LISTENING = re.compile(r"running on http://127\.0\.0\.1:(\d+)")


@dataclass(frozen=True)
class Running:
    """A service that answers, and a client for it."""

    port: int
    client: httpx.Client
    service: Service

    def until_ready(self) -> "Running":
        until(lambda: self.client.get("/health/ready").status_code == 200)
        return self

    def until_version(self, name: str, version: str) -> None:
        until(lambda: self.client.get(f"/models/{name}").json()["version"] == version)


@contextmanager
def running(settings: Settings) -> Iterator[Running]:
    """Run the service in a thread; in-process, so that its insides can be looked at."""
    app = create_app(settings)
    server = Server(app, settings)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.url is not None or not thread.is_alive())
        assert server.url is not None, "the service does not listen"
        with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client:
            port = client.base_url.port
            assert port is not None
            yield Running(port, client, app.state.service)
    finally:
        server.should_exit = True
        thread.join()


class Process:
    """`python -m app` as a process of its own; what it logs is read as it comes, so that it never blocks."""

    def __init__(self, popen: "subprocess.Popen[str]") -> None:
        self.popen = popen
        self.lines: list[str] = []
        self._listening = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        if not self._listening.wait(PATIENCE_S):
            popen.kill()
            raise AssertionError("the service never listened")
        found = next(filter(None, (LISTENING.search(line) for line in self.lines)), None)
        assert found, "\n".join(self.lines)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{found[1]}", timeout=PATIENCE_S)

    @property
    def port(self) -> int:
        port = self.client.base_url.port
        assert port is not None
        return port

    def until_ready(self) -> "Process":
        until(lambda: self.client.get("/health/ready").status_code == 200)
        return self

    def wait(self) -> int:
        """Wait for its end; return its exit status."""
        status = self.popen.wait(PATIENCE_S)
        self._reader.join()
        return status

    def end(self) -> None:
        self.popen.kill()
        self.wait()
        self.client.close()

    def _read(self) -> None:
        assert self.popen.stderr is not None
        with self.popen.stderr as stream:
            for line in stream:
                self.lines.append(line.rstrip())
                if LISTENING.search(line):
                    self._listening.set()
        self._listening.set()


def environment_without_settings() -> dict[str, str]:
    """This process's own, but for what would set a service up; a long run of the fault tests is set so too."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LANTERN_")}


@contextmanager
def process(
    models_dir: Path, *arguments: str, module: str = "app", through: Sequence[str] = (), **settings: object
) -> Iterator[Process]:
    """Run `python -m app` on a free port, in a group of processes of its own, and yield once it listens.

    `through` is a command that runs the one that follows it, such as `env NAME=VALUE`, as the same process.
    """
    environment = environment_without_settings() | {
        "LANTERN_MODELS_DIR": str(models_dir),
        "LANTERN_PORT": "0",
        "LANTERN_LOG_FORMAT": "json",
    }
    environment |= {"LANTERN_CPU_THREADS": "1"}
    environment |= {f"LANTERN_{name.upper()}": str(value) for name, value in settings.items()}
    command = [*through, sys.executable, "-m", module, *arguments]
    started = Process(
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
    )
    try:
        yield started
    finally:
        started.end()


def until(condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Wait for a condition of another process or thread that has no event to wait on."""
    deadline_s = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.005)


def metric(service: Process, name: str, **labels: str) -> float:
    """The sum of a metric's series that have those labels, of whichever process answers."""
    text = ""

    def answered() -> bool:
        nonlocal text
        with suppress(httpx.TransportError):  # A new connection may go to a process that was just killed.
            text = httpx.get(f"{service.client.base_url}/metrics", timeout=10).text
        return bool(text)

    until(answered)
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def processor_s(pid: int, within_s: float) -> float:
    """Seconds of processor time that a process takes within so many seconds."""
    before_s = spent_s(pid)
    time.sleep(within_s)
    return spent_s(pid) - before_s


def spent_s(pid: int) -> float:
    """Seconds of processor time that a process took so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
