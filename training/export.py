"""The exported file: written from a trained model, and read back to be judged. Axes: N items."""

import io
import warnings

import torch
from torch import Tensor, nn

from models.golden import Outputs
from training.errors import GateFailed

# Known, decided (see `Exported`), and pinned by the torch version; said once a call it would bury real news.
warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is deprecated", category=FutureWarning)


class Exported:
    """A TorchScript file that was loaded again: what serving will run, not what training held.

    TorchScript is deprecated upstream and kept because it is the artifact that users asked for; within
    `training` it is named only here.
    """

    def __init__(self, content: bytes) -> None:
        self.module = torch.jit.load(io.BytesIO(content), map_location="cpu").eval()

    def run(self, batch: Tensor) -> Outputs:
        """Return what the model gives for a batch: scores NK, or tokens NBT and scores NB."""
        with torch.inference_mode():
            outputs: Outputs = self.module(batch)
        return outputs

    def scores(self, batch: Tensor) -> Tensor:
        """Return float32 probabilities of shape NK.

        Raises:
            GateFailed: The model gives something else.
        """
        scores_NK = self.run(batch)
        if not isinstance(scores_NK, Tensor):
            raise GateFailed("export: the file does not give one tensor of scores")
        return scores_NK

    def scores_in_batches(self, batch: Tensor, batch_size: int = 256) -> Tensor:
        """As `scores`, so many rows at a time."""
        return torch.cat([self.scores(rows) for rows in batch.split(batch_size)])


def script(module: nn.Module) -> bytes:
    """Return a module as the bytes of a TorchScript file, on the CPU and in evaluation mode.

    It is scripted, not traced: a trace bakes in the device and the batch size. It is not frozen: freezing
    may bake in device logic too, so the service freezes what it loads on the device it serves from.
    """
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(module.cpu().eval()), buffer)
    return buffer.getvalue()
