"""Several worker processes behind one port: started, given connections, replaced, and stopped.

The supervisor alone listens. It serves nothing and loads nothing, so that it has time for every connection and
little that could take it down. It talks to each worker process over a channel (`control.py`) and hands connections
to it over another (`handover.py`); a worker whose channel closes leaves by itself.
"""

import asyncio
import logging
import signal
import socket
from collections import defaultdict
from collections.abc import Coroutine
from itertools import count

from app.acceptor import Acceptor
from app.listening import CANNOT_LISTEN, listen, url
from app.processes.backoff import Backoff
from app.processes.child import Child
from app.processes.control import Message
from app.processes.coordination import Coordination
from app.processes.spreading import by_preference, to_move
from app.settings import Settings

logger = logging.getLogger(__name__)

KILLED_BY = 128  # a shell's convention: with the signal's number added
TICK_S = 1.0
# From the end of its channel to the end of a worker process.
END_WITHIN_S = 10.0
# From the end of the drain: the last bytes, the last work (server.py, service.py), and the interpreter's own end.
LEAVE_WITHIN_S = 15.0


class WorkersFailed(Exception):
    """The worker processes cannot start; the message is that of one of them."""


class Supervisor:
    """Starts the worker processes, and stays until the last has ended.

    Args:
        settings: Of the whole service.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._coordination = Coordination()
        self._backoffs: defaultdict[int, Backoff] = defaultdict(Backoff)
        self._turns = count(1)
        # Those whose process has not ended, a little longer than the coordination knows them.
        self._alive: set[Child] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._served = self._leaving = self._forced = False
        self._status = 0
        # Numbers of those that died before any served.
        self._failed: set[int] = set()

    def run(self) -> int:
        """Serve until told to stop; return the exit status.

        Raises:
            WorkersFailed: No worker process could start, for a reason that it told.
        """
        return asyncio.run(self._run())

    async def _run(self) -> int:
        try:
            listeners = await listen(self._settings.host, self._settings.port)
        except OSError as error:
            logger.error("%s", error)
            return CANNOT_LISTEN
        loop = asyncio.get_running_loop()
        self._url = url(listeners[0], self._settings.host)
        self._acceptor = Acceptor(listeners, self._place)
        self._over: asyncio.Future[int] = loop.create_future()
        loop.add_signal_handler(signal.SIGTERM, self._leave, self._settings.drain_grace_s)
        loop.add_signal_handler(signal.SIGINT, self._leave, 0.0)
        try:
            for number in range(1, self._settings.workers + 1):
                if not self._leaving:  # A signal may come while they are being started.
                    await self._start(number, first=True)
            self._keep(self._tick())
            return await self._over
        finally:
            self._acceptor.close()
            for child in self._alive:
                child.process.kill()
                child.process.wait()

    async def _start(self, number: int, *, first: bool) -> None:
        crew = self._coordination
        served, required = crew.agreement.decided, crew.required
        child = Child(number, self._settings, served, required, self._hear, self._hear_end, first=first)
        self._alive.add(child)
        crew.add(child)
        asyncio.get_running_loop().add_reader(child.giver.fileno(), self._hear_handover, child)
        await child.open()

    # Connections.

    def _place(self, connection: socket.socket) -> bool:
        children = self._coordination.children.values()
        taking = [child for child in children if child.serving and child.taking and not child.giver.full]
        for child in by_preference(taking):
            if child.giver.give(connection):
                child.turn = next(self._turns)
                return True
        return False

    def _hear_handover(self, child: Child) -> None:
        if not child.giver.hear():
            self._end_handover(child)
            return
        for connection in child.giver.take_back():
            self._acceptor.place(connection)
        if self._served:
            self._acceptor.resume()

    def _end_handover(self, child: Child) -> None:
        """Place elsewhere what a worker process did not take before it ceased to."""
        if not child.taking:
            return
        child.taking = False
        asyncio.get_running_loop().remove_reader(child.giver.fileno())
        for connection in child.giver.close():
            self._acceptor.place(connection)
        if self._leaving and not any(each.taking for each in self._coordination.children.values()):
            self._acceptor.close()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._coordination.settle()
            self._even_out()
            if self._served:
                self._acceptor.resume()  # Who was full may not be any more.

    def _even_out(self) -> None:
        children = self._coordination.children.values()
        sharing = [child for child in children if child.fit and child.taking and not child.stalled]
        total = sum(child.open_connections for child in sharing)
        for child in sharing:
            child.even_out(to_move(child.open_connections, total, len(sharing)))

    # What the worker processes say, and their end.

    def _hear(self, child: Child, message: Message) -> None:
        child.note_heard()
        kind = message["kind"]
        if kind == "serving":
            self._hear_serving(child)
        elif kind == "failed":
            child.failure = message["detail"]
        elif kind != "alive":
            self._coordination.hear(child, message)

    def _hear_serving(self, child: Child) -> None:
        if self._leaving:
            return  # It was killed, having nothing to answer.
        child.serving = True
        if not self._served:
            self._served = True
            logger.info("running on %s (Press CTRL+C to quit)", self._url)
        self._acceptor.resume()

    def _hear_end(self, child: Child) -> None:
        self._end_handover(child)
        self._coordination.remove(child)
        self._keep(self._bury(child))

    async def _bury(self, child: Child) -> None:
        status = await child.ended(END_WITHIN_S)
        self._alive.discard(child)
        if self._leaving:
            self._note_exit(child, status)
        elif self._cannot_start(child):
            self._give_up(child, status)
        else:
            await self._replace(child, status)

    def _cannot_start(self, child: Child) -> bool:
        """Whether each of them has died, and none ever served."""
        self._failed.add(child.number)
        return not self._served and len(self._failed) >= self._settings.workers

    async def _replace(self, child: Child, status: int) -> None:
        backoff = self._backoffs[child.number]
        wait_s = backoff.wait_s(child.lived_s)
        reason = child.failure or _how_it_ended(status)
        logger.error("worker process %d: %s; it is replaced in %g s", child.number, reason, wait_s)
        while True:
            await asyncio.sleep(wait_s)
            if self._leaving:
                return
            try:
                await self._start(child.number, first=False)
            except OSError as error:  # No memory for a process, or no room for its descriptors.
                wait_s = backoff.wait_s(0.0)
                logger.error("worker process %d: %s; again in %g s", child.number, error, wait_s)
            else:
                return

    def _give_up(self, child: Child, status: int) -> None:
        if self._over.done():
            return
        if child.failure is not None:
            self._over.set_exception(WorkersFailed(child.failure))
            return
        logger.error("worker process %d: %s before it served", child.number, _how_it_ended(status))
        self._over.set_result(status if status > 0 else KILLED_BY - status)

    # Leaving.

    def _leave(self, grace_s: float) -> None:
        """Have every worker process drain; at the second call, end it without waiting for anyone."""
        if self._leaving:
            self._forced = True
            self._kill()
            return
        self._leaving = True
        for child in self._alive:
            if child.serving:
                child.channel.say("leave", grace_s=grace_s)
            else:
                child.process.kill()  # It has nothing to answer.
        limit_s = grace_s + self._settings.drain_timeout_s + LEAVE_WITHIN_S
        asyncio.get_running_loop().call_later(limit_s, self._kill)
        self._note_all_gone()

    def _kill(self) -> None:
        for child in self._alive:
            child.process.kill()

    def _note_exit(self, child: Child, status: int) -> None:
        if status and child.serving and not self._forced:
            logger.error("worker process %d: %s before it had left", child.number, _how_it_ended(status))
            self._status = 1
        self._note_all_gone()

    def _note_all_gone(self) -> None:
        if not self._alive and not self._over.done():
            self._over.set_result(self._status)

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _how_it_ended(status: int) -> str:
    return f"killed by signal {-status}" if status < 0 else f"exited with status {status}"
