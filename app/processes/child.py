"""A worker process, as the supervisor has it."""

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from app.processes.control import REPORT_EVERY_S, Channel, Message
from app.processes.handover import Giver
from app.processes.merging import Family
from app.settings import Settings
from models.current import Current

PROGRAM = "app.processes.worker_process"
# One that does not take for so long what it was given, or says nothing, gets nothing more while there are others.
STALLED_S = 1.0
QUIET_S = 3 * REPORT_EVERY_S
# How often a process that has closed its channel is asked whether it has ended.
LOOK_EVERY_S = 0.005


class Child:
    """A process, the channel to it, and what it said last. Used on the event loop only.

    Args:
        number: Its place among the worker processes, from 1.
        settings: Of the whole service.
        served: Model -> the version that the others serve.
        required: The models without which the others are not ready, if they have said so.
        first: It was started with the service, which is not ready without it.
        on_message: Told of what it says.
        on_end: Told once its channel is closed.

    Attributes:
        serving: It has begun to take connections.
        taking: It has not ceased to.
        ready: Its models are live.
        in_step: In the versions that the others serve.
        body: What it says of its readiness.
        required: The models without which it is not ready, once it has said so.
        figures: What it measured, when it last said so.
        failure: Why it could not start.
        turn: When it got its last connection; a number that grows.
    """

    def __init__(
        self,
        number: int,
        settings: Settings,
        served: Mapping[str, Current],
        required: Collection[str] | None,
        on_message: Callable[["Child", Message], None],
        on_end: Callable[["Child"], None],
        *,
        first: bool,
    ) -> None:
        self.number = number
        self.first = first
        self.serving = self.ready = False
        self.taking = self.in_step = True
        self.body: dict[str, Any] | None = None
        self.required: list[str] | None = None
        self.figures: list[Family] = []
        self.failure: str | None = None
        self.turn = 0
        self._started_s = self._heard_s = time.monotonic()
        self._asked: asyncio.Future[None] | None = None
        self._excess = self._moving = 0
        self.channel = Channel(lambda message: on_message(self, message), lambda: on_end(self))
        self.process, self._control, handover = _start()
        self.giver = Giver(handover)
        self.channel.say(
            "start",
            number=number,
            settings=settings.model_dump(mode="json"),
            served={model: asdict(current) for model, current in served.items()},
            required=None if required is None else list(required),
        )

    async def open(self) -> None:
        """Begin to talk with it."""
        await self.channel.open(self._control)

    @property
    def fit(self) -> bool:
        """Whether it should get connections."""
        return self.ready and self.in_step

    @property
    def stalled(self) -> bool:
        """Whether it seems to hang."""
        return self.giver.waits_s >= STALLED_S or time.monotonic() - self._heard_s >= QUIET_S

    def note_heard(self) -> None:
        """Take note that it says something."""
        self._heard_s = time.monotonic()

    @property
    def lived_s(self) -> float:
        """How long ago it was started."""
        return time.monotonic() - self._started_s

    @property
    def open_connections(self) -> int:
        """How many connections it has."""
        return self.giver.open_connections

    def ask_figures(self) -> asyncio.Future[None]:
        """Ask what it measured; done once it answers. One that hangs is not asked again before it did."""
        if self._asked is None or self._asked.done():
            self._asked = asyncio.get_running_loop().create_future()
            self.channel.say("figures")
        return self._asked

    def hear_figures(self, figures: list[Family], *, asked: bool) -> None:
        """Take note of what it measured."""
        self.figures = figures
        if asked and self._asked is not None and not self._asked.done():
            self._asked.set_result(None)

    def even_out(self, excess: int) -> None:
        """Have connections opened elsewhere, if it had so many too many at the last call too."""
        lasting = min(excess, self._excess)
        self._excess = excess
        if lasting or self._moving:
            self._moving = lasting
            self.channel.say("move", count=lasting)

    async def ended(self, within_s: float) -> int:
        """Wait for its end, kill it if that takes too long, and return its exit status; -9 if it was killed."""
        give_up_s = time.monotonic() + within_s
        while self.process.poll() is None:
            if time.monotonic() >= give_up_s:
                self.process.kill()
            await asyncio.sleep(LOOK_EVERY_S)
        return self.process.returncode


def _start() -> "tuple[subprocess.Popen[bytes], socket.socket, socket.socket]":
    """Start a process; return it with this side's ends of its control and its handover."""
    with ExitStack() as own_until_started, ExitStack() as passed:
        own, others = [], []
        for _ in range(2):
            one, other = socket.socketpair()
            own.append(own_until_started.enter_context(one))
            others.append(passed.enter_context(other))
        process = _run([other.fileno() for other in others])
        own_until_started.pop_all()
    control, handover = own
    return process, control, handover


def _run(numbers: list[int]) -> "subprocess.Popen[bytes]":
    # Signals are the supervisor's business; blocked, they cannot end a process that is not ready to ignore them.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        return subprocess.Popen([sys.executable, "-m", PROGRAM, *map(str, numbers)], pass_fds=numbers)  # noqa: S603
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
