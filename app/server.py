"""The HTTP server as a process: listening, signals, and the way out.

SIGTERM  unready at once; serve on for the grace; refuse; answer what was admitted; exit
SIGINT   the same without the grace: a person at a terminal is waiting
again    exit at once
"""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from types import FrameType
from typing import Any

import uvicorn
from starlette.applications import Starlette

from app.acceptor import Acceptor
from app.listening import CANNOT_LISTEN, listen, url
from app.opening import Opening
from app.protocol import RequestProtocol
from app.service import Service
from app.settings import Settings
from app.watchdog import Watchdog

logger = logging.getLogger(__name__)


# Answers that are ready are written within this time, and clients that stall are cut.
LAST_BYTES_S = 5
# Batches, decodes and loads that nobody waits for any more have so long to come back.
LAST_WORK_S = 1.0
# uvicorn's own.
TICKS_PER_S = 10

# Of every answer, after OWASP's advice for REST: what a browser must not do with it. No policy for scripts: the
# page of the OpenAPI document loads its own, and nothing else here is a page.
HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "frame-ancestors 'none'"),
    ("Referrer-Policy", "no-referrer"),
]


class Server(uvicorn.Server):
    """uvicorn, draining before it exits.

    Attributes:
        url: Where it listens, once it does.
    """

    def __init__(self, app: Starlette, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                log_config=None,
                access_log=False,
                server_header=False,
                headers=HEADERS,
                # uvicorn would believe whoever is on the same machine, named or not.
                proxy_headers=bool(os.environ.get("FORWARDED_ALLOW_IPS")),
                # It would take connections from the protocol that counts them, where a library for it is found.
                ws="none",
                timeout_graceful_shutdown=LAST_BYTES_S,
            )
        )
        self._service: Service = app.state.service
        self._service.on_lost = self._begin_to_leave_lost
        self._settings = settings
        self._watchdog = Watchdog(settings.stall_timeout_s)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._lost = False
        self._acceptor: Acceptor | None = None
        self.url: str | None = None

    def serve_until_stopped(self) -> int:
        """Serve; return the exit status: 0 after a stop that was asked for, else 1, so that it is started anew."""
        # What is imported stays. To look through all of it at each full collection stops every thread for a tenth
        # of a second.
        gc.freeze()
        self.run()
        status = 0 if self.started and not self._lost else 1
        if _threads_end_within(LAST_WORK_S):
            return status
        # A codec or a model that does not come back would hold the interpreter for ever.
        logger.error("work that did not end is abandoned")
        logging.shutdown()
        os._exit(status)

    def handle_exit(self, sig: int, _frame: FrameType | None) -> None:
        """Begin to leave at the first signal; at the second, exit without waiting for anyone."""
        if self._loop is None or self._leaving is not None:
            self.should_exit = self.force_exit = True
            return
        grace_s = self._settings.drain_grace_s if sig == signal.SIGTERM else 0.0
        self._loop.call_soon_threadsafe(self._begin_to_leave, grace_s)

    async def on_tick(self, counter: int) -> bool:
        """Do what is to be done ten times a second, and once; return whether it is time to exit."""
        if counter % TICKS_PER_S == 0:
            self._watchdog.reassure()
            now_s = time.monotonic()
            for connection in list(self.server_state.connections):
                if isinstance(connection, RequestProtocol):
                    connection.end_if_slow(now_s)
        return await super().on_tick(counter)

    async def main_loop(self) -> None:
        """Run until it is time to exit."""
        self._loop = asyncio.get_running_loop()
        await super().main_loop()

    @property
    def protocol_options(self) -> dict[str, Any]:
        """What a connection's protocol is made with."""
        return {
            "gate": self._service.gate,
            "config": self.config,
            "server_state": self.server_state,
            "app_state": self.lifespan.state,
        }

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, serve and shut down, watched."""
        try:
            await super().serve(sockets)
        finally:
            self._watchdog.dismiss()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the service, then take connections."""
        self._watchdog.reassure()  # Models are being loaded from now on.
        await super().startup(sockets or [])
        await self._take_connections()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, and end those that there are."""
        self._watchdog.dismiss()  # From here on nobody gives signs of life; all that is waited for has its limit.
        await self._take_no_more()
        await super().shutdown(sockets)

    async def _take_connections(self) -> None:
        # uvloop's listener accepts one connection in a round of the loop (libuv, pull request 3696). When there is
        # much to do rounds are long, and clients would wait for seconds where nothing sees them.
        try:
            listeners = await listen(self._settings.host, self._settings.port)
        except OSError as error:
            logger.error("%s", error)
            await self.lifespan.shutdown()
            sys.exit(CANNOT_LISTEN)
        self._opening = Opening()
        self._acceptor = Acceptor(listeners, self._open)
        self._acceptor.resume()
        self.url = url(listeners[0], self._settings.host)
        logger.info("running on %s (Press CTRL+C to quit)", self.url)

    async def _take_no_more(self) -> None:
        if self._acceptor is not None:
            self._acceptor.close()
            await self._opening.ended()

    def _open(self, connection: socket.socket) -> bool:
        protocol = RequestProtocol(**self.protocol_options)
        self._opening.open(connection, protocol)
        return True

    def _begin_to_leave_lost(self) -> None:
        self._lost = True
        self._begin_to_leave(self._settings.drain_grace_s)

    def _begin_to_leave(self, grace_s: float) -> None:
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._leave(grace_s))

    async def _leave(self, grace_s: float) -> None:
        logger.info("stopping: unready now, refusing in %g s", grace_s)
        self._service.leave()
        await asyncio.sleep(grace_s)
        self._service.refuse()
        try:
            await asyncio.wait_for(self._service.drained(), self._settings.drain_timeout_s)
            logger.info("drained: every admitted item was answered")
        except TimeoutError:
            logger.error(
                "%d admitted items were not answered within LANTERN_DRAIN_TIMEOUT_S", self._service.open_items
            )
            self._service.give_up()
        self.should_exit = True


def _threads_end_within(patience_s: float) -> bool:
    give_up_s = time.monotonic() + patience_s
    own = (threading.main_thread(), threading.current_thread())
    others = [thread for thread in threading.enumerate() if thread not in own]
    for thread in others:
        thread.join(max(0.0, give_up_s - time.monotonic()))
    return not any(thread.is_alive() for thread in others)
