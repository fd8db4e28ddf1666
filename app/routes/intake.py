"""A request's body, received within its limits of time and memory; and what cuts off whoever works on it."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from fastapi import Request

from app.buffering import Loan
from app.content_encoding import Inflater, inflater
from app.cutoff import Cutoff
from app.deadline import Deadline
from app.errors import BodyTooLarge, ClientDisconnected, DeadlineExceeded, InvalidRequest
from app.headers import asked_timeout_s, header
from app.protocol import Connection
from app.service import Service

# What is larger is parsed or written on a thread: JSON and forms of megabytes would hold up the event loop.
WORK_INLINE_BYTES = 65_536

Result = TypeVar("Result")


@contextmanager
def intake(request: Request, service: Service) -> Iterator["Intake"]:
    """Give a request its deadline and its part of the memory; both end with the `with`.

    Raises:
        InvalidRequest: It asks for a time that is none.
        DeadlineExceeded: Its time ran out before its body was here.
        ClientDisconnected: Nobody is left to answer.
    """
    received_s: float = request.scope["state"]["received_s"]
    deadline_s = received_s + _timeout_s(request, service.settings.request_timeout_s)
    with (
        service.budget.lend() as loan,
        Cutoff() as cutoff,
        Deadline(deadline_s, partial(cutoff.cut, _body_came_late)) as deadline,
    ):
        yield Intake(request, service.settings.max_body_bytes, service.pool, loan, cutoff, deadline)


@dataclass(frozen=True)
class Intake:
    """One request that is taken in.

    Attributes:
        pool: Of threads, for what would hold up the event loop.
        loan: The memory that is its.
        deadline: When its time is up.
    """

    request: Request
    max_body_bytes: int
    pool: Executor
    loan: Loan
    cutoff: Cutoff
    deadline: Deadline

    async def body(self) -> bytes:
        """Receive the whole body, unpacked; from then on a client that goes away cuts off its request.

        Raises:
            BodyTooLarge: It is over the limit.
            Overloaded: There is no memory for it now.
            UnsupportedMediaType, InvalidRequest: It is not encoded as it should be.
        """
        encoding = header(self.request.scope, b"content-encoding")
        unpacking = None if encoding is None else inflater(encoding)
        body = await self._receive()
        if unpacking is not None:
            body = await self._unpack(body, unpacking)
        connection: Connection | None = self.request.scope["state"].get("connection")
        if connection is not None:
            # Its items are cancelled then, and cost nothing more.
            connection.when_lost(partial(self.cutoff.cut, ClientDisconnected))
        return body

    async def work(self, size_bytes: int, job: Callable[[], Result]) -> Result:
        """Do a part of the request's work right here, or if there is much of it on a thread.

        Args:
            size_bytes: Of what it is done to, about.
            job: The work.
        """
        return job() if size_bytes <= WORK_INLINE_BYTES else await self.on_thread(job)

    async def on_thread(self, job: Callable[[], Result], pool: Executor | None = None) -> Result:
        """Do a part of the request's work on a thread.

        Args:
            job: The work.
            pool: Another than the one that all requests share, for what may wait for others.
        """
        work = (pool or self.pool).submit(job)
        # No thread can be cut off: what it works on is held until it ends. Work that has not begun never does.
        self.loan.keep_until(work)
        try:
            return await asyncio.wrap_future(work)
        finally:
            # A failure knows this frame, which would know the work, which knows its failure.
            del work

    async def _receive(self) -> bytes:
        # The HTTP parser has seen to it that the header is a number; Python reads none of over 4,300 digits.
        if int((header(self.request.scope, b"content-length") or "").lstrip("0") or 0) > self.max_body_bytes:
            raise self._too_large()
        body: bytes | bytearray = b""
        more = True
        while more:
            message = await self.request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnected
            more = message.get("more_body", False)
            body = self._append(body, message.get("body", b""))
        return bytes(body)

    async def _unpack(self, packed: bytes, unpacking: Inflater) -> bytes:
        # Only now: unpacked as it comes, one of few bytes would hold the memory of many for as long as it is sent.
        body: bytes | bytearray = b""
        for piece in unpacking.unpack(packed):
            body = self._append(body, piece)
            # Each takes a fraction of a millisecond, and a body has hundreds: others have their turn.
            await asyncio.sleep(0)
        return bytes(body)

    def _append(self, body: bytes | bytearray, chunk: bytes) -> bytes | bytearray:
        if len(body) + len(chunk) > self.max_body_bytes:
            raise self._too_large()
        self.loan.take(len(chunk))
        # Most bodies come whole, and are not copied; pieces are joined as they come: each alone would take more
        # room.
        if not body:
            return chunk
        body = body if isinstance(body, bytearray) else bytearray(body)
        body += chunk
        return body

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"the body is over {self.max_body_bytes} bytes; send less at once")


def _body_came_late() -> DeadlineExceeded:
    return DeadlineExceeded("the time ran out before the whole body was here")


def _timeout_s(request: Request, longest_s: float) -> float:
    try:
        asked_s = asked_timeout_s(request.scope["headers"])
    except ValueError:
        asked = header(request.scope, b"x-request-timeout-ms") or ""
        raise InvalidRequest(
            f"X-Request-Timeout-Ms: {asked[:40]!r} is not a number of milliseconds above 0"
        ) from None
    return longest_s if asked_s is None else min(longest_s, asked_s)
