"""A wall clock that a test sets, for a process that it starts: clock.c, preloaded."""

import struct
import time
from pathlib import Path

from tests.preloading import built

SOURCE = Path(__file__).with_name("clock.c")
OFFSET = struct.Struct("q")


class WallClock:
    """The wall clock of whoever is started through it.

    Args:
        directory: For what is made on the way.
    """

    def __init__(self, directory: Path) -> None:
        self._file = directory / "offset"
        self._offset_s = 0
        self._write(0)
        self.through = ("env", f"LD_PRELOAD={built(SOURCE, directory)}", f"CLOCK_OFFSET_FILE={self._file}")

    @property
    def now_s(self) -> float:
        """What it shows, in seconds since 1970."""
        return time.time() + self._offset_s

    def set(self, now_s: float) -> None:
        """Have it show another time from now on."""
        self._write(round(now_s - time.time()))

    def _write(self, offset_s: int) -> None:
        # In place: it is mapped.
        with self._file.open("r+b" if self._file.exists() else "xb") as file:
            file.write(OFFSET.pack(offset_s))
        self._offset_s = offset_s
