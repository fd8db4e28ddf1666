"""`python -m app` that hardly waits for last answers to be written: only its drain waits for those to come."""

import sys

LAST_BYTES_S = 0.5


def main() -> int:
    from app import server
    from app.__main__ import main as serve

    vars(server)["LAST_BYTES_S"] = LAST_BYTES_S
    return serve()


if __name__ == "__main__":
    sys.exit(main())
