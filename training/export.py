"""The exported file: written from a trained model, and read back to be judged. Axes: N items."""

import io
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from models.golden import Outputs
from models.operators import NO_OTHERS
from models.torchscript_scan import check_operators
from training.errors import DataUnavailable, GateFailed

# Known, decided (see `Exported`), and pinned by the torch version; said once a call it would bury real news.
warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is deprecated", category=FutureWarning)


class Exported:
    """A TorchScript file that was loaded again: what serving will run, not what training held.

    TorchScript is deprecated upstream and kept because it is the artifact that users asked for; within
    `training` it is named only here.

    Args:
        content: The file.
        allowed: Operators that it may use besides `models.operators.OPERATORS`; as serving will, it uses no other.

    Raises:
        ArchiveInvalid, OperatorsNotAllowed: It would not be served.
    """

    def __init__(self, content: bytes, allowed: frozenset[str] = NO_OTHERS) -> None:
        check_operators(content, allowed)
        self.module = torch.jit.load(io.BytesIO(content), map_location="cpu").eval()

    def freeze(self, device: torch.device) -> None:
        """Make it what the service runs: on a device, and frozen there.

        Raises:
            GateFailed: It cannot be frozen.
        """
        try:
            self.module = torch.jit.freeze(self.module.to(device))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise GateFailed(f"export: the file cannot be frozen for serving: {reason}") from error

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


def is_script(file: Path) -> bool:
    """Whether a file holds TorchScript: an archive with code, where a state dict has data only."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any("/code/" in name for name in archive.namelist())


def load_script(file: Path, allowed: frozenset[str] = NO_OTHERS) -> nn.Module:
    """Load a TorchScript file that somebody else made; it is code, and must be trusted as such.

    Args:
        file: Where it is.
        allowed: Operators that it may use besides `models.operators.OPERATORS`.

    Raises:
        ArchiveInvalid, OperatorsNotAllowed: It would not be served.
        DataUnavailable: It cannot be read.
    """
    try:
        content = file.read_bytes()
        check_operators(content, allowed)
        module: nn.Module = torch.jit.load(io.BytesIO(content), map_location="cpu").eval()
    except (OSError, RuntimeError, ValueError) as error:
        raise DataUnavailable(f"{file} cannot be loaded: {str(error).splitlines()[0]}") from error
    return module


def script(module: nn.Module) -> bytes:
    """Return a module as the bytes of a TorchScript file, on the CPU and in evaluation mode.

    It is scripted, not traced: a trace bakes in the device and the batch size. It is not frozen: freezing
    may bake in device logic too, so the service freezes what it loads on the device it serves from.
    """
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(module.cpu().eval()), buffer)
    return buffer.getvalue()
