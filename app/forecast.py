"""What admission predicts: how long a model's work will take, by what was measured of it."""

import math

from app.crew import Crew
from app.latency import LatencyCurve

SMOOTHING = 0.1


class Forecast:
    """Seconds that are expected of a model's work. Asked on the event loop, told by any thread.

    Args:
        curve: The model's measured latency.
        crew: Who does the work.
        max_batch_size: Most items in a batch.
    """

    def __init__(self, curve: LatencyCurve, crew: Crew, max_batch_size: int) -> None:
        self._curve = curve
        self._crew = crew
        self._max_batch_size = max_batch_size
        self._decode_s = 0.0
        self._wanted = self._taken = 0.0
        self._share_taken = 1.0

    def learn_decoding(self, seconds: float) -> None:
        """Take the time of a decoded item into account."""
        self._decode_s += SMOOTHING * (seconds - self._decode_s)

    def learn_batch(self, wanted: int, taken: int) -> None:
        """Take into account how much smaller unlike lengths make batches.

        Args:
            wanted: Items that could have gone together, at least 1.
            taken: Those that did.
        """
        # Large batches count for more; single items count too, or a model that is never given two at a time again
        # would never be found to take them.
        self._wanted += SMOOTHING * (wanted - self._wanted)
        self._taken += SMOOTHING * (taken - self._taken)
        # One assignment: the event loop reads it while a worker is here.
        self._share_taken = self._taken / self._wanted

    @property
    def best_size(self) -> int:
        """Items that are best run as one batch."""
        return min(self._max_batch_size, self._curve.best_size)

    def decode_s(self, items: int) -> float:
        """Seconds of one thread to decode so many items."""
        return items * self._decode_s

    def run_s(self, items: int) -> float:
        """Seconds of one thread to run so many items."""
        return self._curve.work_s(items, max(1, round(self.best_size * self._share_taken)))

    def own_s(self, items: int, *, idle: bool) -> float:
        """Seconds from when a request's own items are begun until they are answered.

        Args:
            items: Of the request; the threads share them.
            idle: Nothing else is there to be done.
        """
        each = math.ceil(items / self._crew.runners.threads)
        if not idle:
            return self.decode_s(math.ceil(items / self._crew.decoders.threads)) + self.run_s(each)
        # An idle model is asked only what no batch ever beat: a slow spell must not refuse the very request that
        # would show it to be over.
        full, rest = divmod(each, self._max_batch_size)
        return full * self._curve.least_s(self._max_batch_size) + (self._curve.least_s(rest) if rest else 0.0)
