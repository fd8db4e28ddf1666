"""A model's first batches: what each size takes, once the model is warm."""

import logging
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import NamedTuple

import torch
from torch import Tensor

from app.latency import LatencyCurve
from models.bundle import Bundle
from models.pause import Pause, no_pause
from models.preparation import ImagePreparation, TextPreparation, preparation_of
from models.runnable import Run

logger = logging.getLogger(__name__)

# Of each size at warm-up: so long, or so many runs.
MEASURED_S = 0.02
MOST_MEASUREMENTS = 9
# Of throughput, from one batch size to the next: less may be noise.
RISEN = 1.05
# What takes this long is measured well in one run, and costs a start too much to be doubled in vain.
LONG_S = 0.05
# Two versions take as long if one item takes at most so many times as long in one as in the other.
ALIKE = 1.5
# What comes alone is mostly one item; the time of larger batches follows from that of two.
LARGEST_ALONE = 2


class Times(NamedTuple):
    """What a batch took: by the clock, and of the processor where that is known. A busy service is in the way."""

    wall_s: float
    own_s: float

    @property
    def held_up(self) -> float:
        """How many times longer it took for those who were in the way."""
        return max(1.0, self.wall_s / self.own_s) if self.own_s > 0 else 1.0


@dataclass(frozen=True)
class Trials:
    """Runs of a model that has just been loaded, on its golden inputs: as many of them as a batch wants.

    Attributes:
        repeats: How often a size is run at least, to be warm.
        pause: Called after each.
    """

    run: Run
    preparation: ImagePreparation | TextPreparation
    examples: Sequence[Tensor]
    repeats: int
    pause: Pause

    def measure(self, size: int, threads: int) -> Times:
        """Run a size until it is warm, and tell what it takes then."""
        batch = self._batch(size)
        times = [self._time(batch, threads) for _ in range(self.repeats)]
        # The first two runs of a shape may compile, so only what follows tells its speed.
        warm = times[2:] or times
        # What takes little is measured more often: noise is a larger part of it.
        while sum(each.own_s for each in warm) < MEASURED_S and len(warm) < MOST_MEASUREMENTS:
            warm.append(self._time(batch, threads))
        return Times(*map(statistics.median, zip(*warm, strict=True)))

    def run_once(self, size: int) -> None:
        """Run a size, for whatever its first run costs."""
        self._time(self._batch(size), 1)

    def _batch(self, size: int) -> Tensor:
        # Real inputs: a text of nothing but padding is none that a graph must take.
        return self.preparation.collate(list(islice(cycle(self.examples), size)))

    def _time(self, batch: Tensor, threads: int) -> Times:
        start_s, own_start_s = time.perf_counter(), time.thread_time()
        self.run(batch, threads)
        own_s, wall_s = time.thread_time() - own_start_s, time.perf_counter() - start_s
        self.pause()
        return Times(wall_s, own_s if self.run.on_caller and threads == 1 else wall_s)


def warm_up(
    run: Run,
    bundle: Bundle,
    sizes: Sequence[int],
    threads: int,
    pause: Pause = no_pause,
    known: LatencyCurve | None = None,
) -> tuple[LatencyCurve, int]:
    """Run batch sizes as often as the manifest says; return what each takes once warm, and the largest that fits.

    Sizes that do not fit the device's memory are left out, and so are those after throughput stopped to grow: no
    batch would be cut to them.

    Args:
        run: The model, just loaded.
        bundle: Whose golden inputs are run.
        sizes: Of batches, from 1 on.
        threads: Of the CPU, that a batch may use when it has the machine to itself.
        pause: Called after each batch.
        known: What the same sizes take in another version of the model. If one item takes about as long in this
            one, more will too: those that are in use are then run but once.

    Raises:
        OutOfMemoryError: Not even the first fits.
    """
    manifest = bundle.manifest
    # Its own limits, not the service's: a tight limit on requests must not keep a model from loading.
    preparation = preparation_of(manifest, bundle.read)
    examples = [preparation.prepare(bundle.read(golden.file)) for golden in manifest.golden]
    trials = Trials(run, preparation, examples, manifest.warmup.repeats, pause)
    if known is None or not _is_alike(trials.measure(1, 1).own_s, known):
        return _measure_all(trials, sizes, threads)
    for size in known.sizes:
        if 1 < size <= known.best_size:
            trials.run_once(size)
    return known.copied(), max(sizes)


def _is_alike(one_s: float, known: LatencyCurve) -> bool:
    return known.least_s(1) / ALIKE <= one_s <= known.mean_s(1) * ALIKE


def _measure_all(trials: Trials, sizes: Sequence[int], threads: int) -> tuple[LatencyCurve, int]:
    measured_s: dict[int, float] = {}
    alone_s: dict[int, float] = {}
    fitting = max(sizes)
    for size in sizes:
        try:
            single = trials.measure(size, 1)
            measured_s[size] = single.own_s
            if threads > 1 and size <= LARGEST_ALONE:
                # Several threads' own time is not to be had: what others took of one is taken off theirs too.
                alone_s[size] = trials.measure(size, threads).wall_s / single.held_up
        except torch.OutOfMemoryError:
            if not measured_s:
                raise
            logger.warning("batches of %d do not fit the memory; smaller ones are served", size)
            fitting = max(measured_s)
            break
        if _stopped_growing(measured_s):
            break
    return LatencyCurve(measured_s, {threads: alone_s} if alone_s else None), fitting


def _stopped_growing(measured_s: Mapping[int, float]) -> bool:
    """Whether throughput did not rise with the last size; with short batches, which are noisy, the last two."""
    rates = [size / seconds for size, seconds in measured_s.items()]
    patience = 1 if max(measured_s.values()) > LONG_S else 2
    return len(rates) > patience and max(rates[-patience:]) < RISEN * max(rates[:-patience])
