"""A loaded model: one backend on one device, warm and checked. Axes: N items, K labels, B texts, T tokens."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch
from torch import Tensor

from app.backends import usable
from app.latency import LatencyCurve, buckets
from app.settings import Precision
from app.warm_up import warm_up
from models.backend import Backend
from models.bundle import Bundle
from models.errors import BackendUnavailable, BundleError, DeviceLost, GoldenMismatch
from models.golden import Outputs, check_golden
from models.operators import NO_OTHERS
from models.pause import Pause, no_pause
from models.preparation import ImagePreparation, TextPreparation, preparation_of
from models.runnable import Run, runnable
from models.tokenization import Tokenizer

logger = logging.getLogger(__name__)


class ModelUnusable(BundleError):
    """The bundle is whole, but no backend of it runs on this machine and device."""


class ModelHung(BundleError):
    """A batch of the model did not come back."""

    @classmethod
    def of(cls, name: str, version: str, *, again: bool = True) -> Self:
        """Say of which, and whether it is given another try."""
        follows = "it is loaded anew" if again else "it is tried no more, until an administrator says so"
        return cls(f"{name} {version} hung; {follows}")


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
    preparation: ImagePreparation | TextPreparation
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
    allowed: frozenset[str] = NO_OTHERS,
    pause: Pause = no_pause,
    beside: LoadedModel | None = None,
) -> LoadedModel:
    """Load, freeze and warm up a verified bundle, and run its golden check.

    Args:
        bundle: Its listed bytes are read again and hashed, and loaded from those very bytes.
        device: Where to run it.
        max_batch_size: The service's limit; the tighter of this and the model's applies.
        max_pixels: Likewise, of an image.
        threads: CPU threads that a batch may use when it has the machine to itself.
        precision: Of the bundle's backends, which may serve.
        allowed: Operators that a TorchScript file may use besides `models.operators.OPERATORS`.
        pause: Called between the pieces of the work, each batch of the warm-up among them.
        beside: Another version of the model, that serves already.

    Raises:
        BundleError: It cannot be used, with the reason; whatever torch raised is its cause.
        DeviceLost: The device does not work any more.
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
            run = runnable(backend, bundle.read, device, threads, allowed, pause)
            pause()
            known = _known_of(beside, backend, device, largest)
            curve, fitting = warm_up(run, bundle, buckets(largest), at_most, pause, known)
            # Both ways that a batch may be run.
            for count in sorted({1, at_most}):
                check_golden(bundle, backend, partial(run, threads=count))
                pause()
        except GoldenMismatch as error:
            logger.error("backend %s of %s is passed over: %s", backend.id, manifest.name, error)
            mismatch = error
            continue
        except BackendUnavailable as error:
            logger.warning("backend %s of %s is passed over: %s", backend.id, manifest.name, error)
            reasons.append(f"{backend.id}: {error}")
            continue
        except (BundleError, DeviceLost):
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


def _known_of(
    beside: LoadedModel | None, backend: Backend, device: torch.device, largest: int
) -> LatencyCurve | None:
    """What another version's batches take, if those of this backend may well take as long.

    On a GPU each size is to be compiled and to be fitted into memory anew, and the processor is not what loading
    takes from serving.
    """
    if beside is None or device.type != "cpu" or beside.device != device:
        return None
    return beside.curve if (beside.backend.id, beside.max_batch_size) == (backend.id, largest) else None
