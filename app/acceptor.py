"""Accepts connections and gives each to who serves it."""

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable, Sequence

from app.open_files import NO_ROOM, leaves_room

logger = logging.getLogger(__name__)

# As many as uvicorn asks for.
BACKLOG = 2048
# Connections accepted in one round of the loop: what the worker processes say must not wait for many.
MOST_AT_ONCE = 64
# After a failure to accept that will not pass by itself, such as too many open files.
PAUSE_S = 1.0


class Acceptor:
    """Accepts on listening sockets, on the event loop; while nobody takes connections, they wait in the kernel.

    Args:
        listeners: Listening sockets.
        place: Gives a connection to a worker process; False if none takes it now.
    """

    def __init__(self, listeners: Sequence[socket.socket], place: Callable[[socket.socket], bool]) -> None:
        self._listeners = listeners
        self._place = place
        self._loop = asyncio.get_running_loop()
        self._unplaced: deque[socket.socket] = deque()
        self._watching = self._closed = False
        self._pause: asyncio.TimerHandle | None = None
        for listener in listeners:
            listener.setblocking(False)

    def resume(self) -> None:
        """Place what could not be placed before, and accept."""
        if self._pause is not None or self._closed:
            return
        while self._unplaced:
            if not self._place(self._unplaced[0]):
                return
            self._unplaced.popleft()
        if not self._watching:
            self._watching = True
            for listener in self._listeners:
                self._loop.add_reader(listener.fileno(), self._accept, listener)

    def place(self, connection: socket.socket) -> None:
        """Place a connection now, or as soon as somebody takes it."""
        if self._unplaced or not self._place(connection):
            self._unplaced.append(connection)
            self._stop_watching()

    def close(self) -> None:
        """Listen no more, and close what nobody took."""
        self._closed = True
        self._stop_watching()
        if self._pause is not None:
            self._pause.cancel()
        for each in (*self._listeners, *self._unplaced):
            each.close()
        self._unplaced.clear()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(MOST_AT_ONCE):
            if not self._watching:
                return
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._begin_pause(str(error))
                return
            if not leaves_room(connection.fileno()):
                # The others wait in the kernel; of those that there are some will end.
                connection.close()
                self._begin_pause(NO_ROOM)
                return
            self.place(connection)

    def _begin_pause(self, why: str) -> None:
        logger.error("no connection is accepted for %g s: %s", PAUSE_S, why)
        self._stop_watching()
        self._pause = self._loop.call_later(PAUSE_S, self._end_pause)

    def _end_pause(self) -> None:
        self._pause = None
        self.resume()

    def _stop_watching(self) -> None:
        if self._watching:
            self._watching = False
            for listener in self._listeners:
                self._loop.remove_reader(listener.fileno())
