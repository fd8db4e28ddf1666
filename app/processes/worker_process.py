"""One of several worker processes, run as `python -m app.processes.worker_process CONTROL HANDOVER`.

The arguments are the numbers of two sockets that it inherits. It listens nowhere: connections are handed to it.
Signals are the supervisor's business, and are ignored here: what goes to a whole group of processes would count
twice.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from starlette.applications import Starlette

from app import logs
from app.api_keys import ApiKeysInvalid
from app.main import create_app
from app.memory import bound_of
from app.processes.control import REPORT_EVERY_S, Channel, ChannelBroken, Message, frame, receive
from app.processes.merging import Family
from app.processes.reception import Reception
from app.processes.siblings import Siblings
from app.registry import Refusal
from app.routes.health import readiness
from app.server import Server
from app.settings import Settings
from models.current import Current
from models.device import device_in_turn
from models.errors import DeviceUnavailable, KeyFileInvalid

logger = logging.getLogger(__name__)

# Connections that are in use are closed after an answer, and their clients open others elsewhere.
MOVE_WITHIN_S = 1.0


class WorkerServer(Server):
    """The server of one worker process: what the supervisor says takes the place of signals and of a listener.

    Args:
        app: What answers.
        settings: Of the whole service.
        siblings: The other worker processes.
        channel: To the supervisor; opened here.
        control: What the channel goes over.
        handover: Where connections come from.
    """

    def __init__(
        self,
        app: Starlette,
        settings: Settings,
        siblings: Siblings,
        channel: Channel,
        control: socket.socket,
        handover: socket.socket,
    ) -> None:
        super().__init__(app, settings)
        self._siblings = siblings
        self._channel = channel
        self._control = control
        self._handover = handover
        self._reception: Reception | None = None
        self._reporting: asyncio.Task[None] | None = None
        self._reported: list[Family] = []
        self._heard: dict[str, Callable[[Message], None]] = {
            "service": self._hear_readiness,
            "go": self._go,
            "refuse": self._let_go,
            "look": lambda message: self._service.reloader.hear_of_change(message["model"]),
            "figures": lambda _message: self._tell_figures(asked=True),
            "others": lambda message: siblings.hear_figures(message["request"], message["figures"]),
            "move": self._move,
            "leave": lambda message: self._begin_to_leave(message["grace_s"]),
        }

    def hear(self, message: Message) -> None:
        """Do what the supervisor says."""
        self._heard[message["kind"]](message)

    def hear_the_end(self) -> None:
        """Leave, since nobody will hand over connections any more, nor end this process."""
        if self._leaving is None:
            logger.error("the supervisor is gone: answering what was admitted, and leaving")
            self._begin_to_leave(0.0)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals ignored."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the service, then take connections."""
        self._siblings.tell_readiness_of(lambda: readiness(self._service))
        await self._channel.open(self._control)
        await super().startup(sockets)
        self._reporting = asyncio.create_task(self._report())
        self._channel.say("serving")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, and close those that there are as one process alone would."""
        if self._reporting is not None:
            self._reporting.cancel()
        await super().shutdown(sockets)

    async def _take_connections(self) -> None:
        self._reception = Reception(self._handover, self.protocol_options)

    async def _take_no_more(self) -> None:
        if self._reception is not None:
            await self._reception.close()

    def _begin_to_leave_lost(self) -> None:
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._leave_alone())

    async def _leave_alone(self) -> None:
        """Leave while the others serve on: they get the connections that come, and then those that are here."""
        await self._take_no_more()
        await self._leave(MOVE_WITHIN_S)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            self._tell_figures(asked=False)

    def _tell_figures(self, *, asked: bool) -> None:
        figures = self._service.metrics.figures()
        if asked or figures != self._reported:
            self._reported = figures
            self._channel.say("figures", asked=asked, figures=figures)
        else:
            self._channel.say("alive")

    def _hear_readiness(self, message: Message) -> None:
        self._siblings.hear_readiness(message["body"], ready=message["ready"])

    def _go(self, message: Message) -> None:
        model, current = message["model"], _current(message)
        self._siblings.hear_served(model, current)
        if self._leaving is None:
            self._service.reloader.go(model, current)
            self._siblings.looked()

    def _let_go(self, message: Message) -> None:
        model, current = message["model"], _current(message)
        refusal = Refusal(current.version, message["error"], message["detail"], datetime.now(UTC))
        self._siblings.hear_refused(model, current)
        self._service.reloader.let_go(model, current, refusal)
        self._siblings.looked()

    def _move(self, message: Message) -> None:
        if self._reception is not None:
            self._reception.move(message["count"])


def main() -> int:
    """Serve what is handed over; return the exit status."""
    _ignore_signals()
    control, handover = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    for each in (control, handover):
        each.set_inheritable(False)
    try:
        start = receive(control)
    except (ChannelBroken, OSError):
        return 1  # Nobody is there to serve for.
    settings, number = Settings.model_validate(start["settings"]), start["number"]
    own = {
        "device": device_in_turn(settings.device, number - 1),
        "max_memory_bytes": bound_of(number, settings.workers, settings.max_memory_bytes),
    }
    settings = settings.model_copy(update=own)
    logs.configure(settings.log_format, settings.log_level, worker=number)
    served = {model: Current(**current) for model, current in start["served"].items()}
    channel = Channel(lambda message: server.hear(message), lambda: server.hear_the_end())
    siblings = Siblings(channel.say, served, start["required"])
    try:
        app = create_app(settings, siblings)
    except (DeviceUnavailable, ApiKeysInvalid, KeyFileInvalid) as error:
        control.sendall(frame({"kind": "failed", "detail": str(error)}))
        return 2
    server = WorkerServer(app, settings, siblings, channel, control, handover)
    return server.serve_until_stopped()


def _ignore_signals() -> None:
    # The supervisor starts this process with both blocked, so that none arrives before they are ignored.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))


def _current(message: Message) -> Current:
    return Current(message["version"], message["manifest_sha256"])


if __name__ == "__main__":
    sys.exit(main())
