"""Room for decoded images: in RAM, or in a temporary file where they are many. Axes: N images, C, H, W."""

import math
import os
import tempfile

import numpy as np
import torch
from torch import Tensor

from training.errors import DataUnavailable

MOST_IN_RAM_BYTES = 2**30


def make_room(images: int, shape_CHW: tuple[int, int, int]) -> Tensor:
    """Return an uninitialised uint8 tensor of shape NCHW.

    Over `MOST_IN_RAM_BYTES` it is mapped from a file that has no name, so that nothing is left behind however
    the process ends; the system keeps as much of it in RAM as fits.

    Raises:
        DataUnavailable: The directory for temporary files has no room for it.
    """
    size_bytes = images * math.prod(shape_CHW)
    if size_bytes <= MOST_IN_RAM_BYTES:
        return torch.empty(images, *shape_CHW, dtype=torch.uint8)
    directory = tempfile.gettempdir()
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            # Every block is taken now: a disk that is full only later would kill the process at some write.
            os.posix_fallocate(file.fileno(), 0, size_bytes)
            return torch.from_numpy(np.memmap(file, np.uint8, "r+", shape=(images, *shape_CHW)))
    except OSError as error:
        raise DataUnavailable(
            f"the decoded images take {size_bytes / 2**30:.1f} GiB, for which {directory} has no room "
            f"({error.strerror}); set TMPDIR to a directory that has"
        ) from error
