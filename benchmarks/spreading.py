"""How connections are best spread over worker processes: three ways, side by side.

    python -m benchmarks.spreading

reuseport   each process listens by itself on the same port; the kernel picks one by the hash of the addresses
inherited   every process accepts from one listening socket
handed      one process accepts, and hands each connection to the worker with the fewest: what `app` does

A bare ASGI application answers with its process's number, so that nothing hides what the spreading costs. Prints
how CONNECTIONS keep-alive connections lie over two workers in several tries, the requests a second over them, and
the requests a second of clients that open a connection for each; medians of rounds, interleaved.
"""

import argparse
import asyncio
import os
import signal
import socket
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPResponse
from itertools import count

import uvicorn
from starlette.types import Receive, Scope, Send

from app.acceptor import BACKLOG, Acceptor
from app.handover import Giver
from app.reception import Reception
from app.spreading import by_preference
from benchmarks.load import Pattern, load, post
from benchmarks.workloads import ROOT

WAYS = ("reuseport", "inherited", "handed")
CONNECTIONS = 32
WORKERS = 2


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
    kept = post("/", b"x" * 500, "image/png")
    alone = post("/", b"x" * 500, "image/png", {"Connection": "close"})
    most: dict[str, list[int]] = {way: [] for way in WAYS}
    per_s: dict[tuple[str, str], list[float]] = {}
    for _ in range(options.rounds):
        for way in WAYS:
            with _service(way) as port:
                most[way] += [_most_on_one(port) for _ in range(options.tries)]
                for kind, request in (("kept", kept), ("alone", alone)):
                    pattern = Pattern(connections=CONNECTIONS, seconds=options.seconds, warmup_s=0.5)
                    outcome = load(port, [request], pattern)
                    if outcome.broken or outcome.unanswered:
                        raise SystemExit(
                            f"{way}: {outcome.broken + outcome.unanswered} requests were not answered"
                        )
                    per_s.setdefault((way, kind), []).append(outcome.per_s)
    for way in WAYS:
        kept_per_s, alone_per_s = (statistics.median(per_s[way, kind]) for kind in ("kept", "alone"))
        print(
            f"{way:9}  {kept_per_s:6.0f} requests/s over {CONNECTIONS} connections, {alone_per_s:6.0f} one each; "
            f"of {CONNECTIONS} connections on one worker: {sorted(most[way])}"
        )


def _most_on_one(port: int) -> int:
    """Open the connections, ask once on each, and return how many are on the worker that has most."""
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
def _service(way: str) -> Iterator[int]:
    """Start the workers; yield the port once each has answered."""
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
            yield listener.getsockname()[1]
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
                self.reception = Reception(self, handed)
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
