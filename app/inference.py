"""A loaded model: one backend on one device, warm and checked. Axes: N items, K labels, B texts, T tokens."""

import logging
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice

import torch
from torch import Tensor

from app.backends import usable
from app.latency import LatencyCurve, buckets
from app.settings import Precision
from models.backend import Backend
from models.bundle import Bundle
from models.errors import BackendUnavailable, BundleError, GoldenMismatch
from models.golden import Outputs, check_golden
from models.preparation import Preparation, preparation_of
from models.runnable import Run, runnable
from models.tokenization import Tokenizer

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


class ModelUnusable(BundleError):
    """The bundle is whole, but no backend of it runs on this machine and device."""


@dataclass(frozen=True)
class LoadedModel:
    """A bundle's model, ready to run.

    Attributes:
        preparation: Raw input -> example -> batch.
        writer: Turns the tokens that it writes into text, if it writes any.
    """

    bundle: Bundle
    backend: Backend
    device: torch.device
    preparation: Preparation
    writer: Tokenizer | None
    run: Run
    curve: LatencyCurve
    max_batch_size: int

    def infer(self, examples: Sequence[Tensor], threads: int = 1) -> Outputs:
        """Run examples as one batch, on so many threads of the CPU.

        Raises:
            ValueError: The model gave something of another shape.
        """
        N = len(examples)
        outputs = self.run(self.preparation.collate(examples), threads)
        if self.writer is None and isinstance(outputs, Tensor):
            if outputs.shape == (N, len(self.bundle.manifest.labels)):
                return outputs
        elif self.writer is not None and not isinstance(outputs, Tensor):
            tokens_NBT, scores_NB = outputs
            if tokens_NBT.ndim == 3 and tokens_NBT.shape[:2] == scores_NB.shape and len(scores_NB) == N:
                return outputs
        shapes = [tuple(part.shape) for part in ((outputs,) if isinstance(outputs, Tensor) else outputs)]
        raise ValueError(f"outputs of shape {shapes} for {N} items")


def load(
    bundle: Bundle,
    device: torch.device,
    max_batch_size: int,
    max_pixels: int | None = None,
    threads: int = 1,
    precision: Precision = "auto",
) -> LoadedModel:
    """Load, freeze and warm up a verified bundle, and run its golden check.

    Args:
        bundle: Its listed bytes are read again and hashed, and loaded from those very bytes.
        device: Where to run it.
        max_batch_size: The service's limit; the tighter of this and the model's applies.
        max_pixels: Likewise, of an image.
        threads: CPU threads that a batch may use when it has the machine to itself.
        precision: Of the bundle's backends, which may serve.

    Raises:
        BundleError: It cannot be used, with the reason; whatever torch raised is its cause.
    """
    manifest = bundle.manifest
    largest = min(max_batch_size, manifest.limits.max_batch_size)
    preparation = preparation_of(manifest, bundle.read, max_pixels)
    writer = Tokenizer(bundle.read(manifest.write.file)) if manifest.write else None
    at_most = threads if device.type == "cpu" else 1
    reasons: list[str] = []
    mismatch: GoldenMismatch | None = None
    for backend in usable(manifest, device, precision):
        try:
            run = runnable(backend, bundle.read, device, threads)
            curve, fitting = _warm_up(run, bundle, buckets(largest), at_most)
            # Both ways that a batch may be run.
            for count in sorted({1, at_most}):
                check_golden(bundle, backend, partial(run, threads=count))
        except GoldenMismatch as error:
            logger.error("backend %s of %s is passed over: %s", backend.id, manifest.name, error)
            mismatch = error
            continue
        except BackendUnavailable as error:
            logger.warning("backend %s of %s is passed over: %s", backend.id, manifest.name, error)
            reasons.append(f"{backend.id}: {error}")
            continue
        except BundleError:
            raise
        except Exception as error:
            logger.exception("backend %s of %s cannot be used", backend.id, bundle.directory.name)
            reasons.append(f"{backend.id}: {type(error).__name__}")
            continue
        return LoadedModel(bundle, backend, device, preparation, writer, run, curve, fitting)
    if mismatch is not None:
        raise mismatch
    detail = "; ".join(reasons) or f"none of its backends runs on {device.type}"
    raise ModelUnusable(f"{manifest.name}/{manifest.version}: {detail}")


def _warm_up(run: Run, bundle: Bundle, sizes: Sequence[int], threads: int) -> tuple[LatencyCurve, int]:
    """Run batch sizes as often as the manifest says; return what each takes once warm, and the largest that fits.

    Sizes that do not fit the device's memory are left out, and so are those after throughput stopped to grow: no
    batch would be cut to them.
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
