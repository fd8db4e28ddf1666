"""Load on a server, from a client that costs little beside what it measures: load.c, compiled when first used."""

import hashlib
import json
import resource
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

SOURCE = Path(__file__).with_name("load.c")
BUILD = Path(__file__).with_name(".build")
FLAGS = ("-O2", "-Wall", "-Wextra", "-lm")
# How long after an open loop's end its last answers are waited for.
PATIENCE_S = 10.0
# Linux has 28,232 ports for them.
MOST_CONNECTIONS = 24_000
# Some programs take memory for each file that they may open.
MOST_FILES = 65_536
OTHER_FILES = 500


class CompilerMissing(Exception):
    """There is no C compiler to build the load client with."""


class LoadFailed(Exception):
    """The client could not go on: what it met was no HTTP, or the machine gave it no more sockets."""


class Pattern(BaseModel):
    """How requests come.

    Attributes:
        connections: Of a closed loop, each asking again once answered; of an open loop, the most there may be.
        rate: Requests a second, at random times, whatever became of those before; None is a closed loop.
        deadline_ms: An answer counts as in time only within it.
        seed: Of the random times.
    """

    model_config = ConfigDict(frozen=True)

    connections: int = Field(ge=1)
    seconds: float = Field(gt=0)
    warmup_s: float = Field(0, ge=0)
    rate: float | None = Field(None, gt=0)
    deadline_ms: float = Field(0, ge=0)
    seed: int = 0


class Latencies(BaseModel):
    """Milliseconds, from the first byte sent to the last received; of an open loop, from the intended start."""

    count: int
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    p999: float | None = Field(None, alias="p99.9")
    max: float | None = None
    mean: float | None = None


class Outcome(BaseModel):
    """What came of the requests of the measured time.

    Attributes:
        begun: Requests that were started.
        in_time: Good answers within the deadline, or all of them if there is none.
        broken: Requests whose connection ended without an answer.
        unanswered: Those still open when the client gave up.
        advised: Answers with 503 that said, in whole seconds, when to try again.
        statuses: HTTP status -> answers.
        accepted_ms, refused_ms: Of the answers with a status of 2xx, and of those with 503.
        begun_late_ms: Of an open loop, by how much the client missed the intended starts: for want of a free
            connection or of a processor.
        samples: HTTP status -> how one of its answers begins.
    """

    seconds: float
    begun: int
    in_time: int
    broken: int
    unanswered: int
    connects: int
    advised: int
    statuses: dict[int, int]
    accepted_ms: Latencies
    refused_ms: Latencies
    begun_late_ms: Latencies
    samples: dict[int, str]

    @property
    def per_s(self) -> float:
        """Good answers a second."""
        return self.accepted_ms.count / self.seconds

    @property
    def goodput_per_s(self) -> float:
        """Good answers within the deadline, a second."""
        return self.in_time / self.seconds

    @property
    def refused(self) -> int:
        """Answers with 503: the server had too much to do."""
        return self.refused_ms.count

    @property
    def failed(self) -> int:
        """Answers that are neither good nor a refusal."""
        return sum(self.statuses.values()) - self.accepted_ms.count - self.refused


def allow_connections() -> int:
    """Let this process, and with it the client and the servers, hold as many files as the system lets them.

    Returns:
        The most connections that a load may then have.
    """
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = MOST_FILES if most_files == resource.RLIM_INFINITY else min(most_files, MOST_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, most_files))
    return min(MOST_CONNECTIONS, files - OTHER_FILES)


def load(port: int, requests: Sequence[bytes], pattern: Pattern) -> Outcome:
    """Send requests to a server on this machine.

    Args:
        port: Where it listens, on 127.0.0.1.
        requests: Whole requests, head and body, sent in turn.
        pattern: How they come.

    Raises:
        CompilerMissing: The client cannot be built.
        LoadFailed: The client failed; with what it said.
    """
    program = _program()
    arguments = {
        "port": port,
        "connections": pattern.connections,
        "seconds": pattern.seconds,
        "warmup-s": pattern.warmup_s,
        "rate": pattern.rate or 0,
        "deadline-ms": pattern.deadline_ms,
        "patience-s": PATIENCE_S,
        "seed": pattern.seed,
    }
    with tempfile.TemporaryDirectory() as scratch:
        files = [Path(scratch) / str(index) for index in range(len(requests))]
        for file, request in zip(files, requests, strict=True):
            file.write_bytes(request)
        options = [f"--{name}={value}" for name, value in arguments.items()]
        command = [str(program), *options, *map(str, files)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LoadFailed(done.stderr.strip())
    return Outcome.model_validate(json.loads(done.stdout))


def load_together(port: int, streams: Sequence[Sequence[bytes]], pattern: Pattern) -> list[Outcome]:
    """Send several streams of requests at the same time, each over an even share of the connections."""
    share = pattern.model_copy(update={"connections": pattern.connections // len(streams)})
    with ThreadPoolExecutor(len(streams)) as pool:
        return list(pool.map(lambda requests: load(port, requests, share), streams))


def together(outcomes: Sequence[Outcome]) -> Outcome:
    """Add up what came of several streams; percentiles of all of them together are not known."""
    if len(outcomes) == 1:
        return outcomes[0]
    counted = ("begun", "in_time", "broken", "unanswered", "connects", "advised")
    return Outcome(
        seconds=max(outcome.seconds for outcome in outcomes),
        statuses=dict(sum((Counter(outcome.statuses) for outcome in outcomes), Counter())),
        samples={status: text for outcome in outcomes for status, text in outcome.samples.items()},
        accepted_ms=Latencies(count=sum(outcome.accepted_ms.count for outcome in outcomes)),
        refused_ms=Latencies(count=sum(outcome.refused_ms.count for outcome in outcomes)),
        begun_late_ms=Latencies(count=sum(outcome.begun_late_ms.count for outcome in outcomes)),
        **{name: sum(getattr(outcome, name) for outcome in outcomes) for name in counted},
    )


def post(path: str, body: bytes, content_type: str, headers: Mapping[str, str] | None = None) -> bytes:
    """Write a POST as it goes over the wire."""
    lines = {
        "Host": "127.0.0.1",
        "Content-Type": content_type,
        "Content-Length": str(len(body)),
        **(headers or {}),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def _program() -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise CompilerMissing("the load client is a C program: install a C compiler (apt install gcc)")
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    program = BUILD / f"load-{digest}"
    if not program.exists():
        BUILD.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
            built = Path(scratch) / "load"
            subprocess.run([compiler, SOURCE, "-o", built, *FLAGS], check=True)
            built.rename(program)
    return program
