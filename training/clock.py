"""Time on a device that may still be working."""

import time

import torch


def clock_s(device: torch.device) -> float:
    """Read a monotonic clock, in seconds, after the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
