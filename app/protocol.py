"""uvicorn's HTTP protocol, and what ASGI has no word for: when a request came, and that its client left.

ASGI tells of a client that leaves only whoever waits to receive: that takes a task beside each request.

Anyone may open a connection, and so it is bounded what one takes: in time while nothing is owed to its client or
its client takes nothing, and in memory always. A request's body has its own bounds, where it is received.
"""

import asyncio
import fcntl
import socket
import struct
import sys
import termios
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.gate import Gate, Queue

# Of a request line and its headers, and of whatever else is no body. Proxies and servers allow 8 to 64 KiB.
MOST_HEAD_BYTES = 65_536
# With those behind a body; each takes many times its bytes.
MOST_HEADERS = 200
# From a connection's beginning, or a request's first byte, to the end of its headers.
HEAD_WITHIN_S = 10.0
# For what is left of a body that was answered already, a large one that was refused among them.
REST_WITHIN_S = 30.0
# Between one byte of the answers that a client takes and the next.
TAKEN_WITHIN_S = 30.0
# Requests that a client sends before it has the answers of those before.
MOST_AHEAD = 32

TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large",
    f"the request line and headers are over {MOST_HEAD_BYTES} bytes; send less",
)
TOO_MANY = (
    b"HTTP/1.1 431 Request Header Fields Too Large",
    f"the request has over {MOST_HEADERS} headers; send fewer",
)
TOO_SLOW = (b"HTTP/1.1 408 Request Timeout", f"the headers did not come within {HEAD_WITHIN_S:g} s")


class Connection(Protocol):
    """What a request finds in its state, under `connection`."""

    def when_lost(self, tell: Callable[[], None]) -> None:
        """Have it told, on the event loop, when the client goes away before this request's answer is written."""
        ...


class RequestProtocol(HttpToolsProtocol):
    """Puts into each request's state `received_s`, on the monotonic clock, its `connection`, and its `place`.

    Args:
        gate: Lets requests in or not; None lets in all.
        options: uvicorn's own.
    """

    def __init__(self, gate: Gate | None = None, **options: Any) -> None:  # noqa: ANN401 (uvicorn's own)
        super().__init__(**options)
        self._gate = gate
        # Since when the headers of a request are waited for, and since when something comes that is none.
        self._head_since_s: float | None = None
        self._rest_since_s: float | None = None
        self._in_head = False
        # Bytes since the last that was of use, and whether the last that came were.
        self._useless_bytes = 0
        self._useful = False
        # How much of the answers is not taken, and since when not a byte was.
        self._untaken_bytes = 0
        self._untaken_since_s = 0.0
        # Whose answer is being made.
        self._answered: RequestResponseCycle | None = None
        self._tell_lost: Callable[[], None] | None = None

    def when_lost(self, tell: Callable[[], None]) -> None:
        """See `Connection`."""
        self._tell_lost = tell
        # uvicorn stops to read where a body is large, and what it does not read it does not see ending. Where the
        # next request is here already it stays so: others would come behind it.
        if not self.pipeline:
            self.flow.resume_reading()
        if self.transport.is_closing():
            tell()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        super().connection_made(cast(asyncio.Transport, transport))
        self._head_since_s = self._untaken_since_s = time.monotonic()

    def data_received(self, data: bytes) -> None:
        """Read; of what is no body only up to a limit, which the parser does not set."""
        self._useful = False
        super().data_received(data)
        if self._head_since_s is None and self._rest_since_s is None and self._is_all_answered():
            self._rest_since_s = time.monotonic()
        self._useless_bytes = 0 if self._useful else self._useless_bytes + len(data)
        if self._useless_bytes > MOST_HEAD_BYTES:
            self._end_with(*TOO_LARGE)
        elif self.headers is not None and len(self.headers) > MOST_HEADERS:
            self._end_with(*TOO_MANY)

    def _is_all_answered(self) -> bool:
        # There is none yet where the first one's path was no path.
        return self.cycle is None or self.cycle.response_complete

    def resume_writing(self) -> None:
        """Write more: so much was taken."""
        super().resume_writing()
        self._untaken_since_s = time.monotonic()

    def on_message_begin(self) -> None:
        """Begin to read a request's headers."""
        super().on_message_begin()
        # Of thousands that come in one piece no more are kept than tell that they are too many.
        bounded = deque[tuple[bytes, bytes]](maxlen=MOST_HEADERS + 1)
        self.headers = self.scope["headers"] = cast(list[tuple[bytes, bytes]], bounded)
        if self._head_since_s is None:
            self._head_since_s = time.monotonic()
        self._rest_since_s = None
        # Of the bytes that a head began in, most may be of the request before.
        self._in_head = self._useful = True

    def on_body(self, body: bytes) -> None:
        """Take a part of a request's body."""
        self._useful = True
        super().on_body(body)

    def end_if_slow(self, now_s: float) -> None:
        """End the connection if its client takes too long to send what is no body, or to take an answer.

        Args:
            now_s: On the monotonic clock.
        """
        if self._is_untaken(now_s):
            self._abort()
        elif _is_over(self._rest_since_s, REST_WITHIN_S, now_s):
            self.transport.close()
        elif _is_over(self._head_since_s, HEAD_WITHIN_S, now_s):
            if self._in_head:
                self._end_with(*TOO_SLOW)
            else:  # Who has asked nothing is told nothing, and may be about to ask.
                self.transport.close()

    def _is_untaken(self, now_s: float) -> bool:
        untaken_bytes = self.transport.get_write_buffer_size()
        if untaken_bytes:
            untaken_bytes += _unacknowledged_bytes(self.transport)
        if not untaken_bytes or untaken_bytes < self._untaken_bytes:
            self._untaken_since_s = now_s
        self._untaken_bytes = untaken_bytes
        return untaken_bytes > 0 and now_s - self._untaken_since_s > TAKEN_WITHIN_S

    def _abort(self) -> None:
        # Or the system would keep for minutes what it could not send.
        own = self.transport.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _end_with(self, status_line: bytes, why: str) -> None:
        if self.transport.is_closing():
            return
        if not self._is_all_answered():
            # It sent this before it had its last answer, which nothing can be written into.
            self.transport.abort()
            return
        body = why.encode()
        head = b"content-type: text/plain\r\ncontent-length: %d\r\nconnection: close\r\n" % len(body)
        self.transport.write(b"\r\n".join([status_line, *self._default_headers(), head, body]))
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        super().connection_lost(exc)
        # uvicorn knows the last request that came; what it writes of another's answer fails.
        if self._answered is not None:
            self._answered.disconnected = True
        if self._tell_lost is not None:
            self._tell_lost()

    def on_headers_complete(self) -> None:
        """Begin a request, or refuse it."""
        self._head_since_s, self._in_head, self._useful = None, False, True
        state = self.scope["state"]
        state["connection"] = self
        # One that its client sent before it had its last answer waits for that: the server keeps nobody waiting.
        if not self._is_all_answered():
            if len(self.pipeline) < MOST_AHEAD:
                super().on_headers_complete()
            elif not self.transport.is_closing():
                self._abort()
            return
        if len(self.headers) > MOST_HEADERS:
            self._end_with(*TOO_MANY)
            self.cycle = cast(RequestResponseCycle, ANSWERED)
            return
        state["received_s"], state["url"] = time.monotonic(), self.url
        gate = self._gate if self.parser.get_method() == b"POST" else None
        if gate is not None and (queue := gate.too_long(self.url, self.headers, state["received_s"])):
            self._refuse(gate, queue)
            return
        super().on_headers_complete()
        self._answered = self.cycle
        # It fails for a path that is none: who is not looked at must not be counted.
        if gate is not None:
            state["place"] = gate.enter()

    def on_response_complete(self) -> None:
        """End a request: there is nobody to tell any more."""
        self._tell_lost = None
        self._answered = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()

    def _default_headers(self) -> list[bytes]:
        return [b"%s: %s" % named for named in self.server_state.default_headers]

    def _refuse(self, gate: Gate, queue: Queue) -> None:
        keeps = self.parser.should_keep_alive()
        head, body = gate.refusal(queue, self.url.decode("latin-1"), self.headers)
        lines = [b"HTTP/1.1 503 Service Unavailable", *self._default_headers()]
        lines.append(head + (b"\r\n" if keeps else b"connection: close\r\n\r\n") + body)
        self.transport.write(b"\r\n".join(lines))
        # What is left of its body is read, and dropped.
        self.cycle = cast(RequestResponseCycle, ANSWERED)
        if not keeps:
            self.transport.close()
        self.on_response_complete()


def _unacknowledged_bytes(transport: asyncio.Transport) -> int:
    """What the system has sent and would send again, or has yet to send: megabytes, to a client that is fast."""
    descriptor = transport.get_extra_info("socket").fileno()
    try:
        return int.from_bytes(fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except OSError:  # It has no such figure of a socket.
        return 0


def _is_over(since_s: float | None, within_s: float, now_s: float) -> bool:
    return since_s is not None and now_s - since_s > within_s


class _Answered:
    """As much of uvicorn's cycle as its protocol looks at after the answer."""

    response_complete = True
    message_event = asyncio.Event()


ANSWERED = _Answered()
