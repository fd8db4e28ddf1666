"""Downloads by code that takes no time limit of its own."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def socket_timeout(timeout_s: float) -> Iterator[None]:
    """Limit how long a connection may stay silent: a firewall that drops packets would hang it for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(timeout_s)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
