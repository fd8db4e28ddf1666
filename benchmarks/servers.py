"""The servers that are compared: how each is started, asked, and looked at while it runs."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from pydantic import BaseModel

from benchmarks.encodings import Encode, form, raw, v2_base64, v2_raw
from benchmarks.environments import lack_of_java, python_of, versions_of
from benchmarks.load import post
from benchmarks.places import Place
from benchmarks.workloads import ROOT

PEERS = Path(__file__).with_name("peers")
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 20.0
LOG_LINES = 20
LONGEST_LINE = 300
# Between two tries at a server that is starting.
TRY_INTERVAL_S = 0.05


class ServerFailed(Exception):
    """A server that cannot be installed, does not start, answers wrong or ends before it is told to.

    Args:
        why: In a line.
        log: The last lines of what it said.
    """

    def __init__(self, why: str, log: str = "") -> None:
        super().__init__(why)
        self.log = log


@dataclass(frozen=True)
class Server:
    """A server: what runs it, and where it takes a request.

    Attributes:
        requirements: Of its own environment; None runs it in this one.
        command: Its arguments; `{port}`, `{folder}`, `{models_dir}` and `{threads}` are filled in.
        path: Where it takes a body.
        model_path: Where it takes one for `{model}`, if it can serve several.
        environment: Variables that it wants, filled in likewise.
        deadline_header: The header by which it is told a request's deadline in milliseconds, if it can be told.
        encode: How it takes one input; the body as it is, if it can.
        encode_many: How it takes several in one request, if it does.
        lack: Says what this machine lacks to run it, if anything.
    """

    name: str
    command: tuple[str, ...]
    path: str = "/predict"
    model_path: str | None = None
    requirements: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    deadline_header: str | None = None
    encode: Encode = raw
    encode_many: Encode | None = None
    lack: Callable[[], str | None] = lambda: None

    def install(self) -> dict[str, str]:
        """Make its environment if there is none; return the versions of what is in it.

        Raises:
            ServerFailed: It cannot run here.
        """
        if lack := self.lack():
            raise ServerFailed(lack)
        try:
            return versions_of(self.name, self.requirements)
        except subprocess.CalledProcessError as error:
            why = f"its environment cannot be made (exit status {error.returncode})"
            raise ServerFailed(why, _tail(error.stderr or "")) from error
        except OSError as error:
            raise ServerFailed(f"its environment is broken: {error}") from error

    def unfit(self, inputs: int = 1, models: int = 1) -> str | None:
        """Say why it cannot take requests of so many inputs, or serve so many models; None if it can."""
        if inputs > 1 and self.encode_many is None:
            return "it takes one input a request"
        if models > 1 and self.model_path is None:
            return "it serves one model"
        return None

    def request(
        self, inputs: Sequence[bytes], content_type: str, deadline_ms: float = 0, model: str | None = None
    ) -> bytes:
        """Write a request as it goes over the wire; to one of several models, if it is named."""
        if model is not None and self.model_path is None:
            raise ValueError(f"{self.name} serves one model")
        encode = self.encode if len(inputs) == 1 else self.encode_many
        if encode is None:
            raise ValueError(f"{self.name} takes one input a request, not {len(inputs)}")
        body, content_type, headers = encode(inputs, content_type)
        if deadline_ms and self.deadline_header:
            headers = {**headers, self.deadline_header: f"{deadline_ms:g}"}
        path = self.path if model is None or self.model_path is None else self.model_path.format(model=model)
        return post(path, body, content_type, headers)


def _peer(name: str, folder: str | None = None, environment: Mapping[str, str] | None = None) -> Server:
    home = PEERS / (folder or name)
    options = ("--folder", "{folder}", "--port", "{port}", "--threads", "{threads}")
    # What some write beside them at home or in the system's temporary folder goes with the model's.
    kept_together = {"HOME": "{folder}", "TMPDIR": "{folder}", "TEMP": "{folder}"}
    return Server(
        name,
        (str(home / "serve.py"), *options),
        model_path="/predict/{model}",
        requirements=home / "requirements.txt",
        environment={"PYTHONPATH": str(PEERS), **kept_together, **(environment or {})},
    )


LANTERN = Server(
    "lantern",
    ("-m", "app", "--host", "127.0.0.1", "--port", "{port}"),
    environment={
        "LANTERN_MODELS_DIR": "{models_dir}",
        "LANTERN_PRECISION": "fp32",
        # The peers keep no log of requests either.
        "LANTERN_LOG_LEVEL": "warning",
        "LANTERN_DRAIN_GRACE_S": "0",
    },
    model_path="/models/{model}/predict",
    deadline_header="X-Request-Timeout-Ms",
    encode_many=form,
)
LANTERN_AUTO = replace(
    LANTERN, name="lantern-auto", environment={**LANTERN.environment, "LANTERN_PRECISION": "auto"}
)
LANTERN_WORKERS = replace(
    LANTERN, name="lantern-workers", environment={**LANTERN.environment, "LANTERN_WORKERS": "{threads}"}
)
# Measured where they make a difference: a workload names them.
VARIANTS = (LANTERN_AUTO, LANTERN_WORKERS)
OURS = (LANTERN, *VARIANTS)
FASTAPI = replace(_peer("fastapi"), encode_many=form)
LITSERVE = replace(_peer("litserve"), encode=form)
BENTOML = replace(
    _peer("bentoml", environment={"BENTOML_DO_NOT_TRACK": "True"}),
    command=(
        *("-m", "bentoml", "serve", "service:Service", "--working-dir", str(PEERS / "bentoml")),
        *("--host", "127.0.0.1", "--port", "{port}", "--arg", "folder={folder}", "--arg", "threads={threads}"),
    ),
    encode=form,
    encode_many=form,
)
RAY_SERVE = _peer("rayserve", environment={"RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"})
V2_PATH = "/v2/models/{model}/infer"
# These address even their only model.
ONLY = "classifier"
V2_ONLY = V2_PATH.format(model=ONLY)
MLSERVER = replace(_peer("mlserver"), path=V2_ONLY, model_path=V2_PATH, encode=v2_base64, encode_many=v2_base64)
# A folder named as the package `triton` would be taken for it: PYTHONPATH leads to these folders.
TRITON = replace(_peer("triton", folder="pytriton"), path=V2_ONLY, model_path=V2_PATH, encode=v2_raw)
TORCHSERVE = replace(
    _peer("torchserve"), path=f"/predictions/{ONLY}", model_path="/predictions/{model}", lack=lack_of_java
)
LIMIT_ASGI = Server(
    "limit: bare ASGI",
    ("-m", "benchmarks.limits", "http", "--port", "{port}"),
    model_path="/predict",
    encode_many=form,
)
LIMIT_FASTAPI = replace(LIMIT_ASGI, name="limit: FastAPI body()", command=(*LIMIT_ASGI.command, "--framework"))
LIMITS = (LIMIT_ASGI, LIMIT_FASTAPI)
SERVERS = {
    each.name: each for each in (*OURS, FASTAPI, LITSERVE, BENTOML, RAY_SERVE, MLSERVER, TRITON, TORCHSERVE)
}


class Memory(BaseModel):
    """Memory of a server's processes: pages counted for each that has them, and shared ones counted once."""

    resident_mb: float
    proportional_mb: float


@dataclass(frozen=True)
class Running:
    """A server that answers.

    Attributes:
        ready_s: From the start of its process to its first good answer, of each model.
        answers: That to each probe.
    """

    server: Server
    port: int
    process: "subprocess.Popen[bytes]"
    log: Path
    ready_s: float
    answers: Sequence[str]

    def memory_mb(self) -> Memory:
        """What its processes hold now."""
        family = _family(self.process.pid)
        return Memory(resident_mb=_sum_mb(family, "Rss"), proportional_mb=_sum_mb(family, "Pss"))

    def check_alive(self) -> None:
        """Look whether it still runs.

        Raises:
            ServerFailed: It ended by itself.
        """
        if self.process.poll() is not None:
            raise self.failure(f"it ended while it was measured (exit status {self.process.returncode})")

    def failure(self, why: str) -> ServerFailed:
        """Tell of a failure with the end of its log."""
        return _failure(why, self.log)


@contextmanager
def running(server: Server, place: Place, threads: int, probes: Sequence[bytes]) -> Iterator[Running]:
    """Start a server, wait for its first good answer of each model, and stop it again.

    Args:
        server: Which.
        place: Where the model is.
        threads: CPU threads that a server may use for one request, where it does not find out by itself.
        probes: Whole requests that it must answer.

    Raises:
        ServerFailed: It does not answer.
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
        give_up_s = start_s + START_TIMEOUT_S
        answers = [_until_answered(process, port, probe, log, give_up_s) for probe in probes]
        yield Running(server, port, process, log, time.monotonic() - start_s, answers)
    finally:
        _stop(process)


def _until_answered(
    process: "subprocess.Popen[bytes]", port: int, probe: bytes, log: Path, give_up_s: float
) -> str:
    said = "no answer"
    while time.monotonic() < give_up_s and process.poll() is None:
        try:
            status, said = _ask(port, probe)
        except (OSError, HTTPException) as error:
            said = str(error)
        else:
            if status == HTTPStatus.OK:
                return said
        time.sleep(TRY_INTERVAL_S)
    if process.returncode is not None:
        raise _failure(f"it ended before it answered (exit status {process.returncode})", log)
    raise _failure(f"it does not answer: {said[:300]}", log)


def _failure(why: str, log: Path) -> ServerFailed:
    return ServerFailed(why, _tail(log.read_text(errors="replace")))


def _tail(said: str) -> str:
    return "\n".join(line[:LONGEST_LINE] for line in said.splitlines()[-LOG_LINES:])


def _ask(port: int, request: bytes) -> tuple[int, str]:
    """Send one whole request; return the answer's status and body."""
    with socket.create_connection(("127.0.0.1", port), timeout=START_TIMEOUT_S) as connection:
        connection.sendall(request)
        answer = HTTPResponse(connection)
        answer.begin()
        return answer.status, answer.read().decode(errors="replace")


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
    """A process and all that descend from it, whichever of its threads started them."""
    children: list[str] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # It has just ended.
            children += file.read_text().split()
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
