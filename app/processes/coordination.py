"""What the worker processes do together: be ready, swap versions, and be measured as one service."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import asdict

from app.processes.agreement import Agreement
from app.processes.child import Child
from app.processes.control import Message
from app.processes.merging import Family, lasting, merge
from models.current import Current

logger = logging.getLogger(__name__)

# A worker that does not answer within this is measured by what it said last.
FIGURES_WITHIN_S = 0.5


class Coordination:
    """Hears what the worker processes say, and tells the others what follows. Used on the event loop only."""

    def __init__(self) -> None:
        self.children: dict[int, Child] = {}
        self.agreement = Agreement()
        self._readiness: tuple[bool, object] = (False, None)
        self._ended: list[Family] = []
        self._replaced = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._heard: dict[str, Callable[[Child, Message], None]] = {
            "state": self._hear_state,
            "require": self._hear_requirement,
            "stand": self._hear_stand,
            "refuse": self._hear_refusal,
            "look": self._hear_change,
            "let_go": self._hear_let_go,
            "figures": self._hear_figures,
            "others": self._hear_others,
        }

    def add(self, child: Child) -> None:
        """Take in a worker process that is being started."""
        self.children[child.number] = child
        self._replaced += not child.first
        ready, body = self._readiness
        child.channel.say("service", ready=ready, body=body)

    def remove(self, child: Child) -> None:
        """Go on without a worker process that is gone; what it counted still counts."""
        if self.children.get(child.number) is child:
            del self.children[child.number]
        self._ended = merge([self._ended, lasting(child.figures)])
        self.agreement.remove(child.number)
        if not any(each.ready for each in self.children.values()):
            # Those that come next may not be able to load it, and what is published by then may be better.
            self.agreement.forget_decided()
        self._tell_readiness()
        self.settle()

    def hear(self, child: Child, message: Message) -> None:
        """Do what a message calls for."""
        self._heard[message["kind"]](child, message)

    def settle(self) -> None:
        """Have the versions served that all can serve, or that were waited with for long."""
        voters = [child.number for child in self.children.values() if child.ready]
        for model, current in self.agreement.decide(voters):
            logger.info("%s %s is decided: the worker processes swap to it", model, current.version)
            for child in self.children.values():
                child.channel.say("go", model=model, **asdict(current))
                child.in_step = self._is_in_step(child)

    @property
    def required(self) -> list[str] | None:
        """The models without which no worker process is ready; None if nobody has said so."""
        known = (child.required for child in self.children.values())
        return next((models for models in known if models is not None), None)

    def _hear_requirement(self, child: Child, message: Message) -> None:
        child.required = message["models"]

    def _hear_state(self, child: Child, message: Message) -> None:
        child.ready, child.body = message["ready"], message["body"]
        child.in_step = self._is_in_step(child)
        self._tell_readiness()
        self.settle()

    def _is_in_step(self, child: Child) -> bool:
        live = {model: state["version"] for model, state in child.body["models"].items()} if child.body else {}
        decided = self.agreement.decided
        return all(live.get(model) in (None, current.version) for model, current in decided.items())

    def _hear_stand(self, child: Child, message: Message) -> None:
        model, current = message["model"], _current(message)
        self.agreement.stand(child.number, model, current)
        if self.agreement.decided.get(model) == current:
            child.channel.say("go", model=model, **asdict(current))
        else:
            self.settle()

    def _hear_refusal(self, child: Child, message: Message) -> None:
        model, current = message["model"], _current(message)
        if not self.agreement.refuse(model, current):
            return
        for other in self.children.values():
            if other is not child:
                other.channel.say(**message)
                self.agreement.must_let_go(other.number, model, current)

    def _hear_change(self, child: Child, message: Message) -> None:
        for other in self.children.values():
            if other is not child:
                other.channel.say(**message)

    def _hear_let_go(self, child: Child, message: Message) -> None:
        self.agreement.has_let_go(child.number, message["model"], _current(message))

    def _hear_figures(self, child: Child, message: Message) -> None:
        child.hear_figures(message["figures"], asked=message["asked"])

    def _hear_others(self, child: Child, message: Message) -> None:
        # Kept before they are shown: they count even if the worker is killed next.
        child.hear_figures(message["figures"], asked=False)
        task = asyncio.create_task(self._tell_others(child, message["request"]))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell_others(self, child: Child, request: int) -> None:
        asked = [other.ask_figures() for other in self.children.values() if other is not child and other.serving]
        if asked:
            await asyncio.wait(asked, timeout=FIGURES_WITHIN_S)
        # Who ended meanwhile is among the ended.
        others = [other.figures for other in self.children.values() if other is not child]
        child.channel.say("others", request=request, figures=[self._own_figures(), self._ended, *others])

    def _own_figures(self) -> list[Family]:
        ready, replaced = sum(child.ready for child in self.children.values()), self._replaced
        return [
            _family("lantern_worker_processes", "Worker processes that are ready.", "gauge", ready),
            _family("lantern_worker_replacements", "Processes started for one that died.", "counter", replaced),
        ]

    def _tell_readiness(self) -> None:
        """The service is ready once each is that it began with; a replacement counts when it is ready."""
        needed = [child for child in self.children.values() if child.first or child.ready]
        lacking = [child.body for child in needed if not child.ready]
        ready = bool(needed) and not lacking
        readiness = (ready, next((body for body in lacking if body is not None), None))
        if readiness != self._readiness:
            self._readiness = readiness
            for child in self.children.values():
                child.channel.say("service", ready=ready, body=readiness[1])


def _current(message: Message) -> Current:
    return Current(message["version"], message["manifest_sha256"])


def _family(name: str, text: str, kind: str, value: float) -> Family:
    sample = f"{name}_total" if kind == "counter" else name
    return {"name": name, "text": text, "type": kind, "samples": [(sample, {}, value)]}
