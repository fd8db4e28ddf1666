"""A model's first batches: what each size takes, once the model is warm."""

import logging
import statistics
import time
from collections.abc import Mapping, Sequence
from itertools import cycle, islice

import torch
from torch import Tensor

from app.latency import LatencyCurve
from models.bundle import Bundle
from models.preparation import preparation_of
from models.runnable import Run

logger = logging.getLogger(__name__)

# Of each size at warm-up: so long, or so many runs.
MEASURED_S = 0.02
MOST_MEASUREMENTS = 9
# Of throughput, from one batch size to the next: less may be noise.
RISEN = 1.05
# What takes this long is measured well in one run, and costs a start too much to be doubled in vain.
LONG_S = 0.05
# What comes alone is mostly one item; the time of larger batches follows from that of two.
LARGEST_ALONE = 2


def warm_up(run: Run, bundle: Bundle, sizes: Sequence[int], threads: int) -> tuple[LatencyCurve, int]:
    """Run batch sizes as often as the manifest says; return what each takes once warm, and the largest that fits.

    Sizes that do not fit the device's memory are left out, and so are those after throughput stopped to grow: no
    batch would be cut to them.

    Args:
        run: The model, just loaded.
        bundle: Whose golden inputs are run.
        sizes: Of batches, the smallest first.
        threads: Of the CPU, that a batch may use when it has the machine to itself.

    Raises:
        OutOfMemoryError: Not even the first fits.
    """
    manifest = bundle.manifest
    # Its own limits, not the service's: a tight limit on requests must not keep a model from loading.
    preparation = preparation_of(manifest, bundle.read)
    examples = [preparation.prepare(bundle.read(golden.file)) for golden in manifest.golden]
    repeats = manifest.warmup.repeats
    measured_s: dict[int, float] = {}
    alone_s: dict[int, float] = {}
    fitting = max(sizes)
    for size in sizes:
        # Real inputs: a text of nothing but padding is none that a graph must take.
        batch = preparation.collate(list(islice(cycle(examples), size)))
        try:
            measured_s[size] = _seconds(run, batch, 1, repeats)
            if threads > 1 and size <= LARGEST_ALONE:
                alone_s[size] = _seconds(run, batch, threads, repeats)
        except torch.OutOfMemoryError:
            if not measured_s:
                raise
            logger.warning("batches of %d do not fit the memory; smaller ones are served", size)
            fitting = max(measured_s)
            break
        if _stopped_growing(measured_s):
            break
    return LatencyCurve(measured_s, {threads: alone_s} if alone_s else None), fitting


def _seconds(run: Run, batch: Tensor, threads: int, repeats: int) -> float:
    times_s = [_time_s(run, batch, threads) for _ in range(repeats)]
    # The first two runs of a shape may compile, so only what follows tells its speed.
    warm_s = times_s[2:] or times_s
    # What takes little is measured more often: noise is a larger part of it.
    while sum(warm_s) < MEASURED_S and len(warm_s) < MOST_MEASUREMENTS:
        warm_s.append(_time_s(run, batch, threads))
    return statistics.median(warm_s)


def _time_s(run: Run, batch: Tensor, threads: int) -> float:
    start_s = time.perf_counter()
    run(batch, threads)
    return time.perf_counter() - start_s


def _stopped_growing(measured_s: Mapping[int, float]) -> bool:
    """Whether throughput did not rise with the last size; with short batches, which are noisy, the last two."""
    rates = [size / seconds for size, seconds in measured_s.items()]
    patience = 1 if max(measured_s.values()) > LONG_S else 2
    return len(rates) > patience and max(rates[-patience:]) < RISEN * max(rates[:-patience])
