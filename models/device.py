"""The device that a model is trained or served on."""

import torch

from models.errors import DeviceUnavailable


def choose_device(wanted: str) -> torch.device:
    """Return the device asked for; `auto` is the first CUDA device, else the CPU.

    fp32 means fp32 from here on: left to itself cuDNN would round convolutions to TF32 on recent GPUs, and scores
    would lie further from the CPU's than a golden check allows.

    Args:
        wanted: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        DeviceUnavailable: It is not on this machine.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    index = int(wanted.partition(":")[2] or 0)
    found = torch.cuda.device_count()
    if wanted != "cpu" and index >= found:
        raise DeviceUnavailable(f"device {wanted}: this machine has {found} CUDA devices; use auto or cpu")
    return torch.device(wanted)


def device_in_turn(wanted: str, place: int) -> str:
    """Return the device of one of several processes: where none is named, each takes the next CUDA device.

    Args:
        wanted: As `choose_device` takes it.
        place: The process's, from 0.
    """
    found = torch.cuda.device_count()
    return f"cuda:{place % found}" if wanted in ("auto", "cuda") and found else wanted
