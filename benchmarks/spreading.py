"""How connections are best spread over worker processes: three ways, side by side.

    python -m benchmarks.spreading

reuseport   each process listens by itself on the same port; the kernel picks one by the hash of the addresses
inherited   every process accepts from one listening socket
handed      one process accepts, and hands each connection to the worker with the fewest: what `app` does

A bare ASGI application answers with its process's number, so that nothing hides what the spreading costs. Prints
how CONNECTIONS keep-alive connections lie over two workers in several tries, and what comes of requests over them
(kept) and of requests with a connection for each (alone): how many a second, and how much processor time one takes
of all the server's processes, which other work on the machine disturbs less. Medians of rounds, interleaved.
"""

import argparse
import asyncio
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPResponse
from itertools import count
from pathlib import Path
from typing import NamedTuple

import uvicorn
from starlette.types import Receive, Scope, Send

from app.acceptor import BACKLOG, Acceptor
from app.processes.handover import Giver
from app.processes.reception import Reception
from app.processes.spreading import by_preference
from benchmarks.load import Pattern, load, post

ROOT = Path(__file__).resolve().parent.parent
WAYS = ("reuseport", "inherited", "handed")
CONNECTIONS = 32
WORKERS = 2
# So long after the last connections were closed, all workers know of it.
SETTLE_S = 0.05


def main() -> None:
    """Measure, and print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=8, help="how often the connections are opened anew")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of load, for each figure")
    parser.add_argument("--serve", choices=(*WAYS, "worker"), help=argparse.SUPPRESS)
    parser.add_argument("--descriptor", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        _serve(options.serve, options.descriptor)
        return
    found: dict[str, list[_Round]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way in WAYS:
            found[way].append(_measure(way, options.tries, options.seconds))
    for way, rounds in found.items():
        on_one = sorted(most for each in rounds for most in each.on_one)
        print(f"{way}: of {CONNECTIONS} connections, on the worker that has most: {on_one}")
        for kind in ("kept", "alone"):
            costs: list[_Cost] = [getattr(each, kind) for each in rounds]
            per_s = statistics.median(cost.per_s for cost in costs)
            processor_us = statistics.median(cost.processor_us for cost in costs)
            print(f"  {kind:5} {per_s:6.0f} requests/s, {processor_us:4.0f} us of processor time for each")


class _Cost(NamedTuple):
    per_s: float
    processor_us: float


class _Round(NamedTuple):
    on_one: list[int]
    kept: _Cost
    alone: _Cost


def _measure(way: str, tries: int, seconds: float) -> _Round:
    with _service(way) as (port, pids):

        def cost(headers: dict[str, str]) -> _Cost:
            request = post("/", b"x" * 500, "image/png", headers)
            before_s = _spent_s(pids)
            outcome = load(port, [request], Pattern(connections=CONNECTIONS, seconds=seconds))
            if outcome.broken or outcome.unanswered:
                raise SystemExit(f"{way}: {outcome.broken + outcome.unanswered} requests were not answered")
            return _Cost(outcome.per_s, 1e6 * (_spent_s(pids) - before_s) / outcome.begun)

        return _Round([_most_on_one(port) for _ in range(tries)], cost({}), cost({"Connection": "close"}))


def _spent_s(pids: list[int]) -> float:
    """Processor time that processes and their children have taken."""
    family = [*pids, *(child for pid in pids for child in _children(pid))]
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in family]
    return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _most_on_one(port: int) -> int:
    """Open the connections, ask once on each, and return how many are on the worker that has most."""
    time.sleep(SETTLE_S)
    with ExitStack() as stack:
        connections = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(CONNECTIONS)
        ]
        for connection in connections:
            connection.sendall(post("/", b"", "image/png"))
        workers = Counter(_body(connection) for connection in connections)
    return max(workers.values())


def _body(connection: socket.socket) -> bytes:
    answer = HTTPResponse(connection)
    answer.begin()
    return answer.read()


@contextmanager
def _service(way: str) -> Iterator[tuple[int, list[int]]]:
    """Start the workers; yield the port and the processes started, once each serves."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if way == "reuseport":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", 0))
        if way != "reuseport":
            listener.listen(BACKLOG)
        command = [sys.executable, "-m", "benchmarks.spreading", "--serve", way]
        descriptor = listener.fileno()
        processes = [
            subprocess.Popen(
                [*command, "--descriptor", str(descriptor)],
                cwd=ROOT,
                pass_fds=[descriptor],
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(1 if way == "handed" else WORKERS)
        ]
        try:
            for process in processes:
                _until_it_serves(process)
            yield listener.getsockname()[1], [process.pid for process in processes]
        finally:
            for process in processes:
                process.send_signal(signal.SIGTERM)
                process.communicate()


async def _application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    answer = str(os.getpid()).encode()
    headers = [(b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


def _serve(way: str, descriptor: int) -> None:
    own = socket.socket(fileno=descriptor)
    if way == "handed":
        asyncio.run(_hand_over(own))
    elif way == "worker":
        _work([], own)
    elif way == "inherited":
        _work([own])
    else:
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(own.getsockname())
            _work([listener])


def _work(listeners: list[socket.socket], handed: socket.socket | None = None) -> None:
    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if handed is not None:
                options = {"config": config, "server_state": self.server_state, "app_state": self.lifespan.state}
                self.reception = Reception(handed, options)
            print("serving", flush=True)

    config = uvicorn.Config(_application, lifespan="off", log_level="warning", access_log=False, backlog=BACKLOG)
    Server(config).run(sockets=listeners)


async def _hand_over(listener: socket.socket) -> None:
    """Be the supervisor: start the workers, then accept and hand over until told to stop."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    workers = [_Worker() for _ in range(WORKERS)]
    turns = count(1)

    def place(connection: socket.socket) -> bool:
        for worker in by_preference(workers):
            if worker.giver.give(connection):
                worker.turn = next(turns)
                return True
        return False

    for worker in workers:
        _until_it_serves(worker.process)
        loop.add_reader(worker.giver.fileno(), worker.giver.hear)
    acceptor = Acceptor([listener], place)
    acceptor.resume()
    print("serving", flush=True)
    await stop.wait()
    acceptor.close()
    for worker in workers:
        worker.process.send_signal(signal.SIGTERM)
        worker.process.wait()


def _until_it_serves(process: "subprocess.Popen[str]") -> None:
    if process.stdout is None or not process.stdout.readline():
        raise SystemExit("a server did not start")


class _Worker:
    fit, stalled, turn = True, False, 0

    def __init__(self) -> None:
        own, other = socket.socketpair()
        with other:
            command = [sys.executable, "-m", "benchmarks.spreading", "--serve", "worker"]
            self.process = subprocess.Popen(
                [*command, "--descriptor", str(other.fileno())],
                pass_fds=[other.fileno()],
                stdout=subprocess.PIPE,
                text=True,
            )
        self.giver = Giver(own)

    @property
    def open_connections(self) -> int:
        return self.giver.open_connections


if __name__ == "__main__":
    main()
