"""How long to wait before a worker process that died is started anew."""

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0
# Whoever lived for so long did not die of its start.
STEADY_S = 60.0


class Backoff:
    """At once after a first death; longer and longer while it dies again soon after its start."""

    def __init__(self) -> None:
        self._quick_deaths = 0

    def wait_s(self, lived_s: float) -> float:
        """Take note of a death; return the seconds to wait.

        Args:
            lived_s: From its start to its death.
        """
        if lived_s >= STEADY_S:
            self._quick_deaths = 0
        self._quick_deaths += 1
        if self._quick_deaths == 1:
            return 0.0
        return float(min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(30, self._quick_deaths - 2)))
