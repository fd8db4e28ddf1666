"""The sockets that a service listens on, without serving them."""

import asyncio
import os
import socket

from app.acceptor import BACKLOG

# The exit status of a service that cannot; uvicorn's own for a start that failed.
CANNOT_LISTEN = 3


async def listen(host: str, port: int) -> list[socket.socket]:
    """Listen on every address of a host; port 0 takes a free one.

    Raises:
        OSError: The host has no such address, or the port is taken.
    """
    # asyncio's own way, so that several processes take the same hosts and fail in the same words as one.
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, host, port, backlog=BACKLOG, start_serving=False)
    listeners = [socket.socket(fileno=os.dup(each.fileno())) for each in server.sockets]
    server.close()
    for listener in listeners:
        listener.listen(BACKLOG)
    return listeners


def url(listener: socket.socket, host: str) -> str:
    """Where a listener can be asked."""
    port = listener.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
