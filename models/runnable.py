"""A form of a model, ready to run: for publishing and serving alike. Axes: N, K labels, B texts, T tokens."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from models.backend import Form
from models.golden import Outputs
from models.openvino_graph import OpenVinoGraph
from models.operators import NO_OTHERS, QUANTIZED_CLASSES
from models.pause import Pause, no_pause
from models.torchscript_graph import TorchScriptGraph


class Run(Protocol):
    """A form of a model, ready to run.

    Attributes:
        bounded: Whether it takes a time that its input's shape fixes: no loop in it could go on for ever.
        on_caller: Whether what one thread is to do is done by the calling one: its own time is the work's.
    """

    bounded: bool
    on_caller: bool

    def __call__(self, batch: Tensor, threads: int = 1) -> Outputs:
        """Return float32 scores of shape NK, or tokens NBT and scores NB, on the CPU.

        Args:
            batch: As the manifest's inputs say.
            threads: CPU threads that may work on it.
        """
        ...


def runnable(
    form: Form,
    read: Callable[[str], bytes],
    device: torch.device,
    threads: int = 1,
    allowed: frozenset[str] = NO_OTHERS,
    pause: Pause = no_pause,
) -> Run:
    """Load a form of a model.

    Args:
        form: One that this machine can run.
        read: Path of a file -> its bytes, which nobody can have changed since they were verified.
        device: Where it is to run.
        threads: CPU threads that it may use in all.
        allowed: Operators that it may use besides `models.operators.OPERATORS`.
        pause: Called between the pieces of the work.

    Raises:
        ArchiveInvalid, OperatorsNotAllowed: What it could do cannot be told, or is more than to compute.
        BackendUnavailable: It wants a library that is not installed.
        RuntimeError: Its library cannot load the file.
    """
    if form.weights is not None:
        return OpenVinoGraph(read(form.file), read(form.weights), form.precision, threads)
    if form.precision == "int8":
        allowed |= QUANTIZED_CLASSES
    return TorchScriptGraph(read(form.file), device, allowed, pause)
