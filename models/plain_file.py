"""Files in a directory where others may write too: a link, a pipe or a device in their place does no harm."""

import errno
import os
import stat
from pathlib import Path

MOST_BYTES = 65_536


def read_plain(file: Path) -> bytes:
    """Read a small file whole.

    Raises:
        OSError: It cannot be read, is no plain file, or holds over MOST_BYTES.
    """
    # A pipe that nobody writes to would never open.
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no plain file", str(file))
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            content = stream.read(MOST_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(content) > MOST_BYTES:
        raise OSError(errno.EFBIG, f"it has over {MOST_BYTES} bytes", str(file))
    return content


def open_mark(file: Path) -> int:
    """Open a file whose being there is all that it says, made if it is not; return its descriptor.

    Raises:
        OSError: It cannot be made, or is a link: to write through one might make a file anywhere.
    """
    return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o666)
