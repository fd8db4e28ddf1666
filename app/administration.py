"""Changes of the repository that are asked for over HTTP: written there first, and then taken over here.

The repository stays the one place that says what is to be served: other worker processes, and whoever starts
later, follow it.
"""

import asyncio
import errno
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import models.errors
from app.errors import ModelNotFound, ModelNotReady, Refused, StorageFull, VersionNotFound
from app.registry import LOADING_RETRY_AFTER_S, Registry
from app.reloading import Reloader
from models.repository import Repository

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

# Of what is in force already, how long an answer waits for the rest to be seen to.
SHORTLY_S = 1.0
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Administration:
    """Makes changes, and waits until they are in force in this process. Used on the event loop only.

    Args:
        repository: What is changed.
        registry: What is live.
        reloader: Takes changes over.
        patience_s: How long to wait until one is in force.
    """

    def __init__(self, repository: Repository, registry: Registry, reloader: Reloader, patience_s: float) -> None:
        self._repository = repository
        self._registry = registry
        self._reloader = reloader
        self._patience_s = patience_s
        self._looks: set[asyncio.Task[None]] = set()

    async def change(
        self,
        caller: str,
        name: str,
        what: str,
        call: Callable[[Repository], Result],
        is_in_force: Callable[[Result], bool] = lambda _: False,
    ) -> Result:
        """Make a change, and look at the repository anew.

        Args:
            caller: Who wants it, for the log.
            name: The model's.
            what: It does, for the log.
            call: Does it.
            is_in_force: Whether it needs no load, and so need not wait for what is being loaded.

        Raises:
            ModelNotFound, VersionNotFound: There is no such thing.
            Refused: The repository does not take it; nothing is changed.
            StorageFull: There is no room for it; nothing is changed.
            ModelNotReady: It is made, and not in force yet.
        """
        result = await self._call(call)
        logger.info("%s had %s: %s", caller, name, what)
        self._reloader.tell_of_change(name)
        await self._reloader.heed(name)
        if is_in_force(result):
            await self._look_shortly()
        else:
            await self._in_force(name, self._reloader.look())
        return result

    async def try_version(self, caller: str, name: str, what: str, call: Callable[[Repository], None]) -> None:
        """Have a version tried, also one that hung or could not be loaded; arguments and errors as `change`."""
        self._reloader.retry(name)
        await self.change(caller, name, what, call)

    async def make_current(self, caller: str, name: str, what: str, call: Callable[[Repository], str]) -> None:
        """Make a change that makes a version the current one, and wait until that answers here.

        Of a model that is unloaded it will answer once that is loaded again: then there is nothing to wait for.

        Args:
            caller: As of `change`.
            name: As of `change`.
            what: As of `change`.
            call: Does it, and returns the version.

        Raises:
            ModelNotFound, VersionNotFound, Refused, StorageFull, ModelNotReady: As of `change`.
            Refused: Somebody else made another version the current one meanwhile.
        """
        self._reloader.retry(name)
        version = await self.change(caller, name, what, call, partial(self._serves, name))
        await self._in_force(name, self._until_settled(name, version))
        now = await self._current_version(name)
        if now != version:
            raise Refused(f"{name} {now} was made the current version meanwhile, and not {version}")
        self._check_loaded(name, version)

    async def load(self, caller: str, name: str) -> None:
        """Have a model served, and wait until it is.

        Args:
            caller: Who wants it, for the log.
            name: The model's.

        Raises:
            ModelNotFound: It is not there.
            Refused: It cannot be loaded, or somebody else had it unloaded meanwhile.
            ModelNotReady: It is still being loaded.
        """
        self._reloader.retry(name)
        await self.change(caller, name, "load", lambda repository: repository.load(name))
        await self._in_force(name, self._reloader.settled(name))
        if name in self._registry.unloaded:
            raise Refused(f"{name} was unloaded meanwhile; load it again if it is to be served")
        if name not in self._registry.live:
            self._check_loaded(name, None)

    async def unload(self, caller: str, name: str) -> None:
        """Have a model served no more; what was admitted is still answered.

        Raises:
            ModelNotFound: It is not there.
            Refused: The repository does not take it.
            ModelNotReady: It is not in force yet.
        """
        await self.change(
            caller,
            name,
            "unload",
            lambda repository: repository.unload(name),
            lambda _: name in self._registry.unloaded,
        )

    async def stop(self, caller: str, name: str) -> None:
        """Try no version of a model any more; what the candidate admitted is still answered.

        Raises:
            ModelNotFound: It is not there.
            Refused: No version is tried, or the repository does not take it.
            ModelNotReady: It is not in force yet.
        """
        await self.change(
            caller,
            name,
            "try no more",
            lambda repository: repository.drop_candidate(name),
            lambda _: name not in self._registry.candidates,
        )

    async def _call(self, call: Callable[[Repository], Result]) -> Result:
        try:
            return await asyncio.to_thread(call, self._repository)
        except models.errors.ModelNotFound as error:
            raise ModelNotFound(str(error)) from None
        except models.errors.VersionNotFound as error:
            raise VersionNotFound(str(error)) from None
        except models.errors.ModelsError as error:
            raise Refused(str(error)) from None
        except OSError as error:
            kind = StorageFull if error.errno in NO_ROOM else Refused
            raise kind(f"the models directory cannot be changed: {error.strerror}") from error

    async def _until_settled(self, name: str, version: str) -> None:
        """Wait until a version is live or refused here, or another became the current one."""
        while True:
            news = self._reloader.news
            if self._reloader.has_settled(name, version) or await self._current_version(name) != version:
                return
            await news.wait()

    async def _current_version(self, name: str) -> str:
        current = await self._call(lambda repository: repository.current(name))
        return current.version

    def _serves(self, name: str, version: str) -> bool:
        live = self._registry.live.get(name)
        return live is not None and live.manifest.version == version

    async def _look_shortly(self) -> None:
        """Look for what else follows from a change; where something is being loaded, that has to wait."""
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._begin(self._reloader.look())), SHORTLY_S)

    def _begin(self, waiting: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin something that goes on if nobody waits for it any more."""
        task = asyncio.create_task(waiting)
        self._looks.add(task)
        task.add_done_callback(self._looks.discard)
        return task

    async def _in_force(self, name: str, waiting: Coroutine[Any, Any, None]) -> None:
        try:
            await asyncio.wait_for(asyncio.shield(self._begin(waiting)), self._patience_s)
        except TimeoutError:
            detail = f"{name}: the change is made, and will be in force once what is loaded now is there"
            raise ModelNotReady(detail, LOADING_RETRY_AFTER_S) from None

    def _check_loaded(self, name: str, version: str | None) -> None:
        refusal = self._registry.refusals.get(name)
        if refusal is not None and version in (None, refusal.version):
            raise Refused(f"{name} {refusal.version or ''} could not be loaded: {refusal.error}: {refusal.detail}")
