"""A file that is always whole: what is written takes its place at once, or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(file: Path, workplace: Path | None = None) -> Iterator[BinaryIO]:
    """Lend a stream; when the caller is done, what it wrote takes the file's place, and is on disk.

    If the caller or the system fails, the file stays as it was. One writer at a time: its unfinished work stands
    in `.NAME.tmp`, which the next writer removes if this one is killed.

    Args:
        file: What to write.
        workplace: Directory for the unfinished work, on the same filesystem; None: beside the file.

    Raises:
        OSError: It cannot be written.
    """
    unfinished = (workplace or file.parent) / f".{file.name}.tmp"
    try:
        # Whoever may write here might have left a link, to a file that is not theirs to write.
        unfinished.unlink(missing_ok=True)
        with unfinished.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
    sync(file.parent)


def sync(path: Path) -> None:
    """Have a file, or a directory's entries, written to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
