"""The other worker processes, as one of them knows them: through the supervisor."""

import asyncio
import itertools
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from typing import Protocol

from app.errors import Overloaded
from app.processes.merging import Family, Figures, merge
from app.registry import Refusal
from app.schemas import Ready
from models.current import Current

# The supervisor waits for a worker that hangs for a part of this.
ANSWER_WITHIN_S = 3.0


class Say(Protocol):
    """Sends a message to the supervisor."""

    def __call__(self, kind: str, **fields: object) -> None:
        """Send it."""


class Siblings:
    """Used on the event loop only.

    Args:
        say: Sends a message to the supervisor.
        served: Model -> the version that the others serve.
        required: The models without which the others are not ready; None if there are no others yet.

    Attributes:
        required: The same.
    """

    def __init__(self, say: Say, served: Mapping[str, Current], required: Collection[str] | None = None) -> None:
        self.required = required
        self._say = say
        self._served = dict(served)
        self._stands: dict[str, Current] = {}
        self._requires: list[str] | None = None
        self._own_readiness: Callable[[], Ready] | None = None
        self._told: Ready | None = None
        self._all_ready = False
        self._who_is_not: Ready | None = None
        self._requests = itertools.count()
        self._asked: dict[int, asyncio.Future[list[Figures]]] = {}

    # What is asked here.

    def readiness(self, own: Ready) -> Ready:
        """The readiness of the whole service, of which this process is ready."""
        if self._all_ready:
            return own
        if self._who_is_not is not None:
            return self._who_is_not
        return Ready(status="not_ready", detail="other worker processes are being started", models=own.models)

    async def figures(self, own: Figures) -> list[Family]:
        """What the whole service measured.

        Args:
            own: What this process did.

        Raises:
            Overloaded: The supervisor does not answer. What is known here alone would look as if counters fell.
        """
        request = next(self._requests)
        self._asked[request] = asyncio.get_running_loop().create_future()
        self._say("others", request=request, figures=own)
        try:
            others = await asyncio.wait_for(self._asked[request], ANSWER_WITHIN_S)
        except TimeoutError:
            raise Overloaded("the supervisor of the worker processes does not answer", retry_after_s=1) from None
        finally:
            del self._asked[request]
        return merge([own, *others])

    def served(self, model: str) -> Current | None:
        """Which version of a model the others serve, if it is known."""
        return self._served.get(model)

    # What is told from here.

    def tell_readiness_of(self, own_readiness: Callable[[], Ready]) -> None:
        """Say from where this process's own readiness is to be had."""
        self._own_readiness = own_readiness

    def require(self, models: Collection[str]) -> None:
        """Tell without which models this process is not ready, if that has changed."""
        if self._requires != sorted(models):
            self._requires = sorted(models)
            self._say("require", models=self._requires)

    def stand(self, model: str, current: Current) -> None:
        """Tell that this version is current and could be served."""
        if self._stands.get(model) != current:
            self._stands[model] = current
            self._say("stand", model=model, **asdict(current))

    def refuse(self, model: str, current: Current, refusal: Refusal) -> None:
        """Tell that this version could not be loaded."""
        self._say("refuse", model=model, **asdict(current), error=refusal.error, detail=refusal.detail)

    def changed(self, model: str) -> None:
        """Tell that what is said of a model was changed from here: the others need not find out by themselves."""
        self._say("look", model=model)

    def looked(self) -> None:
        """Tell how ready this process is, if that has changed."""
        own = self._own_readiness() if self._own_readiness is not None else None
        if own is not None and own != self._told:
            self._told = own
            self._say("state", ready=own.status == "ready", body=own.model_dump(mode="json"))

    # What is heard.

    def hear_served(self, model: str, current: Current) -> None:
        """Take note of what is served from now on."""
        self._served[model] = current

    def hear_refused(self, model: str, current: Current) -> None:
        """Take note that a version was let go, and say so: to stand at it later is news."""
        if self._stands.get(model) == current:
            del self._stands[model]
        self._say("let_go", model=model, **asdict(current))

    def hear_readiness(self, body: object, *, ready: bool) -> None:
        """Take note of the readiness of the whole service."""
        self._all_ready = ready
        self._who_is_not = None if body is None else Ready.model_validate(body)

    def hear_figures(self, request: int, figures: list[Figures]) -> None:
        """Take note of what the others measured."""
        asked = self._asked.get(request)
        if asked is not None and not asked.done():
            asked.set_result(figures)
