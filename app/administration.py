"""Changes of the repository that are asked for over HTTP: written there first, and then taken over here.

The repository stays the one place that says what is to be served: other worker processes, and whoever starts
later, follow it.
"""

import asyncio
import logging
from collections.abc import Callable

import models.errors
from app.errors import ModelNotFound, ModelNotReady, Refused, VersionNotFound
from app.registry import LOADING_RETRY_AFTER_S, Registry
from app.reloading import Reloader
from models.repository import Repository

logger = logging.getLogger(__name__)


class Administration:
    """Makes changes, and waits until they are in force in this process. Used on the event loop only.

    Args:
        repository: What is changed.
        registry: What is live.
        reloader: Takes changes over.
    """

    def __init__(self, repository: Repository, registry: Registry, reloader: Reloader) -> None:
        self._repository = repository
        self._registry = registry
        self._reloader = reloader

    async def change(self, caller: str, name: str, what: str, call: Callable[[Repository], object]) -> None:
        """Make a change.

        Args:
            caller: Who wants it, for the log.
            name: The model's.
            what: It does, for the log.
            call: Does it.

        Raises:
            ModelNotFound, VersionNotFound: There is no such thing.
            Refused: The repository does not take it; nothing is changed.
        """
        try:
            # On a thread of its own: a publisher may hold the model for minutes.
            await asyncio.to_thread(call, self._repository)
        except models.errors.ModelNotFound as error:
            raise ModelNotFound(str(error)) from None
        except models.errors.VersionNotFound as error:
            raise VersionNotFound(str(error)) from None
        except models.errors.ModelsError as error:
            raise Refused(str(error)) from None
        except OSError as error:
            raise Refused(f"the models directory cannot be changed: {error.strerror}") from error
        logger.info("%s had %s: %s", caller, name, what)
        await self._reloader.look()

    async def load(self, caller: str, name: str, patience_s: float) -> None:
        """Have a model served, and wait until it is.

        Args:
            caller: Who wants it, for the log.
            name: The model's.
            patience_s: How long to wait.

        Raises:
            ModelNotFound: It is not there.
            Refused: It cannot be loaded.
            ModelNotReady: It is still being loaded.
        """
        await self.change(caller, name, "load", lambda repository: repository.load(name))
        try:
            await asyncio.wait_for(self._reloader.settled(name), patience_s)
        except TimeoutError:
            raise ModelNotReady(f"{name} is still being loaded", LOADING_RETRY_AFTER_S) from None
        refusal = self._registry.refusals.get(name)
        if refusal is not None and name not in self._registry.live:
            raise Refused(f"{name} {refusal.version or ''} could not be loaded: {refusal.error}: {refusal.detail}")

    async def unload(self, caller: str, name: str) -> None:
        """Have a model served no more; what was admitted is still answered.

        Raises:
            ModelNotFound: It is not there.
            Refused: The repository does not take it.
        """
        await self.change(caller, name, "unload", lambda repository: repository.unload(name))
