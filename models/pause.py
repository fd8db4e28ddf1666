"""What long work calls between two pieces of it, so that others get at the processor."""

from collections.abc import Callable

Pause = Callable[[], None]


def no_pause() -> None:
    """Go on at once: nobody else is there."""
