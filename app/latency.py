"""A model's measured batch-latency curve: what admission predicts from, and what fixes the batch size."""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Self

SMOOTHING = 0.2
FADING = 0.01
# A larger batch must be worth its wait: the smallest within this share of the best throughput is taken.
GOOD_ENOUGH = 0.95


class LatencyCurve:
    """Seconds a batch takes, by its size and threads; measured at warm-up and kept current by every batch since.

    Many batches at once run one thread each, and their throughput is what fixes the batch size; a batch that has
    the machine to itself may use more threads.

    Args:
        warmup_s: Batch size -> seconds on one thread, for at least one size; the sizes that batches may be cut to.
        alone_s: Threads -> batch size -> seconds, of a batch that has the machine to itself.
    """

    def __init__(
        self, warmup_s: Mapping[int, float], alone_s: Mapping[int, Mapping[int, float]] | None = None
    ) -> None:
        self._sizes = sorted(warmup_s)
        # By threads, then by size.
        self._warmup_s = {1: warmup_s, **(alone_s or {})}
        self._mean_s = {threads: dict(its_s) for threads, its_s in self._warmup_s.items()}
        self._least_s = {
            size: min(its_s[size] for its_s in self._warmup_s.values() if size in its_s) for size in warmup_s
        }
        self.best_size = self._choose()

    @property
    def sizes(self) -> Sequence[int]:
        """That batches may be cut to, the smallest first."""
        return self._sizes

    def copied(self) -> Self:
        """One that knows the same, and learns for itself from now on."""
        return copy(self)  # What it learns replaces what it holds.

    def record(self, size: int, seconds: float, threads: int = 1) -> None:
        """Take a measured batch into account."""
        recovered = self._recovered()
        mean_s = (1 - SMOOTHING) * self._mean_s[threads].get(size, seconds) + SMOOTHING * seconds
        # Replaced whole, not changed: the event loop reads them while a worker records.
        self._mean_s = {**recovered, threads: {**recovered[threads], size: mean_s}}
        self._least_s = {**self._least_s, size: min(seconds, self._least_s.get(size, seconds))}
        self.best_size = self._choose()

    def mean_s(self, size: int, threads: int = 1) -> float:
        """Seconds that a batch of this size is expected to take."""
        return _interpolate(self._mean_s[threads], size)

    def least_s(self, size: int) -> float:
        """Seconds that a batch of this size took at its fastest: less than this was never seen."""
        return _interpolate(self._least_s, size)

    def threads_for(self, size: int) -> int:
        """Threads with which a batch that has the machine to itself is done soonest."""
        return min(self._mean_s, key=lambda threads: (self.mean_s(size, threads), threads))

    def work_s(self, items: int, batch_size: int) -> float:
        """Seconds expected for this many items, cut into batches of this size."""
        full, rest = divmod(items, batch_size)
        return full * self.mean_s(batch_size) + (self.mean_s(rest) if rest else 0.0)

    def _recovered(self) -> dict[int, dict[int, float]]:
        # What once met a slow spell is not chosen, so never measured, so never found to be fast again: unless what
        # is held against it fades.
        return {
            threads: {
                size: mean_s + FADING * (self._warmup_s[threads].get(size, mean_s) - mean_s)
                for size, mean_s in its_s.items()
            }
            for threads, its_s in self._mean_s.items()
        }

    def _choose(self) -> int:
        rates = {size: size / max(self._mean_s[1][size], 1e-9) for size in self._sizes}
        enough = GOOD_ENOUGH * max(rates.values())
        return next(size for size in self._sizes if rates[size] >= enough)


def buckets(max_batch_size: int) -> list[int]:
    """The batch sizes that are warmed up: powers of two, and the largest."""
    powers = [1 << power for power in range(max_batch_size.bit_length())]
    return sorted({*powers, max_batch_size})


def _interpolate(points: Mapping[int, float], size: int) -> float:
    if size in points:
        return points[size]
    below = max((known for known in points if known < size), default=None)
    above = min((known for known in points if known > size), default=None)
    if above is None:
        # Beyond the largest that was measured, latency grows with the items.
        largest = max(points)
        return points[largest] * size / largest
    if below is None:
        return points[above]
    share = (size - below) / (above - below)
    return points[below] + share * (points[above] - points[below])
