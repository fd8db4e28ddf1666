"""Make an API key: `python -m app.new_key CLIENT --file FILE`. The file gets its hash; the key is shown once."""

import argparse
import os
import sys
from pathlib import Path

from app.api_keys import ApiKeysInvalid, line_of, new_key


def main() -> int:
    """Make a key from the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m app.new_key", description=__doc__)
    parser.add_argument("client", help="whom the key is for, as the log will name them")
    parser.add_argument("--file", type=Path, required=True, help="file of keys, LANTERN_API_KEYS_FILE")
    arguments = parser.parse_args()
    key = new_key()
    try:
        _append(arguments.file, line_of(arguments.client, key))
    except (ApiKeysInvalid, OSError) as error:
        print(f"no key was made: {error}", file=sys.stderr)
        return 1
    print(key)
    return 0


def _append(file: Path, line: str) -> None:
    with os.fdopen(os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600), "r+b") as stream:
        before = stream.read()
        # A file written by hand may lack the last line feed.
        gap = b"\n" if before and not before.endswith(b"\n") else b""
        stream.write(gap + line.encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
