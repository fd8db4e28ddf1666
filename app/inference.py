"""A loaded model: one backend on one device, warm and checked. Axes: N items, K labels, B texts, T tokens."""

import io
import logging
import statistics
import threading
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import torch
from torch import Tensor

from app.batching import Output
from app.latency import LatencyCurve, buckets
from models.bundle import Bundle
from models.errors import BundleError, GoldenMismatch
from models.golden import Outputs, check_golden
from models.manifest import Backend
from models.preparation import Preparation, preparation_of
from models.tokenization import Tokenizer

logger = logging.getLogger(__name__)

# Known, decided (see TorchScriptBackend), and pinned by the torch version; once a call it would bury real news.
warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is deprecated", category=FutureWarning)

TORCH_VERSION: str = torch.__version__

# Loading compiles, and torch's compiler shares state between threads.
_loading = threading.Lock()


class ModelUnusable(BundleError):
    """The bundle is whole, but no backend of it runs on this machine and device."""


class TorchScriptBackend:
    """A TorchScript file, frozen on its device.

    TorchScript is deprecated upstream and kept because it is the artifact that users asked for; within `app`
    it is named only here. The file is code: what it was verified against is what makes it safe to load.
    """

    def __init__(self, content: bytes, device: torch.device) -> None:
        # Outside inference mode: tensors made inside it would stay inference tensors for good.
        with _loading:
            module = torch.jit.load(io.BytesIO(content), map_location=device).eval()
            self._module = torch.jit.freeze(module)
        self._device = device

    def __call__(self, batch: Tensor) -> Outputs:
        """Return float32 scores of shape NK, or tokens NBT and scores NB, on the CPU."""
        # The mode belongs to the thread, so it is entered where the batch runs.
        with torch.inference_mode():
            try:
                outputs: Outputs = self._module(batch.to(self._device))
                if isinstance(outputs, Tensor):
                    return outputs.float().cpu()
                tokens_NBT, scores_NB = outputs
                return tokens_NBT.cpu(), scores_NB.float().cpu()
            except torch.OutOfMemoryError:
                # The batch is tried again in halves; what this one left behind must not stand in their way.
                torch.cuda.empty_cache()
                raise


def use_threads(threads: int) -> None:
    """Let a batch on the CPU use this many threads."""
    torch.set_num_threads(threads)


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
    run: TorchScriptBackend
    curve: LatencyCurve
    max_batch_size: int

    def infer(self, examples: Sequence[Tensor]) -> Sequence[Output]:
        """Run examples as one batch; return an output for each, in order.

        Raises:
            ValueError: The model gave something of another shape.
        """
        N = len(examples)
        outputs = self.run(self.preparation.collate(examples))
        if self.writer is None and isinstance(outputs, Tensor):
            if outputs.shape == (N, len(self.bundle.manifest.labels)):
                return outputs.unbind(0)
        elif self.writer is not None and not isinstance(outputs, Tensor):
            tokens_NBT, scores_NB = outputs
            if tokens_NBT.ndim == 3 and tokens_NBT.shape[:2] == scores_NB.shape and len(scores_NB) == N:
                return list(zip(tokens_NBT.unbind(0), scores_NB.unbind(0), strict=True))
        shapes = [tuple(part.shape) for part in ((outputs,) if isinstance(outputs, Tensor) else outputs)]
        raise ValueError(f"outputs of shape {shapes} for {N} items")


def load(bundle: Bundle, device: torch.device, max_batch_size: int, max_pixels: int | None = None) -> LoadedModel:
    """Load, freeze and warm up a verified bundle, and run its golden check.

    Args:
        bundle: Its listed bytes are read again and hashed, and loaded from those very bytes.
        device: Where to run it.
        max_batch_size: The service's limit; the tighter of this and the model's applies.
        max_pixels: Likewise, of an image.

    Raises:
        BundleError: It cannot be used, with the reason; whatever torch raised is its cause.
    """
    manifest = bundle.manifest
    largest = min(max_batch_size, manifest.limits.max_batch_size)
    preparation = preparation_of(manifest, bundle.read, max_pixels)
    writer = Tokenizer(bundle.read(manifest.write.file)) if manifest.write else None
    reasons: list[str] = []
    mismatch: GoldenMismatch | None = None
    for backend in (each for each in manifest.backends if device.type in each.devices):
        try:
            run = TorchScriptBackend(bundle.read(backend.file), device)
            measured_s = _warm_up(run, bundle, buckets(largest))
            check_golden(bundle, backend, run)
        except GoldenMismatch as error:
            mismatch = error
            continue
        except BundleError:
            raise
        except Exception as error:
            logger.exception("backend %s of %s cannot be used", backend.id, bundle.directory.name)
            reasons.append(f"{backend.id}: {type(error).__name__}")
            continue
        curve = LatencyCurve(measured_s)
        return LoadedModel(
            bundle, backend, device, preparation, writer, run, curve, max_batch_size=max(measured_s)
        )
    if mismatch is not None:
        raise mismatch
    detail = "; ".join(reasons) or f"none of its backends runs on {device.type}"
    raise ModelUnusable(f"{manifest.name}/{manifest.version}: {detail}")


def _warm_up(run: TorchScriptBackend, bundle: Bundle, sizes: Iterable[int]) -> dict[int, float]:
    """Run each batch size as often as the manifest says; return the seconds each takes once warm.

    Sizes that do not fit the device's memory are left out.
    """
    manifest = bundle.manifest
    # Its own limits, not the service's: a tight limit on requests must not keep a model from loading.
    preparation = preparation_of(manifest, bundle.read)
    examples = [preparation.prepare(bundle.read(golden.file)) for golden in manifest.golden]
    measured_s: dict[int, float] = {}
    for size in sizes:
        # Real inputs: a text of nothing but padding is none that a graph must take.
        batch = preparation.collate(list(islice(cycle(examples), size)))
        times_s = []
        try:
            for _ in range(manifest.warmup.repeats):
                start_s = time.perf_counter()
                run(batch)
                times_s.append(time.perf_counter() - start_s)
        except torch.OutOfMemoryError:
            if not measured_s:
                raise
            logger.warning("batches of %d do not fit the memory; smaller ones are served", size)
            break
        # The first two runs of a shape may compile, so only what follows tells its speed.
        measured_s[size] = statistics.median(times_s[2:] or times_s)
    return measured_s
