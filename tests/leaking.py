"""`python -m app` that keeps bytes of each request, for ever: what a soak must find."""

import os
import sys
from typing import Any

# How many.
LEAK_BYTES = "LEAK_BYTES"


def main() -> int:
    from app import exchange
    from app.__main__ import main as serve

    kept: list[bytearray] = []
    size = int(os.environ[LEAK_BYTES])
    answer = exchange.ExchangeMiddleware.__call__

    async def answer_and_keep(self: Any, *given: Any) -> None:
        kept.append(bytearray(os.urandom(size)))
        await answer(self, *given)

    vars(exchange)["ExchangeMiddleware"].__call__ = answer_and_keep
    return serve()


if __name__ == "__main__":
    sys.exit(main())
