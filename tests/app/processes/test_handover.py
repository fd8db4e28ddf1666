"""Connections handed from one end to the other, within one process."""

import asyncio
import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from app.processes.handover import FULL_S, Giver, Taker
from tests.servers import PATIENCE_S

pytestmark = pytest.mark.anyio


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def connect() -> Iterator[Callable[[], tuple[socket.socket, socket.socket]]]:
    """Make a connection; gives the client's end and the accepted one."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

        def make() -> tuple[socket.socket, socket.socket]:
            client = stack.enter_context(socket.create_connection(listener.getsockname(), timeout=PATIENCE_S))
            return client, stack.enter_context(listener.accept()[0])

        yield make


async def until(giver: Giver, condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.001)
            giver.hear()


Connect = Callable[[], tuple[socket.socket, socket.socket]]


async def test_a_connection_goes_over_and_is_counted_until_it_is_over(connect: Connect) -> None:
    clock = Clock()
    own, other = socket.socketpair()
    giver = Giver(own, clock)
    taken: list[socket.socket] = []
    client, accepted = connect()
    assert giver.give(accepted)
    clock.now_s = 3.0
    assert (giver.open_connections, giver.waits_s) == (1, 3.0)
    taker = Taker(other, taken.append)
    await until(giver, lambda: giver.waits_s == 0.0)
    # The giver has none of it any more: the client is told as soon as the taker closes.
    (received,) = taken
    with received:
        received.sendall(b"hello")
        assert client.recv(5) == b"hello"
    assert client.recv(1) == b""
    assert giver.open_connections == 1
    taker.tell_closed()
    await until(giver, lambda: giver.open_connections == 0)
    taker.close()
    assert not giver.hear()
    assert giver.close() == []


async def test_what_was_not_taken_can_be_given_to_another(connect: Connect) -> None:
    own, other = socket.socketpair()
    giver = Giver(own)
    client, accepted = connect()
    client.sendall(b"asked")
    assert giver.give(accepted)
    other.close()  # It died.
    assert not giver.hear()
    (left,) = giver.close()
    assert left.recv(5) == b"asked"


@contextmanager
def no_descriptor_free() -> Iterator[None]:
    """Let this process open no file, as one that has as many open as it may."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_one_without_a_descriptor_to_spare_refuses_and_what_it_refused_is_whole(connect: Connect) -> None:
    clock = Clock()
    own, other = socket.socketpair()
    giver = Giver(own, clock)
    taken: list[socket.socket] = []
    client, accepted = connect()
    client.sendall(b"asked")
    taker = Taker(other, taken.append)
    with no_descriptor_free():
        assert giver.give(accepted)
        await until(giver, lambda: giver.waits_s == 0.0 and giver.open_connections == 0)
    assert taken == []
    (refused,) = giver.take_back()
    assert giver.take_back() == []
    full = [giver.full]
    clock.now_s = FULL_S
    assert [*full, giver.full] == [True, False]
    assert giver.give(refused)
    await until(giver, lambda: len(taken) == 1)
    assert taken[0].recv(5) == b"asked"
    taken[0].close()
    taker.close()
    assert giver.close() == []


async def test_nothing_is_given_to_one_that_is_gone_or_takes_nothing(connect: Connect) -> None:
    own, other = socket.socketpair()
    giver = Giver(own)
    _, accepted = connect()
    copies = [accepted.dup()]
    while giver.give(copies[-1]):
        copies.append(accepted.dup())
    assert giver.open_connections == len(copies) - 1 > 10
    assert giver.close() == copies[:-1]
    for each in copies:
        each.close()
    own, gone = socket.socketpair()
    gone.close()
    giver = Giver(own)
    assert not giver.give(accepted)
    assert giver.close() == []
    other.close()
