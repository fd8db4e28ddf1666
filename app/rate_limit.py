"""How often one client may ask. Used on the event loop only.

Source: the generic cell rate algorithm, ITU-T I.371 Annex A; a token bucket with one number a client.
"""

import time
from collections import OrderedDict
from collections.abc import Callable

MOST_CLIENTS = 100_000
# Sums of seconds are rounded: the last request of a burst must not be refused for a part of a nanosecond.
ROUNDING_S = 1e-6


class RateLimiter:
    """Allows each client a rate on average, and a burst on top.

    Args:
        per_s: Requests a second, on average.
        burst: Requests that may come at once.
        most_clients: How many are remembered; then the one that was quiet for longest is forgotten.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        per_s: float,
        burst: int,
        most_clients: int = MOST_CLIENTS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval_s = 1 / per_s
        self._tolerance_s = (burst - 1) / per_s
        self._most_clients = most_clients
        self._clock = clock
        # When each client's allowance would be whole again, in the order of their last requests.
        self._whole_again_s: OrderedDict[str, float] = OrderedDict()

    def ask(self, client: str) -> float:
        """Count a request and return 0, or count nothing and return the seconds until one will be allowed."""
        now_s = self._clock()
        debt_s = max(0.0, self._whole_again_s.get(client, now_s) - now_s)
        if debt_s > self._tolerance_s + ROUNDING_S:
            return debt_s - self._tolerance_s
        self._whole_again_s[client] = now_s + debt_s + self._interval_s
        self._whole_again_s.move_to_end(client)
        if len(self._whole_again_s) > self._most_clients:
            self._whole_again_s.popitem(last=False)
        return 0.0
