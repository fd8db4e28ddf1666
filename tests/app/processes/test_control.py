import asyncio
import socket
from collections.abc import Iterator

import pytest

from app.processes.control import LENGTH, MOST_BYTES, Channel, ChannelBroken, Message, cut, frame, receive
from tests.servers import PATIENCE_S

pytestmark = pytest.mark.anyio


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def test_messages_are_cut_out_wherever_the_bytes_are_divided() -> None:
    messages: list[Message] = [{"kind": "a", "text": "ü" * 300}, {"kind": "b"}]
    received = bytearray()
    found: list[Message] = []
    for byte in b"".join(map(frame, messages)):
        received.append(byte)
        found += cut(received)
    assert found == messages
    assert not received


@pytest.mark.parametrize(
    "content", [LENGTH.pack(MOST_BYTES + 1), LENGTH.pack(1) + b"x", LENGTH.pack(2) + b"[]", LENGTH.pack(2) + b"{}"]
)
def test_what_is_no_message_is_told(content: bytes) -> None:
    with pytest.raises(ChannelBroken):
        cut(bytearray(content))


def test_a_message_can_be_waited_for_without_a_loop(pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    one.sendall(frame({"kind": "start"}) + frame({"kind": "next"}))
    assert receive(other) == {"kind": "start"}
    assert receive(other) == {"kind": "next"}
    one.close()
    with pytest.raises(ChannelBroken):
        receive(other)


async def test_what_is_said_before_it_is_open_comes_first_and_the_end_is_told(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    heard: asyncio.Queue[Message] = asyncio.Queue()
    ended = asyncio.Event()
    one = Channel(heard.put_nowait, lambda: None)
    other = Channel(heard.put_nowait, ended.set)
    one.say("first")
    for channel, sock in zip((one, other), pair, strict=True):
        await channel.open(sock)
    one.say("second", number=2)
    async with asyncio.timeout(PATIENCE_S):
        assert [await heard.get() for _ in range(2)] == [{"kind": "first"}, {"kind": "second", "number": 2}]
        one.close()
        await ended.wait()
    other.close()


async def test_an_end_that_talks_nonsense_is_cut_off(pair: tuple[socket.socket, socket.socket]) -> None:
    ended = asyncio.Event()
    channel = Channel(lambda _message: None, ended.set)
    await channel.open(pair[1])
    pair[0].sendall(LENGTH.pack(3) + b"xyz")
    async with asyncio.timeout(PATIENCE_S):
        await ended.wait()
