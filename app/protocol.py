"""uvicorn's HTTP protocol, and what ASGI has no word for: when a request came, and that its client left.

ASGI tells of a client that leaves only whoever waits to receive: that takes a task beside each request.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.gate import Gate

# Of a request line and its headers. Proxies and servers allow 8 to 64 KiB.
MOST_HEAD_BYTES = 65_536
# From a connection's beginning, or a request's first byte, to the end of its headers.
HEAD_WITHIN_S = 10.0

TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large",
    f"the request line and headers are over {MOST_HEAD_BYTES} bytes; send less",
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
        # Since when the headers of a request are waited for, and how much of them came before what came last.
        self._head_since_s: float | None = None
        self._head_bytes = 0
        self._in_head = self._head_began = False
        self._tell_lost: Callable[[], None] | None = None

    def when_lost(self, tell: Callable[[], None]) -> None:
        """See `Connection`."""
        self._tell_lost = tell
        # uvicorn stops to read where a body is large, and what it does not read it does not see ending.
        self.flow.resume_reading()
        if self.transport.is_closing():
            tell()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        super().connection_made(cast(asyncio.Transport, transport))
        self._head_since_s = time.monotonic()

    def data_received(self, data: bytes) -> None:
        """Read; headers only up to a limit, which the parser does not set."""
        super().data_received(data)
        if self._head_since_s is None:
            return
        # Of the bytes that a head began in, most may be of the request before.
        self._head_bytes = 0 if self._head_began else self._head_bytes + len(data)
        self._head_began = False
        if self._head_bytes > MOST_HEAD_BYTES:
            self._end_with(*TOO_LARGE)

    def on_message_begin(self) -> None:
        """Begin to read a request's headers."""
        super().on_message_begin()
        if self._head_since_s is None:
            self._head_since_s = time.monotonic()
        self._in_head = self._head_began = True

    def end_if_slow(self, now_s: float) -> None:
        """End the connection if its client takes too long to send a request's headers.

        Args:
            now_s: On the monotonic clock.
        """
        if self._head_since_s is None or now_s - self._head_since_s <= HEAD_WITHIN_S:
            return
        if self._in_head:
            self._end_with(*TOO_SLOW)
        else:  # Who has asked nothing is told nothing, and may be about to ask.
            self.transport.close()

    def _end_with(self, status_line: bytes, why: str) -> None:
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
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
        if self._tell_lost is not None:
            self._tell_lost()

    def on_headers_complete(self) -> None:
        """Begin a request, or refuse it."""
        self._head_since_s, self._in_head = None, False
        state = self.scope["state"]
        state["connection"] = self
        # One that its client sent before it had its last answer waits for that: the server keeps nobody waiting.
        if self.cycle is not None and not self.cycle.response_complete:
            super().on_headers_complete()
            return
        state["received_s"] = time.monotonic()
        gate = self._gate if self.parser.get_method() == b"POST" else None
        if gate is not None and not gate.lets_in(self.headers):
            self._refuse(gate)
            return
        super().on_headers_complete()
        # It fails for a path that is none: who is not looked at must not be counted.
        if gate is not None:
            state["place"] = gate.enter()

    def on_response_complete(self) -> None:
        """End a request: there is nobody to tell any more."""
        self._tell_lost = None
        super().on_response_complete()

    def _default_headers(self) -> list[bytes]:
        return [b"%s: %s" % named for named in self.server_state.default_headers]

    def _refuse(self, gate: Gate) -> None:
        keeps = self.parser.should_keep_alive()
        head, body = gate.refusal(self.url.decode("latin-1"), self.headers)
        lines = [b"HTTP/1.1 503 Service Unavailable", *self._default_headers()]
        lines.append(head + (b"\r\n" if keeps else b"connection: close\r\n\r\n") + body)
        self.transport.write(b"\r\n".join(lines))
        # What is left of its body is read, and dropped.
        self.cycle = cast(RequestResponseCycle, ANSWERED)
        if not keeps:
            self.transport.close()
        self.on_response_complete()


class _Answered:
    """As much of uvicorn's cycle as its protocol looks at after the answer."""

    response_complete = True
    message_event = asyncio.Event()


ANSWERED = _Answered()
