"""A model's measured batch-latency curve: what admission predicts from, and what fixes the batch size."""

from collections.abc import Mapping

SMOOTHING = 0.2
FADING = 0.01
# A larger batch must be worth its wait: the smallest within this share of the best throughput is taken.
GOOD_ENOUGH = 0.95


class LatencyCurve:
    """Seconds a batch takes, by its size; measured at warm-up and kept current by every batch since.

    Args:
        warmup_s: Batch size -> seconds, for at least one size; the sizes that batches may be cut to.
    """

    def __init__(self, warmup_s: Mapping[int, float]) -> None:
        self._sizes = sorted(warmup_s)
        self._warmup_s = dict(warmup_s)
        self._mean_s = dict(warmup_s)
        self._least_s = dict(warmup_s)
        self.best_size = self._choose()

    def record(self, size: int, seconds: float) -> None:
        """Take a measured batch into account."""
        mean_s = (1 - SMOOTHING) * self._mean_s.get(size, seconds) + SMOOTHING * seconds
        least_s = min(seconds, self._least_s.get(size, seconds))
        # Replaced whole, not changed: the event loop reads them while a worker records.
        self._mean_s = {**self._mean_s, **self._recovered(), size: mean_s}
        self._least_s = {**self._least_s, size: least_s}
        self.best_size = self._choose()

    def mean_s(self, size: int) -> float:
        """Seconds that a batch of this size is expected to take."""
        return _interpolate(self._mean_s, size)

    def least_s(self, size: int) -> float:
        """Seconds that a batch of this size took at its fastest: less than this was never seen."""
        return _interpolate(self._least_s, size)

    def work_s(self, items: int) -> float:
        """Seconds expected for this many items, cut into batches of the best size."""
        full, rest = divmod(items, self.best_size)
        return full * self.mean_s(self.best_size) + (self.mean_s(rest) if rest else 0.0)

    def _recovered(self) -> dict[int, float]:
        # A size that once met a slow spell is not chosen, so never measured, so never found to be fast again:
        # unless what is held against it fades.
        return {
            size: mean_s + FADING * (self._warmup_s[size] - mean_s)
            for size, mean_s in self._mean_s.items()
            if size in self._warmup_s
        }

    def _choose(self) -> int:
        rates = {size: size / max(self._mean_s[size], 1e-9) for size in self._sizes}
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
