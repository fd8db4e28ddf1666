"""Changes of the repository that are asked for over HTTP: written there first, and then taken over here.

The repository stays the one place that says what is to be served: other worker processes, and whoever starts
later, follow it.
"""

import asyncio
import errno
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

import models.errors
from app.errors import ModelNotFound, ModelNotReady, Refused, ServingError, StorageFull, VersionNotFound
from app.registry import LOADING_RETRY_AFTER_S, Refusal, Registry
from app.reloading import Reloader
from models.repository import Repository
from models.standing import Change

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
        result = await self._write(caller, name, what, call)
        if is_in_force(result):
            await self._look_shortly()
        else:
            await self._in_force(name, self._reloader.look())
        return result

    async def try_version(self, caller: str, name: str, version: str, share: float, shadow: float) -> None:
        """Have a version tried, also one that hung or could not be loaded before.

        Args:
            caller: As of `change`.
            name: As of `change`.
            version: Which.
            share: Of the requests, which it answers.
            shadow: Of the requests, which it is asked too.

        Raises:
            ModelNotFound, VersionNotFound, StorageFull: As of `change`.
            ModelNotReady: It is not loaded yet. If it turns out that it cannot be, nothing will be changed.
            Refused: The repository does not take it, or it cannot be loaded here; nothing is changed.
        """
        self._reloader.retry(name)
        what = f"try {version} on {share:.1%}, compare on {shadow:.1%}"
        change = await self._write(
            caller, name, what, lambda repository: repository.set_candidate(name, version, share, shadow)
        )
        if self._is_tried(name, version):
            await self._look_shortly()
        else:
            await self._in_force(name, self._until_tried(name, change))

    async def make_current(self, caller: str, name: str, what: str, call: Callable[[Repository], Change]) -> None:
        """Make a change that makes a version the current one, and wait until that answers here.

        Of a model that is unloaded it will answer once that is loaded again: then there is nothing to wait for.

        Args:
            caller: As of `change`.
            name: As of `change`.
            what: As of `change`.
            call: Does it.

        Raises:
            ModelNotFound, VersionNotFound, StorageFull: As of `change`.
            ModelNotReady: It is not loaded yet. If it turns out that it cannot be, nothing will be changed.
            Refused: The repository does not take it, or it cannot be loaded here, and nothing is changed; or
                somebody else made another version the current one meanwhile.
        """
        self._reloader.retry(name)
        change = await self._write(caller, name, what, call)
        await self._in_force(name, self._until_current(name, change))

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
        refusal = self._registry.refusals.get(name)
        if name not in self._registry.live and refusal is not None:
            raise Refused(_could_not_be_loaded(name, refusal))

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

    async def _write(self, caller: str, name: str, what: str, call: Callable[[Repository], Result]) -> Result:
        result = await self._call(call)
        logger.info("%s had %s: %s", caller, name, what)
        self._reloader.tell_of_change(name)
        await self._reloader.heed(name)
        return result

    async def _until_tried(self, name: str, change: Change) -> None:
        """Wait until a version was loaded, or take back that it is tried."""
        await self._reloader.look()
        refusal = self._registry.other_refusals.get(name, {}).get(change.version)
        if refusal is not None:
            await self._take_back(name, change, refusal)

    async def _until_current(self, name: str, change: Change) -> None:
        """Wait until a version answers as the current one, or take back that it is."""
        version = change.version
        if self._serves(name, version):
            await self._look_shortly()
        else:
            await self._reloader.look()
        await self._until_settled(name, version)
        now = await self._current_version(name)
        if now != version:
            raise Refused(f"{name} {now} was made the current version meanwhile, and not {version}")
        refusal = self._registry.refusals.get(name)
        if refusal is not None and refusal.version == version:
            await self._take_back(name, change, refusal)

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

    def _is_tried(self, name: str, version: str) -> bool:
        tried = self._registry.tried(name)
        return tried is not None and tried.manifest.version == version

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
        task.add_done_callback(self._end)
        return task

    def _end(self, task: asyncio.Task[None]) -> None:
        self._looks.discard(task)
        # What came of it, whoever still waits is told; where nobody does, the log was.
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, ServingError):
            logger.error("what an administrator had changed could not be seen to", exc_info=error)

    async def _in_force(self, name: str, waiting: Coroutine[Any, Any, None]) -> None:
        try:
            await asyncio.wait_for(asyncio.shield(self._begin(waiting)), self._patience_s)
        except TimeoutError:
            detail = f"{name}: the change is made, and will be in force once what is loaded now is there"
            raise ModelNotReady(detail, LOADING_RETRY_AFTER_S) from None

    async def _take_back(self, name: str, change: Change, refusal: Refusal) -> NoReturn:
        """Undo a change that put a version where it cannot serve; whoever starts next would serve nothing."""
        try:
            is_back = await self._call(lambda repository: repository.take_back(name, change))
            outcome = "nothing is changed" if is_back else "the model's files stay as they are now"
        except ServingError as error:
            outcome = f"it could not be taken back: {error.detail}"
        logger.warning("%s %s could not be loaded: %s", name, change.version, outcome)
        self._reloader.tell_of_change(name)
        await self._look_shortly()
        raise Refused(f"{_could_not_be_loaded(name, refusal)}; {outcome}")


def _could_not_be_loaded(name: str, refusal: Refusal) -> str:
    return f"{name} {refusal.version or ''} could not be loaded: {refusal.error}: {refusal.detail}"
