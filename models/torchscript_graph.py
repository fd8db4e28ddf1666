"""A model as TorchScript runs it, on any device. Axes: N items, K labels, B texts, T tokens."""

import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import torch
from torch import Tensor

from models.errors import DeviceLost
from models.golden import Outputs
from models.memory import is_out_of_memory
from models.operators import NO_OTHERS
from models.pause import Pause, no_pause
from models.torchscript_scan import check_operators

# Known, decided (see TorchScriptGraph), and pinned by the torch version; at each call it would bury what is new.
warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is deprecated", category=FutureWarning)

# Loading compiles, and torch's compiler shares state between threads.
_loading = threading.Lock()


class TorchScriptGraph:
    """A TorchScript file, frozen on its device.

    TorchScript is deprecated upstream and kept because it is the artifact that users asked for; within `models`
    it is loaded only here. The file is code: what it was verified against is what makes it safe to load, and what
    it could do is looked at before torch sees it.

    Args:
        content: The file.
        device: Where to run it.
        allowed: Operators that it may use besides `models.operators.OPERATORS`.
        pause: Called between the pieces of the work, in each of which torch holds the interpreter's lock.

    Attributes:
        bounded, on_caller: See `models.runnable.Run`.

    Raises:
        DeviceLost: The device does not work any more.
        ArchiveInvalid, OperatorsNotAllowed: It is not one as torch writes it, or could do more than compute.
        RuntimeError: It cannot be loaded, or not be frozen.
    """

    def __init__(
        self,
        content: bytes,
        device: torch.device,
        allowed: frozenset[str] = NO_OTHERS,
        pause: Pause = no_pause,
    ) -> None:
        check_operators(content, allowed)
        pause()
        # Outside inference mode: tensors made inside it would stay inference tensors for good.
        with _compiling(device), _as_file(content) as file:
            module = torch.jit.load(file, map_location=device).eval()
        pause()
        with _compiling(device):
            self._module = torch.jit.freeze(module)
        self._device = device
        self.on_caller = device.type == "cpu"
        self.bounded = not self._module.inlined_graph.findAllNodes("prim::Loop")

    def __call__(self, batch: Tensor, threads: int = 1) -> Outputs:
        """Return float32 scores of shape NK, or tokens NBT and scores NB, on the CPU.

        Args:
            batch: As the manifest's inputs say.
            threads: CPU threads that the calling one may use for it.

        Raises:
            OutOfMemoryError: A smaller batch may fit.
            DeviceLost: The device does not work any more.
            RuntimeError: The model failed.
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
            except RuntimeError as error:
                _check(self._device, error)
                if not is_out_of_memory(error):
                    raise
                # The batch is tried again in halves; what this one left behind must not stand in their way.
                torch.cuda.empty_cache()
                raise torch.OutOfMemoryError(str(error)) from error


@contextmanager
def _compiling(device: torch.device) -> Iterator[None]:
    """Have torch's compiler for oneself.

    Raises:
        DeviceLost: It failed, and the device does not work any more.
    """
    with _loading:
        try:
            yield
        except RuntimeError as error:
            _check(device, error)
            raise


def _check(device: torch.device, error: RuntimeError) -> None:
    """Ask whether a device is the cause of a failure: a fault that does not pass is told at every later call."""
    if not _works(device):
        raise DeviceLost(f"{device} does not work any more: only a new process gets it back") from error


def _works(device: torch.device) -> bool:
    if device.type == "cpu":
        return True
    try:
        torch.accelerator.synchronize(device)
    except RuntimeError:
        return False
    return True


@contextmanager
def _as_file(content: bytes) -> Iterator[str | BinaryIO]:
    """Lend a file of these very bytes, which nobody else can reach.

    Torch holds the interpreter's lock while it loads, and from a Python stream it takes three times as long.
    """
    if not hasattr(os, "memfd_create"):
        yield io.BytesIO(content)
        return
    with os.fdopen(os.memfd_create("torchscript"), "wb") as file:
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"
