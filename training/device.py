"""Which device to train on, and in which precision."""

import time

import torch

from training.errors import DeviceUnavailable


def choose_device(wanted: str) -> torch.device:
    """Return the device asked for; `auto` is the first CUDA device, else the CPU.

    Raises:
        DeviceUnavailable: It is not on this machine.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(wanted)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceUnavailable(
            f"--device {wanted}: this machine has {torch.cuda.device_count()} CUDA devices; use auto or cpu"
        )
    return device


def wait_for(device: torch.device) -> None:
    """Return once the device has done what it was given; the CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clock_s(device: torch.device) -> float:
    """Read a monotonic clock, in seconds, after the device has caught up."""
    wait_for(device)
    return time.perf_counter()
