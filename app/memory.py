"""What memory the process holds, and its way out when that grows over a bound: a model may leak.

Nothing can take memory back from a model. A process that is started anew begins without what was kept.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
# Soon after, so that what requests leave behind does not count as the models'.
UNTIL_LOADED_S = 0.1
STATM = Path("/proc/self/statm")
# Of worker processes that grow alike, each leaves at a bound of its own: so much lower, the last of them.
SPREAD = 0.1


def resident_bytes() -> int:
    """Physical memory that the process holds; 0 where the system does not say."""
    try:
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def bound_of(number: int, workers: int, most_bytes: int) -> int:
    """The bound of one of several worker processes, which are not to leave together.

    Args:
        number: Its place among them, from 1.
        workers: How many there are.
        most_bytes: What each may hold at most.
    """
    return round(most_bytes * (1 - SPREAD * (number - 1) / workers))


class MemoryWatch:
    """Looks at what the process holds. Used on the event loop only.

    Args:
        most_bytes: It may hold.
        has_loaded: Whether the models are there, all that can be loaded.
        leave: Has the process leave.
    """

    def __init__(self, most_bytes: int, has_loaded: Callable[[], bool], leave: Callable[[], None]) -> None:
        self._most_bytes = most_bytes
        self._has_loaded = has_loaded
        self._leave = leave

    async def watch(self) -> None:
        """Look now and then, and leave when it is too much."""
        # One that is refused keeps the service from being ready, and the others from leaking not at all.
        while not self._has_loaded():  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(UNTIL_LOADED_S)
        logger.info("the models are there: %d bytes are held, of at most %d", resident_bytes(), self._most_bytes)
        if self._is_over():
            # Whoever took its place would hold as much, and leave again and again.
            logger.error("LANTERN_MAX_MEMORY_BYTES has no effect: the models alone take more; raise it")
            return
        while not self._is_over():  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(LOOK_EVERY_S)
        logger.critical("over LANTERN_MAX_MEMORY_BYTES are held: the process leaves, to be started anew")
        self._leave()

    def _is_over(self) -> bool:
        return resident_bytes() > self._most_bytes
