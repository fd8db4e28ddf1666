"""What the supervisor and a worker process say to each other: JSON objects over a pair of Unix sockets.

Each is preceded by its length in bytes, as four of them, and has a `kind`:

    supervisor -> worker
      start     number, settings, served, required      the first one; model -> what the others serve, and the
                                               models without which they are not ready; null: not known yet
      service   ready, body                    the readiness of the whole service; body: of who is not ready
      go        model, version, manifest_sha256      serve it: everyone can, or was waited for
      refuse    model, version, manifest_sha256, error, detail      let it go: another worker refused it
      look      model                          another worker process changed what is said of it
      figures                                  send yours
      others    request, figures               the answer to `others`: a list, of each, and of those that ended
      move      count                          have so many connections opened elsewhere
      leave     grace_s                        fail readiness, serve on for the grace, refuse, drain, exit

    worker -> supervisor
      failed    detail                         it cannot start, for this reason
      serving                                  connections may come
      state     ready, body                    its own readiness, as /health/ready would tell it
      require   models                         without these it is not ready
      stand     model, version, manifest_sha256     it could serve this, the current version, from now on
      refuse    model, version, manifest_sha256, error, detail
      look      model                          it changed what is said of it; passed on to the others
      let_go    model, version, manifest_sha256     the answer to `refuse`: what it said before of it is void
      figures   asked, figures                 what it measured; of itself, or because it was asked
      alive                                    said when there is nothing else to report
      others    request, figures               what all others measured is wanted, and this is the worker's own

Either end of the channel that closes has ended, however it ended.
"""

import asyncio
import json
import logging
import socket
import struct
from collections.abc import Callable
from typing import Any, cast

logger = logging.getLogger(__name__)

Message = dict[str, Any]

LENGTH = struct.Struct(">I")
# What a worker process measured since its last report is lost when it is killed.
REPORT_EVERY_S = 1.0
# Far more than the figures of many models take; a length beyond it is none.
MOST_BYTES = 64 * 1024**2


class ChannelBroken(Exception):
    """The other end closed the channel, or said what cannot be read."""


class Channel(asyncio.Protocol):
    """One end, on the event loop. What is said before it is open is kept.

    Args:
        on_message: Told of each message.
        on_end: Told once, when the other end is gone.
    """

    def __init__(self, on_message: Callable[[Message], None], on_end: Callable[[], None]) -> None:
        self._on_message = on_message
        self._on_end = on_end
        self._received = bytearray()
        self._unsent: list[bytes] = []
        self._transport: asyncio.Transport | None = None

    async def open(self, sock: socket.socket) -> None:
        """Begin to listen and to talk."""
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=sock)

    def say(self, kind: str, **fields: object) -> None:
        """Send a message; it is lost if the other end is gone."""
        framed = frame({"kind": kind, **fields})
        if self._transport is None:
            self._unsent.append(framed)
        else:
            self._transport.write(framed)

    def close(self) -> None:
        """Say no more."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send what was said before."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._transport.writelines(self._unsent)
        self._unsent.clear()

    def data_received(self, data: bytes) -> None:
        """Pass on the messages that are whole."""
        self._received += data
        try:
            for message in cut(self._received):
                self._on_message(message)
        except ChannelBroken:
            logger.exception("the channel is closed")
            self.close()

    def connection_lost(self, _error: Exception | None) -> None:
        """Tell that the other end is gone."""
        self._on_end()


def frame(message: Message) -> bytes:
    """Write a message as it goes over the channel."""
    text = json.dumps(message).encode()
    return LENGTH.pack(len(text)) + text


def cut(received: bytearray) -> list[Message]:
    """Take the messages that are whole out of what was received.

    Raises:
        ChannelBroken: It begins with none.
    """
    messages = []
    while len(received) >= LENGTH.size:
        (size,) = LENGTH.unpack_from(received)
        if size > MOST_BYTES:
            raise ChannelBroken(f"a message of {size} bytes")
        end = LENGTH.size + size
        if len(received) < end:
            break
        messages.append(_parse(bytes(received[LENGTH.size : end])))
        del received[:end]
    return messages


def receive(sock: socket.socket) -> Message:
    """Wait for one message, on a socket that blocks.

    Raises:
        ChannelBroken: The other end is gone.
    """
    (size,) = LENGTH.unpack(_receive_bytes(sock, LENGTH.size))
    return _parse(_receive_bytes(sock, size))


def _receive_bytes(sock: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        more = sock.recv(count - len(found))
        if not more:
            raise ChannelBroken("the other end is gone")
        found += more
    return found


def _parse(text: bytes) -> Message:
    try:
        message = json.loads(text)
    except ValueError as error:
        raise ChannelBroken(f"no JSON: {error}") from None
    if not isinstance(message, dict) or "kind" not in message:
        raise ChannelBroken("no message")
    return message
