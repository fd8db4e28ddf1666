"""Accepted connections handed to another process over a Unix socket; none is lost on the way.

    giver, the supervisor                    taker, a worker process
      a byte, with the connection     ->       TAKEN, before anything of it is read
      closes its own descriptor       <-       or REFUSED, having no room for a descriptor
      one fewer to count              <-       CLOSED, once it is over

What the taker refused, or did not take before it ended, is whole, and can be given to another.
"""

import asyncio
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence

from app.open_files import NO_ROOM, leaves_room

logger = logging.getLogger(__name__)

GIVEN, TAKEN, REFUSED, CLOSED = b"g", b"t", b"r", b"c"
# Connections taken in one round of the loop: what is open already must not wait for many.
MOST_AT_ONCE = 16
# Until what could not be said is tried again: the giver reads, or is gone.
RETRY_S = 0.005
# Whoever refused one gets none for so long: some of what it has open may be closed by then.
FULL_S = 1.0
REPORT_BYTES = 65_536
# Descriptors that are received must not pass on to programs that are started.
CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)

Clock = Callable[[], float]


class Giver:
    """The end that gives connections away.

    Args:
        sock: One end of a pair of stream sockets.
        clock: Monotonic seconds.

    Attributes:
        open_connections: Given, and not over as far as is known.
    """

    def __init__(self, sock: socket.socket, clock: Clock = time.monotonic) -> None:
        sock.setblocking(False)
        self.open_connections = 0
        self._sock = sock
        self._clock = clock
        # A copy is kept of each until it is taken, with the time since when.
        self._untaken: deque[tuple[float, socket.socket]] = deque()
        self._refused: list[socket.socket] = []
        self._full_until_s = 0.0

    def fileno(self) -> int:
        """The descriptor to watch, for `hear`."""
        return self._sock.fileno()

    @property
    def waits_s(self) -> float:
        """How long the oldest connection that was not taken yet waits for it."""
        return self._clock() - self._untaken[0][0] if self._untaken else 0.0

    @property
    def full(self) -> bool:
        """Whether the other end refused one a short while ago."""
        return self._clock() < self._full_until_s

    def give(self, connection: socket.socket) -> bool:
        """Give a connection; False if the other end is gone or has no room, and then it is still the caller's."""
        try:
            socket.send_fds(self._sock, [GIVEN], [connection.fileno()])
        except OSError:
            return False
        self._untaken.append((self._clock(), connection))
        self.open_connections += 1
        return True

    def hear(self) -> bool:
        """Take note of what the other end says; False once it is gone."""
        return self._receive() != b""

    def take_back(self) -> list[socket.socket]:
        """Return what was refused since the last call."""
        refused, self._refused = self._refused, []
        return refused

    def close(self) -> list[socket.socket]:
        """Give no more; return what was not taken."""
        while self._receive():
            pass
        self._sock.close()
        untaken = [*self.take_back(), *(connection for _, connection in self._untaken)]
        self._untaken.clear()
        self.open_connections = 0
        return untaken

    def _receive(self) -> bytes | None:
        """What the other end said: None if nothing, and no bytes if it is gone."""
        try:
            said = self._sock.recv(REPORT_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return b""
        # What is given is answered in that order.
        for answer in said.replace(CLOSED, b""):
            self._settle(self._untaken.popleft()[1], taken=answer == ord(TAKEN))
        self.open_connections -= said.count(CLOSED) + said.count(REFUSED)
        return said

    def _settle(self, connection: socket.socket, *, taken: bool) -> None:
        if taken:
            connection.close()
            return
        self._refused.append(connection)
        self._full_until_s = self._clock() + FULL_S


class Taker:
    """The end that takes connections, on the event loop.

    Args:
        sock: The other end of the pair.
        serve: Told of each connection; it calls `tell_closed` when that is over.
    """

    def __init__(self, sock: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._serve = serve
        self._unsaid = bytearray()
        self._refused = 0
        self._told_s = -FULL_S
        self._loop = asyncio.get_running_loop()
        self._telling: asyncio.Handle | None = None
        self._loop.add_reader(sock.fileno(), self._take)

    def tell_closed(self) -> None:
        """Say that one of the connections is over."""
        self._unsaid += CLOSED
        if self._telling is None:
            # What is over in the same round of the loop is told together: each message wakes the giver.
            self._telling = self._loop.call_soon(self._tell)

    def close(self) -> None:
        """Take no more; what was given and not taken goes elsewhere."""
        if self._sock.fileno() < 0:
            return
        self._loop.remove_reader(self._sock.fileno())
        self._tell()
        self._sock.close()

    def _take(self) -> None:
        taken = []
        for _ in range(MOST_AT_ONCE):
            try:
                given, descriptors, _, _ = socket.recv_fds(self._sock, 1, 1, CLOSE_ON_EXEC)
            except BlockingIOError:
                break
            except OSError:
                given, descriptors = b"", []
            if not given:
                self.close()
                break
            if self._takes(descriptors):
                taken.append(socket.socket(fileno=descriptors[0]))
        # Before anything of them is read: from here on they are this process's alone.
        self._tell()
        for connection in taken:
            self._serve(connection)

    def _takes(self, descriptors: Sequence[int]) -> bool:
        if descriptors and leaves_room(descriptors[0]):
            self._unsaid += TAKEN
            return True
        self._unsaid += REFUSED
        for descriptor in descriptors:
            os.close(descriptor)
        self._note_refusal()
        return False

    def _note_refusal(self) -> None:
        self._refused += 1
        # One line for many: they come again and again.
        if time.monotonic() - self._told_s >= FULL_S:
            logger.error("a connection is refused: %s; %d lately", NO_ROOM, self._refused)
            self._refused, self._told_s = 0, time.monotonic()

    def _tell(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        if not self._unsaid or self._sock.fileno() < 0:
            return
        try:
            sent = self._sock.send(self._unsaid)
        except BlockingIOError:
            sent = 0
        except OSError:  # The giver is gone, and nobody counts any more.
            sent = len(self._unsaid)
        del self._unsaid[:sent]
        if self._unsaid:
            self._telling = self._loop.call_later(RETRY_S, self._tell)
