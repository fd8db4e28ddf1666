"""A lock between processes: whoever changes what a name stands for holds it, and readers need none."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from models.errors import NotWritable
from models.plain_file import open_mark

# Between two tries at a lock that somebody else holds.
INTERVAL_S = 0.05


@contextmanager
def locked(file: Path, patience_s: float | None) -> Iterator[None]:
    """Hold the lock that a file stands for; the kernel drops it when its holder dies, however it dies.

    Args:
        file: Made if it is not there.
        patience_s: How long to wait for somebody else who holds it; None: as long as that takes.

    Raises:
        NotWritable: Somebody else holds it still.
        OSError: It cannot be made, or is a link.
    """
    with os.fdopen(open_mark(file), "w") as handle:
        if patience_s is None:
            fcntl.flock(handle, fcntl.LOCK_EX)
        else:
            _lock_within(handle, patience_s)
        yield


def _lock_within(handle: TextIO, patience_s: float) -> None:
    give_up_s = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > give_up_s:
                raise NotWritable("somebody else changes this model just now; try again later") from None
            time.sleep(INTERVAL_S)
        else:
            return
