"""A request's headers, read from what the server gave: Starlette's own mapping costs microseconds a look."""

import math
import random
import re
from collections.abc import Sequence

from starlette.types import Scope

# Names in small letters, as ASGI gives them.
Headers = Sequence[tuple[bytes, bytes]]

SANE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
# An id need not be a secret. Seeded by the system, once a process.
_random = random.Random()  # noqa: S311 (no secret is made of it)


def header(scope: Scope, name: bytes) -> str | None:
    """Return a header's first value; None if there is none.

    Args:
        scope: The request's.
        name: In small letters.
    """
    headers: Headers = scope["headers"]
    return first(headers, name)


def first(headers: Headers, name: bytes) -> str | None:
    """Return the first value of that name; None if there is none."""
    for key, value in headers:
        if key == name:
            return value.decode("latin-1")
    return None


def key_of(scope: Scope) -> bytes | None:
    """Return the key that a client showed, as a bearer's or in X-API-Key; None if it showed none."""
    scheme, _, token = (header(scope, b"authorization") or "").partition(" ")
    key = token.strip() if scheme.lower() == "bearer" else header(scope, b"x-api-key") or ""
    return key.encode("latin-1") or None


def asked_timeout_s(headers: Headers) -> float | None:
    """Return the time that a client gives its request; None if it does not say.

    Raises:
        ValueError: It says something that is no number above 0.
    """
    asked = first(headers, b"x-request-timeout-ms")
    if asked is None:
        return None
    asked_ms = float(asked)
    # Python reads what nobody else calls a number: nan, inf and 1_000.
    if not 0 < asked_ms < math.inf or "_" in asked:
        raise ValueError(asked)
    return asked_ms / 1000


def request_id(given: str | None) -> str:
    """Return the id that a client gave its request, if it is one, or a new one."""
    if given is not None and SANE_ID.fullmatch(given):
        return given
    # uuid4 asks the system each time, which costs more than the rest of this.
    return f"{_random.getrandbits(128):032x}"
