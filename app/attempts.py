"""Loads that failed: each is tried again later and later, for what made it fail may pass."""

import math
import time
from dataclasses import dataclass

FIRST_RETRY_S = 5.0
LONGEST_RETRY_S = 300.0


@dataclass(frozen=True)
class _Attempt:
    wanted: object
    wait_s: float
    again_s: float  # on the monotonic clock


class Attempts:
    """The last failure of each model, and of what."""

    def __init__(self) -> None:
        self._failed: dict[str, _Attempt] = {}

    def is_due(self, key: str, wanted: object) -> bool:
        """Whether to try: at once what is new, after a while what failed."""
        failed = self._failed.get(key)
        return failed is None or failed.wanted != wanted or time.monotonic() >= failed.again_s

    def note(self, key: str, wanted: object, *, for_good: bool = False) -> None:
        """Take note of a failure; one `for_good` is not tried again before it is forgotten."""
        if for_good:
            self._failed[key] = _Attempt(wanted, LONGEST_RETRY_S, math.inf)
            return
        before = self._failed.get(key)
        again = before is not None and before.wanted == wanted
        wait_s = min(LONGEST_RETRY_S, 2 * before.wait_s) if before and again else FIRST_RETRY_S
        self._failed[key] = _Attempt(wanted, wait_s, time.monotonic() + wait_s)

    def forget_all(self, begins: str) -> None:
        """Take note that everything whose key begins so may be tried."""
        self._failed = {key: failed for key, failed in self._failed.items() if not key.startswith(begins)}

    def forget(self, key: str) -> None:
        """Take note that nothing is wrong any more."""
        self._failed.pop(key, None)
