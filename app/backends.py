"""What runs a batch: the forms of a model, and which of them serve here. Axes: N, K labels, B texts, T tokens.

A bundle's own order counts, fastest first as its publisher measured them; what this machine, the device or the
settings do not allow is passed over, and the log says why. TorchScript in fp32 is always there, and comes last.
"""

import io
import logging
import threading
import warnings
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from app.settings import Precision
from models.backend import Backend
from models.bundle import Bundle
from models.golden import Outputs
from models.instructions import missing
from models.manifest import Manifest
from models.openvino_graph import OpenVinoGraph

logger = logging.getLogger(__name__)

# Known, decided (see TorchScriptBackend), and pinned by the torch version; at each call it would bury what is new.
warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is deprecated", category=FutureWarning)


class Run(Protocol):
    """A form of a model, ready to run."""

    def __call__(self, batch: Tensor, threads: int = 1) -> Outputs:
        """Return float32 scores of shape NK, or tokens NBT and scores NB, on the CPU.

        Args:
            batch: As the manifest's inputs say.
            threads: CPU threads that may work on it.
        """
        ...


# Loading compiles, and torch's compiler shares state between threads.
_loading = threading.Lock()


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

    def __call__(self, batch: Tensor, threads: int = 1) -> Outputs:
        """Return float32 scores of shape NK, or tokens NBT and scores NB, on the CPU.

        Args:
            batch: As the manifest's inputs say.
            threads: CPU threads that the calling one may use for it.
        """
        if torch.get_num_threads() != threads:  # The number belongs to the calling thread.
            torch.set_num_threads(threads)
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


def usable(manifest: Manifest, device: torch.device, precision: Precision) -> Sequence[Backend]:
    """Return the backends that may serve a model on a device, the one to try first at the front.

    Args:
        manifest: The model's.
        device: Where it is to run.
        precision: `auto` takes any: each was measured to be accurate enough before it was published. Another takes
            those in that precision, and then fp32.
    """
    allowed = [each for each in manifest.backends if device.type in each.devices]
    if precision != "auto":
        allowed = [each for each in allowed if each.precision == precision] + [
            each for each in allowed if each.precision == "fp32" != precision
        ]
    found = []
    for backend in sorted(allowed, key=lambda each: each.is_reference):
        if reason := missing(backend.requires, device):
            logger.info("%s of %s is passed over: %s", backend.id, manifest.name, reason)
        else:
            found.append(backend)
    return found


def runnable(backend: Backend, bundle: Bundle, device: torch.device, threads: int) -> Run:
    """Load a backend from the very bytes that were verified.

    Args:
        backend: One that is usable here.
        bundle: Whose it is.
        device: Where it is to run.
        threads: CPU threads that it may use in all.

    Raises:
        BackendUnavailable: It wants a library that is not installed.
        Exception: Whatever its library raises of a file that it cannot load.
    """
    if backend.weights is not None:
        return OpenVinoGraph(bundle.read(backend.file), bundle.read(backend.weights), backend.precision, threads)
    return TorchScriptBackend(bundle.read(backend.file), device)
