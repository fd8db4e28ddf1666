"""A request's headers, read from what the server gave: Starlette's own mapping costs microseconds a look."""

from starlette.types import Scope


def header(scope: Scope, name: bytes) -> str | None:
    """Return a header's first value; None if there is none.

    Args:
        scope: The request's.
        name: In small letters, as ASGI gives them.
    """
    for key, value in scope["headers"]:
        if key == name:
            text: str = value.decode("latin-1")
            return text
    return None
