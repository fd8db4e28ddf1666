"""The servers that are compared: how each is started, asked, and looked at while it runs."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from pydantic import BaseModel

from benchmarks.environments import python_of
from benchmarks.load import post
from benchmarks.workloads import ROOT, Place

PEERS = Path(__file__).with_name("peers")
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 20.0
# Between two tries at a server that is starting.
TRY_INTERVAL_S = 0.05
BOUNDARY = "lantern-benchmark"


@dataclass(frozen=True)
class Server:
    """A server: what runs it, and where it takes a request.

    Attributes:
        requirements: Of its own environment; None runs it in this one.
        command: Its arguments; `{port}`, `{folder}`, `{models_dir}` and `{threads}` are filled in.
        path: Where it takes a body.
        environment: Variables that it wants, filled in likewise.
        deadline_header: The header by which it is told a request's deadline in milliseconds, if it can be told.
        form: It takes a body only as the part `file` of a multipart form.
    """

    name: str
    command: tuple[str, ...]
    path: str = "/predict"
    requirements: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    deadline_header: str | None = None
    form: bool = False

    def request(self, body: bytes, content_type: str, deadline_ms: float = 0) -> bytes:
        """Write a request as it goes over the wire."""
        headers = {}
        if deadline_ms and self.deadline_header:
            headers[self.deadline_header] = f"{deadline_ms:g}"
        if self.form:
            part = f'Content-Disposition: form-data; name="file"; filename="body"\r\nContent-Type: {content_type}'
            body = b"".join((f"--{BOUNDARY}\r\n{part}\r\n\r\n".encode(), body, f"\r\n--{BOUNDARY}--\r\n".encode()))
            content_type = f"multipart/form-data; boundary={BOUNDARY}"
        return post(self.path, body, content_type, headers)


def _peer(name: str, path: str = "/predict", *, form: bool = False) -> Server:
    folder = PEERS / name
    options = ("--folder", "{folder}", "--port", "{port}", "--threads", "{threads}")
    return Server(name, (str(folder / "serve.py"), *options), path, folder / "requirements.txt", form=form)


LANTERN = Server(
    "lantern",
    ("-m", "app", "--host", "127.0.0.1", "--port", "{port}"),
    environment={
        "LANTERN_MODELS_DIR": "{models_dir}",
        # The peers keep no log of requests either.
        "LANTERN_LOG_LEVEL": "warning",
        "LANTERN_DRAIN_GRACE_S": "0",
    },
    deadline_header="X-Request-Timeout-Ms",
)
LIMIT_ASGI = Server("limit: bare ASGI", ("-m", "benchmarks.limits", "http", "--port", "{port}"))
LIMIT_FASTAPI = Server("limit: FastAPI body()", (*LIMIT_ASGI.command, "--framework"))
LIMITS = (LIMIT_ASGI, LIMIT_FASTAPI)
SERVERS = {each.name: each for each in (LANTERN, _peer("fastapi"), _peer("litserve", form=True))}


class Memory(BaseModel):
    """Memory of a server's processes: pages counted for each that has them, and shared ones counted once."""

    resident_mb: float
    proportional_mb: float


@dataclass(frozen=True)
class Running:
    """A server that answers.

    Attributes:
        ready_s: From the start of its process to its first good answer.
    """

    server: Server
    port: int
    pid: int
    ready_s: float

    def memory_mb(self) -> Memory:
        """What its processes hold now."""
        family = _family(self.pid)
        return Memory(resident_mb=_sum_mb(family, "Rss"), proportional_mb=_sum_mb(family, "Pss"))


@contextmanager
def running(server: Server, place: Place, threads: int, probe: bytes) -> Iterator[Running]:
    """Start a server, wait for its first good answer, and stop it again.

    Args:
        server: Which.
        place: Where the model is.
        threads: CPU threads that a server may use for one request, where it does not find out by itself.
        probe: A whole request that it must answer.

    Raises:
        RuntimeError: It does not answer, with the end of what it said.
    """
    port = _free_port()
    known = {"port": port, "folder": place.folder, "models_dir": place.models_dir, "threads": threads}
    python = python_of(server.name, server.requirements) if server.requirements else Path(sys.executable)
    command = [str(python), *(word.format(**known) for word in server.command)]
    environment = os.environ | {name: value.format(**known) for name, value in server.environment.items()}
    start_s = time.monotonic()
    log = place.folder / f"{server.name}.log"
    with log.open("wb") as output:
        # A group of its own: servers start processes that must go with them.
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        _until_answered(process, port, server, probe, log)
        yield Running(server, port, process.pid, time.monotonic() - start_s)
    finally:
        _stop(process)


def _until_answered(
    process: "subprocess.Popen[bytes]", port: int, server: Server, probe: bytes, log: Path
) -> None:
    give_up_s = time.monotonic() + START_TIMEOUT_S
    said = "no answer"
    while time.monotonic() < give_up_s and process.poll() is None:
        try:
            status, said = _ask(port, probe)
        except (OSError, HTTPException) as error:
            said = str(error)
        else:
            if status == HTTPStatus.OK:
                return
        time.sleep(TRY_INTERVAL_S)
    tail = log.read_bytes()[-2000:].decode(errors="replace")
    raise RuntimeError(f"{server.name} does not answer: {said}\n{tail}")


def _ask(port: int, request: bytes) -> tuple[int, str]:
    """Send one whole request; return the status and how the answer begins."""
    with socket.create_connection(("127.0.0.1", port), timeout=START_TIMEOUT_S) as connection:
        connection.sendall(request)
        answer = HTTPResponse(connection)
        answer.begin()
        return answer.status, answer.read(300).decode(errors="replace")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    for sent in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sent)
        except ProcessLookupError:
            break
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *(each for child in children for each in _family(int(child)))]


def _sum_mb(pids: list[int], field: str) -> float:
    total_kib = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:  # It has just ended.
            continue
        total_kib += sum(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
    return total_kib * 1024 / 1e6
