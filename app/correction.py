"""How far off predictions of waiting are, by those that came true."""

SMOOTHING = 0.03
# Mean deviations above the mean: of a hundred waits well under one is longer. Were they normal, 3 would do; but
# they come in steps as long as a batch, and a machine slows down at once.
DEVIATIONS = 6.0
MOST = 4.0
# In so many seconds without a wait to learn from, half is forgotten; or what refuses all would never be unlearned.
HALVED_IN_S = 5.0


class Correction:
    """What predicted seconds are multiplied by, so that few requests take longer than they were given.

    A model's speed changes with what else the machine does, and what is admitted up to the last moment that a
    wrong prediction allows is run in vain. Mean and mean deviation are smoothed as TCP's of round trips. Used on
    the event loop only.

    Source: Jacobson, Congestion avoidance and control, 1988, appendix A.
    """

    def __init__(self) -> None:
        self._expected_s = self._taken_s = self._off_s = 0.0
        self._learned_at_s = 0.0

    def learn(self, expected_s: float, taken_s: float, now_s: float) -> None:
        """Take a wait that ended into account; long ones count for more."""
        self._expected_s += SMOOTHING * (expected_s - self._expected_s)
        self._taken_s += SMOOTHING * (taken_s - self._taken_s)
        off_s = abs(taken_s - expected_s * self._taken_s / self._expected_s)
        self._off_s += SMOOTHING * (off_s - self._off_s)
        self._learned_at_s = now_s

    def factor(self, now_s: float) -> float:
        """From 1 to `MOST`."""
        if not self._expected_s:
            return 1.0
        learned = (self._taken_s + DEVIATIONS * self._off_s) / self._expected_s
        kept: float = 0.5 ** ((now_s - self._learned_at_s) / HALVED_IN_S)
        return 1.0 + kept * (min(max(learned, 1.0), MOST) - 1.0)
