"""The files that a process may have open: connections take not the last ones, which its own work needs."""

import resource

# To load a version, to store corrections, to look for keys.
RESERVED = 64
NO_ROOM = "nearly as many files are open as may be (ulimit -n)"


def leaves_room(descriptor: int) -> bool:
    """Whether enough can be opened besides a descriptor that was opened just now.

    Args:
        descriptor: The system gives the lowest one that is free, so that it tells how many there are.
    """
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most == resource.RLIM_INFINITY or descriptor < most - min(RESERVED, most // 4)
