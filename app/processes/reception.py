"""uvicorn for connections that another process accepted: they are served, counted and shut down as its own."""

import asyncio
import logging
import socket
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.processes.handover import Taker

logger = logging.getLogger(__name__)


class Reception:
    """Takes connections for a server that listens nowhere; made on the event loop, once the server has started.

    Args:
        server: Serves them.
        sock: Where they come from.
    """

    def __init__(self, server: uvicorn.Server, sock: socket.socket) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[None]] = set()
        self._to_move = 0
        self._taker = Taker(sock, self._receive)

    async def close(self) -> None:
        """Take no more connections; those that were taken are the server's to shut down."""
        self._taker.close()
        await asyncio.gather(*self._opening)

    def move(self, count: int) -> None:
        """Have so many connections closed after their next answer, so that their clients open others elsewhere."""
        self._to_move = count

    def must_move(self) -> bool:
        """Whether the connection that asks is one of those."""
        if self._to_move <= 0:
            return False
        self._to_move -= 1
        return True

    def over(self) -> None:
        """Take note that a connection is over."""
        self._taker.tell_closed()

    def _receive(self, connection: socket.socket) -> None:
        task = self._loop.create_task(self._open(connection))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, connection: socket.socket) -> None:
        server = self._server
        protocol = ReceivedProtocol(
            self, config=server.config, server_state=server.server_state, app_state=server.lifespan.state
        )
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, connection)
        except (OSError, RuntimeError) as error:  # Its client is gone already; uvloop has both for it.
            logger.debug("a connection ended before it began: %r", error)
            connection.close()
            if not protocol.begun:
                self.over()


class ReceivedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which tells the reception when its connection is over, and moves on when asked to.

    Attributes:
        begun: There is a connection, whose end will be told.
    """

    def __init__(self, reception: Reception, **options: Any) -> None:  # noqa: ANN401 (uvicorn's own)
        super().__init__(**options)
        self.begun = False
        self._reception = reception

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.begun = True
        super().connection_made(cast(asyncio.Transport, transport))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell."""
        super().connection_lost(exc)
        self._reception.over()

    def on_headers_complete(self) -> None:
        """Answer this request with `Connection: close` if the connection has to go elsewhere."""
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before and self._reception.must_move():
            self.cycle.keep_alive = False
