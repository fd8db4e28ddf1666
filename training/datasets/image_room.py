"""Room for decoded images: in RAM, or in a temporary file where they are many. Axes: N images, C, H, W."""

import math
import os
import tempfile
from collections.abc import Sequence

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


def arrange(room_NCHW: Tensor, rows: Sequence[int]) -> None:
    """Bring rows of a room into an order, in place: a copy might have no room.

    Args:
        room_NCHW: Its first rows become those of `rows`, and all others come after them.
        rows: Each at most once.
    """
    order = [*rows, *sorted(set(range(len(room_NCHW))) - set(rows))]
    for first in range(len(order)):
        if order[first] != first:
            _turn(room_NCHW, order, first)


def _turn(room_NCHW: Tensor, order: list[int], first: int) -> None:
    """Move along the circle of rows that wait for each other's places, and mark them as in place."""
    held_CHW = room_NCHW[first].clone()
    place = first
    while (source := order[place]) != first:
        room_NCHW[place] = room_NCHW[source]
        order[place] = place
        place = source
    room_NCHW[place] = held_CHW
    order[place] = place
