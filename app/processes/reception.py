"""uvicorn for connections that another process accepted: they are served, counted and shut down as its own."""

import asyncio
import socket
from collections.abc import Mapping
from typing import Any

from app.opening import Opening
from app.processes.handover import Taker
from app.protocol import RequestProtocol


class Reception:
    """Takes connections for a server that listens nowhere; made on the event loop, once the server has started.

    Args:
        sock: Where they come from.
        options: What each one's protocol is made with.
    """

    def __init__(self, sock: socket.socket, options: Mapping[str, Any]) -> None:
        self._options = options
        self._opening = Opening()
        self._to_move = 0
        self._taker = Taker(sock, self._receive)

    async def close(self) -> None:
        """Take no more connections; those that were taken are the server's to shut down."""
        self._taker.close()
        await self._opening.ended()

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
        protocol = ReceivedProtocol(self, **self._options)

        def failed() -> None:
            if not protocol.begun:
                self.over()

        self._opening.open(connection, protocol, failed)


class ReceivedProtocol(RequestProtocol):
    """The server's protocol, which tells the reception when its connection is over, and moves on when asked to.

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
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell."""
        super().connection_lost(exc)
        self._reception.over()

    def on_headers_complete(self) -> None:
        """Answer this request with `Connection: close` if the connection has to go elsewhere."""
        before = self.cycle
        super().on_headers_complete()
        begun = self.cycle is not before and not self.cycle.response_complete
        if begun and self._reception.must_move():
            self.cycle.keep_alive = False
