"""The load client against servers whose behaviour is known to the byte and to the millisecond."""

import asyncio
import resource
import shutil
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import cycle

import pytest

from benchmarks.load import Outcome, Pattern, allow_connections, load, post

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="the load client needs a C compiler")

BODY = b"x" * 5000
ASK = post("/predict", BODY, "image/jpeg", {"X-Request-Timeout-Ms": "500"})
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BUSY = b'HTTP/1.1 503 Busy\r\nContent-Length: 4\r\nRetry-After: 1\r\n\r\n"no"'
LATE = b'HTTP/1.1 504 Late\r\nContent-Length: 4\r\n\r\n"no"'
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n0A\r\nkkkkkkkkkk\r\n0\r\n\r\n"
LAST = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
UNSIZED = b"HTTP/1.1 200 OK\r\n\r\nok"

Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[bool]]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextmanager
def answering(answer: Answer) -> Iterator[int]:
    """Serve in a thread: `answer` gets each request's head, and says whether the connection is kept."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept = True
        while kept:
            head = await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(len(BODY)) == BODY
            kept = await answer(head, writer)
            await writer.drain()
        writer.close()

    with serving(serve) as port:
        yield port


@contextmanager
def serving(serve: Serve) -> Iterator[int]:
    """Give each connection to `serve`, in a thread, until one of the two ends."""

    open_now: set[asyncio.StreamWriter] = set()

    async def served(accepted: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=accepted)
        open_now.add(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            if not running[0][2].is_set():
                await serve(reader, writer)
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()
        open_now.discard(writer)

    ready = threading.Event()
    running: list[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def main(listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        # By hand: asyncio.Server, when closed, leaves open what it has accepted but not begun to serve.
        listener.setblocking(False)
        begun: set[asyncio.Task[None]] = set()
        loop.add_reader(listener, lambda: begun.add(asyncio.create_task(served(listener.accept()[0]))))
        running.append((listener.getsockname()[1], loop, asyncio.Event()))
        ready.set()
        await running[0][2].wait()
        loop.remove_reader(listener)
        # None is cancelled: one that has not begun would leave its connection open too.
        while waiting := {task for task in begun if not task.done()}:
            for writer in open_now:
                writer.transport.abort()
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.gather(*begun)

    def run() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
            asyncio.run(main(listener))

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(10)
    port, loop, stop = running[0]
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


def in_turn(*replies: bytes, kept: bool = True) -> Answer:
    coming = cycle(replies)

    async def answer(_head: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(next(coming))
        return kept

    return answer


def ask(answer: Answer, **pattern: float) -> Outcome:
    with answering(answer) as port:
        return load(port, [ASK], Pattern.model_validate({"connections": 4, "seconds": 0.3, **pattern}))


@pytest.mark.parametrize(
    ("reply", "kept", "text"),
    [
        (GOOD, True, "ok"),
        (CHUNKED, True, "o\r\nkkkkkkkkkk\r\n"),
        (LAST, False, "ok"),
        (UNSIZED, False, "ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + GOOD, True, "ok"),
    ],
)
def test_every_shape_of_answer_is_read(reply: bytes, kept: bool, text: str) -> None:
    outcome = ask(in_turn(reply, kept=kept))

    assert outcome.accepted_ms.count > 10
    assert (outcome.statuses, outcome.broken) == ({200: outcome.accepted_ms.count}, 0)
    assert outcome.samples == {200: text}
    assert (outcome.connects == 4) == kept


def test_refusals_are_counted_apart() -> None:
    outcome = ask(in_turn(GOOD, BUSY), connections=1)

    assert abs(outcome.statuses[200] - outcome.statuses[503]) <= 1
    assert outcome.refused == outcome.statuses[503]
    assert outcome.in_time == outcome.statuses[200]


def test_refusals_that_say_when_to_try_again_are_counted() -> None:
    silent, at_once = BUSY.replace(b"Retry-After: 1\r\n", b""), BUSY.replace(b"After: 1", b"After: 0")
    outcome = ask(in_turn(BUSY, silent, at_once), connections=1)

    assert outcome.advised > 1
    assert abs(outcome.advised - outcome.statuses[503] / 3) <= 1


def test_errors_are_no_refusals() -> None:
    outcome = ask(in_turn(BUSY, LATE), connections=1)

    assert (outcome.refused, outcome.failed) == (outcome.statuses[503], outcome.statuses[504])
    assert outcome.refused_ms.count == outcome.refused
    assert outcome.accepted_ms.count == 0


def test_a_connection_is_not_used_again_when_its_request_was_not_taken_whole() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(BUSY)
        # Whatever comes still belongs to that request.
        while await reader.read(1 << 20):
            pass

    with serving(refuse) as port:
        large = post("/predict", b"x" * 50_000_000, "image/jpeg")
        outcome = load(port, [large], Pattern(connections=1, seconds=1))

    assert outcome.statuses[503] > 1
    assert outcome.broken == 0
    # The last may come too late for another.
    assert outcome.connects - outcome.statuses[503] in (0, 1)


def test_a_request_goes_on_after_the_server_said_continue() -> None:
    large = 20_000_000

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await reader.readexactly(large)
            writer.write(GOOD)

    with serving(take) as port:
        outcome = load(port, [post("/predict", b"x" * large, "image/jpeg")], Pattern(connections=1, seconds=1))

    assert outcome.statuses[200] > 1
    assert (outcome.broken, outcome.connects) == (0, 1)


def test_files_are_allowed_for_as_many_connections_as_an_open_loop_may_have() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
        most = allow_connections()

        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > most
        assert most == 24_000 or before[1] < 24_500
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_lost_connection_is_told() -> None:
    async def answer(_head: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.transport.abort()
        return False

    outcome = ask(answer)

    assert outcome.broken > 0
    assert outcome.statuses == {}


def test_an_idle_connection_that_the_server_closed_costs_no_request() -> None:
    outcome = ask(in_turn(GOOD, kept=False), connections=2)

    assert outcome.broken == 0
    assert outcome.statuses[200] > 10


def test_latency_is_the_servers() -> None:
    async def answer(_head: bytes, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(0.05)
        writer.write(GOOD)
        return True

    outcome = ask(answer, connections=1, seconds=1)

    assert outcome.accepted_ms.p50 is not None
    # Above, it is the machine's; it may be busy with something else.
    assert 50 <= outcome.accepted_ms.p50 < 150
    assert 6 <= outcome.statuses[200] <= 20


def test_the_warm_up_is_not_counted() -> None:
    begun = 0

    async def answer(_head: bytes, writer: asyncio.StreamWriter) -> bool:
        nonlocal begun
        begun += 1
        await asyncio.sleep(0.01)
        writer.write(GOOD)
        return True

    outcome = ask(answer, connections=1, seconds=0.4, warmup_s=0.4)

    assert outcome.statuses[200] < 0.75 * begun


def test_an_open_loop_keeps_its_rate_whatever_the_server_does() -> None:
    outcome = ask(in_turn(GOOD), connections=64, seconds=1, rate=500)

    assert outcome.begun == outcome.accepted_ms.count == outcome.in_time
    # A Poisson count of mean 500: five standard deviations are 112.
    assert abs(outcome.begun - 500) < 112


def test_an_open_loop_is_a_matter_of_its_seed() -> None:
    counts = [ask(in_turn(GOOD), connections=64, rate=300, seed=seed).begun for seed in (1, 1, 2, 3, 4)]

    assert counts[0] == counts[1]
    assert len(set(counts)) > 1


def test_a_stall_is_charged_to_every_request_that_was_to_start_in_it() -> None:
    stalled = False

    async def answer(_head: bytes, writer: asyncio.StreamWriter) -> bool:
        nonlocal stalled
        if not stalled:
            stalled = True
            await asyncio.sleep(0.5)
        writer.write(GOOD)
        return True

    # One connection only: what comes during the stall waits for it, and none of it is left out.
    outcome = ask(answer, connections=1, seconds=1, rate=200, deadline_ms=100)

    assert outcome.accepted_ms.count == outcome.begun
    assert outcome.accepted_ms.max is not None
    assert outcome.accepted_ms.max >= 500
    assert outcome.in_time < 0.75 * outcome.accepted_ms.count
    # And that they waited for it is told, for it is the client that held them back.
    assert outcome.begun_late_ms.count == outcome.begun
    assert outcome.begun_late_ms.max is not None
    assert outcome.begun_late_ms.max > 300


def test_with_enough_connections_a_late_server_is_asked_in_time() -> None:
    async def answer(_head: bytes, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(0.5)
        writer.write(GOOD)
        return True

    outcome = ask(answer, connections=500, seconds=1, rate=200, deadline_ms=100)

    assert (outcome.in_time, outcome.accepted_ms.count) == (0, outcome.begun)
    assert outcome.begun_late_ms.p90 is not None
    assert outcome.begun_late_ms.p90 < 100


def test_what_is_never_answered_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.load.PATIENCE_S", 0.2)
    never = asyncio.Event()

    async def answer(_head: bytes, _writer: asyncio.StreamWriter) -> bool:
        try:
            await asyncio.wait_for(never.wait(), 1)
        except TimeoutError:
            return False
        return True

    outcome = ask(answer, connections=32, rate=50)

    assert outcome.statuses == {}
    assert outcome.unanswered == outcome.begun > 0
