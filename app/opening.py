"""Accepted sockets -> connections that a protocol serves."""

import asyncio
import logging
import socket
from collections.abc import Callable

logger = logging.getLogger(__name__)


class Opening:
    """Opens connections, on the event loop that is running."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def open(
        self, sock: socket.socket, protocol: asyncio.Protocol, failed: Callable[[], object] = lambda: None
    ) -> None:
        """Have a protocol serve an accepted socket, which is its own from here on.

        Args:
            sock: Accepted, and in nobody else's hands.
            protocol: One that serves no other.
            failed: Called if the connection ends before it begins.
        """
        task = self._loop.create_task(self._open(sock, protocol, failed))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def ended(self) -> None:
        """Wait until all that were begun are open."""
        await asyncio.gather(*self._tasks)

    async def _open(self, sock: socket.socket, protocol: asyncio.Protocol, failed: Callable[[], object]) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, sock)
        except (OSError, RuntimeError) as error:  # Its client is gone already; uvloop has both for it.
            logger.debug("a connection ended before it began: %r", error)
            sock.close()
            failed()
