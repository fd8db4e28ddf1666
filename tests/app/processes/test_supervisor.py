"""Several worker processes behind one port, as `python -m app` runs them."""

import asyncio
import functools
import itertools
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.processes.child import Child
from app.processes.supervisor import Supervisor
from app.settings import Settings
from models.manifest import Source
from models.repository import Repository
from tests.bundles import Always, publish
from tests.images import png
from tests.refusing import REFUSE
from tests.servers import ROOT, Process, metric, process, until

PNG = {"Content-Type": "image/png"}
REPLACEMENTS = "lantern_worker_replacements_total"
# How soon after the first answer of a version no request that is sent gets one of the version before: milliseconds
# for a process that runs, but one that shares two cores with this test may not run at once.
SAME_VERSION_WITHIN_S = 1.0


@dataclass
class Answer:
    """What became of one request."""

    request_id: str
    sent_s: float
    answered_s: float
    status: int
    version: str


@dataclass
class Client:
    """One that asks again as soon as it is answered, over a connection that it keeps."""

    name: str
    port: int
    answers: list[Answer] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def run(self, stop: threading.Event) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30) as client:
            while not stop.is_set():
                self.ask(client)

    def ask(self, client: httpx.Client) -> None:
        request_id, sent_s = f"{self.name}-{len(self.answers) + len(self.failed)}", time.monotonic()
        try:
            response = client.post("/predict", content=png(0), headers=PNG | {"X-Request-ID": request_id})
        except httpx.TransportError as error:
            self.failed.append(repr(error))
            return
        version = response.json().get("version", response.text)
        self.answers.append(Answer(request_id, sent_s, time.monotonic(), response.status_code, version))


@contextmanager
def load(port: int, clients: int = 8) -> Iterator[list[Client]]:
    stop = threading.Event()
    asking = [Client(f"load{port}-{index}", port) for index in range(clients)]
    threads = [threading.Thread(target=each.run, args=(stop,)) for each in asking]
    for thread in threads:
        thread.start()
    try:
        yield asking
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def until_more(clients: list[Client], count: int) -> None:
    """Wait until every client had so many more answers."""
    before = {each.name: len(each.answers) for each in clients}
    until(lambda: all(len(each.answers) >= before[each.name] + count for each in clients))


def port_of(service: Process) -> int:
    return service.client.base_url.port or 0


# They are looked through again and again while something is waited for.
parse = functools.cache(json.loads)


def records(service: Process) -> list[dict[str, Any]]:
    return [parse(line) for line in list(service.lines)]


def workers_of(service: Process, request_ids: set[str]) -> dict[str, int]:
    """Which worker process answered each request, as the log says."""
    found: dict[str, int] = {}

    def all_there() -> bool:
        found.update({each["request_id"]: each["worker"] for each in records(service) if "request_id" in each})
        return request_ids <= set(found)

    until(all_there)
    return {request_id: found[request_id] for request_id in request_ids}


def pids(service: Process) -> dict[int, int]:
    """Worker -> its process, of those that have said which they are."""
    started = {
        each["worker"]: int(each["message"].split("[")[1].rstrip("]"))
        for each in records(service)
        if each["message"].startswith("Started server process")
    }
    return {worker: pid for worker, pid in started.items() if Path(f"/proc/{pid}").exists()}


def assert_swapped_together(answers: list[Answer], versions: list[str]) -> None:
    for old, new in itertools.pairwise(versions):
        first_s = min(answer.answered_s for answer in answers if answer.version == new)
        last_s = max(answer.sent_s for answer in answers if answer.version == old)
        assert last_s - first_s < SAME_VERSION_WITHIN_S


def children(service: Process) -> set[int]:
    pid = service.popen.pid
    return {int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def lowest_free_descriptor(pid: int) -> int:
    taken = {int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir()}
    return next(number for number in itertools.count() if number not in taken)


def until_both_serve(service: Process) -> None:
    until(lambda: metric(service, "lantern_worker_processes") == 2)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    repository = Repository(tmp_path_factory.mktemp("workers") / "artifacts")
    publish(repository, "shades")
    return repository


@pytest.fixture(scope="module")
def shared(models: Repository) -> Iterator[Process]:
    """A service with two worker processes, of which the first that tries refuses certain versions."""
    with process(models.root, module="tests.refusing", workers=2, reload_interval_s=0.05) as service:
        yield service.until_ready()


@pytest.fixture
def pair(shared: Process) -> Process:
    """The same, with both processes there again."""
    until_both_serve(shared)
    return shared


def test_keep_alive_connections_are_spread_evenly(pair: Process) -> None:
    with ExitStack() as stack:
        for index in range(32):
            client = stack.enter_context(httpx.Client(base_url=pair.client.base_url, timeout=30))
            client.post("/predict", content=png(0), headers=PNG | {"X-Request-ID": f"spread-{index}"})
        workers = workers_of(pair, {f"spread-{index}" for index in range(32)})
    spread = Counter(workers.values())
    assert sorted(spread) == [1, 2]
    assert max(spread.values()) - min(spread.values()) <= 2


def test_any_worker_answers_for_the_metrics_of_all(pair: Process) -> None:
    own = {"model": "shades", "route": "/predict", "code": "ok"}
    before = metric(pair, "lantern_requests_total", **own)
    with ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=pair.client.base_url)) for _ in range(4)]
        for client in clients:
            client.post("/predict", content=png(0), headers=PNG)
        for client in clients:
            text = client.get("/metrics").text
            assert "lantern_worker_processes 2.0" in text
            assert 'lantern_queue_capacity{model="shades"} 2048.0' in text
            assert 'lantern_model_info{model="shades",version="' in text
            assert "} 2.0" not in "".join(line for line in text.splitlines() if "model_info" in line)
    assert metric(pair, "lantern_requests_total", **own) == before + 4


def test_a_worker_that_is_killed_takes_only_its_own_requests_with_it_and_is_replaced(pair: Process) -> None:
    killed = 2
    pid = pids(pair)[killed]
    with load(port_of(pair)) as clients:
        until_more(clients, 20)
        # Not the last answer: the line that tells of it may die with the process.
        asked = {each.name: each.answers[-5].request_id for each in clients}
        os.kill(pid, signal.SIGKILL)
        # Ready throughout, and for new connections too, while the other is being replaced.
        until(lambda: pids(pair).get(killed, pid) != pid)
        assert httpx.get(f"{pair.client.base_url}/health/ready").status_code == 200
        until_both_serve(pair)
        # All connections are on the other now, and some move over to the new process.
        until(lambda: {*workers_of(pair, {each.answers[-1].request_id for each in clients}).values()} == {1, 2})
    workers = workers_of(pair, set(asked.values()))
    for each in clients:
        assert {answer.status for answer in each.answers} == {200}
        # A client whose connection was the other's lost nothing; one of the killed one's, what was in flight.
        assert len(each.failed) <= (workers[asked[each.name]] == killed), each.failed


def test_one_that_is_killed_while_another_is_being_replaced_is_replaced_too(pair: Process) -> None:
    running, replaced = pids(pair), metric(pair, REPLACEMENTS)
    os.kill(running[1], signal.SIGKILL)
    until(lambda: bool(children(pair) - {*running.values()}))
    os.kill(running[2], signal.SIGKILL)
    until(lambda: not children(pair) & {*running.values()})
    until_both_serve(pair)
    assert metric(pair, REPLACEMENTS) == replaced + 2
    assert pair.until_ready().client.post("/predict", content=png(0), headers=PNG).status_code == 200


def test_a_worker_that_hangs_holds_up_neither_metrics_nor_new_connections(pair: Process) -> None:
    pid = pids(pair)[1]
    before = metric(pair, "lantern_requests_total")
    os.kill(pid, signal.SIGSTOP)
    try:
        # Some connections may still be given to it, until it is known to hang.
        def answers() -> bool:
            with suppress(httpx.TimeoutException):
                text = httpx.get(f"{pair.client.base_url}/metrics", timeout=1).text
                return "lantern_requests_total" in text
            return False

        until(lambda: all(answers() for _ in range(3)))
    finally:
        os.kill(pid, signal.SIGCONT)
    assert metric(pair, "lantern_requests_total") > before


def test_connections_go_past_a_worker_that_has_no_descriptor_to_spare(pair: Process) -> None:
    pid = pids(pair)[1]
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest_free_descriptor(pid), limits[1]))
    try:
        with ExitStack() as stack:
            for _ in range(8):
                client = stack.enter_context(httpx.Client(base_url=pair.client.base_url, timeout=30))
                assert client.post("/predict", content=png(0), headers=PNG).status_code == 200
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    assert any("a connection is refused" in line for line in list(pair.lines))


def test_all_swap_to_a_new_version_together_under_load(pair: Process, models: Repository) -> None:
    versions = [pair.client.get("/models/shades").json()["version"]]
    with load(port_of(pair)) as clients:
        until_more(clients, 10)
        for index in (0, 2):
            versions.append(publish(models, "shades", Always(index)).manifest.version)
            until(lambda: all(each.answers[-1].version == versions[-1] for each in clients))
            until_more(clients, 10)
    answers = [answer for each in clients for answer in each.answers]
    assert not [each.failed for each in clients if each.failed]
    assert {answer.status for answer in answers} == {200}
    assert {answer.version for answer in answers} == {*versions}
    for each in clients:
        own = [answer.version for answer in each.answers]
        assert own == sorted(own, key=versions.index), "a version went back on one connection"
    assert_swapped_together(answers, versions)


def test_a_version_that_one_refuses_goes_live_on_none(pair: Process, models: Repository) -> None:
    good = pair.client.get("/models/shades").json()["version"]
    note = Source(git=None, config={"note": REFUSE}, data_sha256="0" * 64)
    with load(port_of(pair), clients=4) as clients:
        until_more(clients, 5)
        refused = publish(models, "shades", Always(1), source=note).manifest.version
        with ExitStack() as stack:
            watching = [stack.enter_context(httpx.Client(base_url=pair.client.base_url)) for _ in range(4)]

            def told(client: httpx.Client) -> bool:
                body = client.get("/health/ready").json()
                found = body["models"]["shades"]["refused"]
                return body["status"] == "ready" and found is not None and found["version"] == refused

            until(lambda: all(told(client) for client in watching))
        until_more(clients, 5)
    assert {answer.version for each in clients for answer in each.answers} == {good}
    assert metric(pair, "lantern_model_loads_total", result="refused") >= 1
    # The next good version goes live on both.
    version = publish(models, "shades", Always(1)).manifest.version
    until(lambda: metric(pair, "lantern_model_info", version=version) == 1)


def test_a_replaced_worker_serves_what_the_others_do_and_what_the_killed_one_counted_stays(
    pair: Process, models: Repository
) -> None:
    good = pair.client.get("/models/shades").json()["version"]
    # Current, but nobody's: the new process must not be the only one to serve it.
    note = Source(git=None, config={"note": REFUSE}, data_sha256="0" * 64)
    publish(models, "shades", Always(0), source=note)
    until(lambda: pair.client.get("/models/shades").json()["refused"] is not None)
    own = {"model": "shades", "route": "/predict", "code": "ok"}
    counted, replaced = metric(pair, "lantern_requests_total", **own), metric(pair, REPLACEMENTS)
    os.kill(pids(pair)[1], signal.SIGKILL)
    until(lambda: metric(pair, REPLACEMENTS) == replaced + 1)
    assert metric(pair, "lantern_requests_total", **own) == counted
    with load(port_of(pair), clients=4) as clients:
        until_both_serve(pair)
        until_more(clients, 5)
    assert metric(pair, "lantern_requests_total", **own) == counted + sum(len(each.answers) for each in clients)
    # The version is tried again after 5 s; all may serve it by now, but nobody did before the others.
    answers = [answer for each in clients for answer in each.answers]
    assert_swapped_together(answers, [good, *({answer.version for answer in answers} - {good})])


def test_a_replaced_worker_is_ready_without_what_the_others_never_required(shades: Repository) -> None:
    with process(shades.root, workers=2, reload_interval_s=0.05) as service:
        service.until_ready()
        later = shades.root / "later"
        later.mkdir()
        (later / "CURRENT").write_text("nonsense")
        until(lambda: "later" in service.client.get("/health/ready").json()["models"])
        os.kill(pids(service)[1], signal.SIGKILL)
        until(lambda: metric(service, REPLACEMENTS) == 1)
        until_both_serve(service)


def test_sigterm_under_load_answers_everything_admitted_and_fails_readiness_first(models: Repository) -> None:
    with process(models.root, workers=2, drain_grace_s=2, drain_timeout_s=20) as service:
        service.until_ready()
        with load(port_of(service), clients=6) as clients:
            until_more(clients, 5)
            service.popen.send_signal(signal.SIGTERM)
            until(lambda: service.client.get("/health/ready").json()["status"] == "draining")
            response = service.client.post("/predict", content=png(0), headers=PNG)
            assert response.status_code == 200
            assert service.wait() == 0
        # What was read was answered, and every answer arrived.
        answered = [each["status"] for each in records(service) if each.get("path") == "/predict"]
        arrived = [answer.status for each in clients for answer in each.answers]
        assert sorted(answered) == sorted([*arrived, 200])
        assert {*arrived} <= {200, 503}
        drained = [each["worker"] for each in records(service) if each["message"].startswith("drained")]
        assert sorted(drained) == [1, 2]


def test_a_signal_to_the_whole_group_drains_once_and_a_second_one_exits_at_once(models: Repository) -> None:
    with process(models.root, workers=2, drain_grace_s=3000) as service:
        service.until_ready()
        os.killpg(service.popen.pid, signal.SIGTERM)
        until(lambda: sum("stopping" in line for line in list(service.lines)) == 2)
        assert service.client.get("/health/live").status_code == 200
        os.killpg(service.popen.pid, signal.SIGTERM)
        assert service.wait() == 0


def test_a_signal_while_they_are_being_started_starts_no_more(
    shades: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    begin_to_talk = Child.open

    async def open_and_be_told_to_stop(child: Child) -> None:
        await begin_to_talk(child)
        started.append(child.number)
        if child.number == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.to_thread(child.process.wait)  # Killed, having nothing to answer.

    monkeypatch.setattr(Child, "open", open_and_be_told_to_stop)
    assert Supervisor(Settings(models_dir=shades.root, port=0, workers=2)).run() == 0
    assert started == [1]


def test_one_that_dies_twice_before_any_serves_does_not_end_the_service(shades: Repository) -> None:
    with process(shades.root, module="tests.dying", workers=2) as service:
        until_both_serve(service)
        assert metric(service, REPLACEMENTS) == 2


def run_app(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "app", "--workers", "2", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_port_in_use_ends_it_with_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        finished = run_app("--port", str(taken.getsockname()[1]), "--models-dir", str(tmp_path))
    assert finished.returncode == 3
    (line,) = finished.stderr.splitlines()
    assert "address already in use" in line


def test_workers_that_cannot_start_end_it_with_their_reason_told_once() -> None:
    finished = run_app("--port", "0", "--device", "cuda:99")
    assert finished.returncode == 2
    assert finished.stderr.count("the service did not start: device cuda:99: this machine has") == 1
    assert "Traceback" not in finished.stderr


def test_the_supervisor_stays_light() -> None:
    code = (
        "import sys, app.processes.supervisor; sys.exit(bool({'torch', 'fastapi', 'uvicorn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_workers_do_not_outlive_their_supervisor(pair: Process) -> None:
    """The last one: it ends the service that the others share."""
    left, port = pids(pair), port_of(pair)
    pair.popen.kill()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left.values()))
    with socket.create_server(("127.0.0.1", port)):
        pass
    until(lambda: sum("the supervisor is gone" in line for line in list(pair.lines)) == 2)
