"""Make an older version current again: `python -m models.rollback NAME VERSION`."""

import argparse
import sys
from pathlib import Path

from models.errors import ModelsError
from models.repository import Repository, default_root


def main() -> int:
    """Roll back from the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m models.rollback", description=__doc__)
    parser.add_argument("name", help="model")
    parser.add_argument("version", help="version to make current, as listed below the model's directory")
    parser.add_argument("--models-dir", type=Path, default=default_root())
    arguments = parser.parse_args()
    try:
        Repository(arguments.models_dir).rollback(arguments.name, arguments.version)
    except (ModelsError, OSError) as error:
        print(f"nothing was changed: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.name} {arguments.version} is current")
    return 0


if __name__ == "__main__":
    sys.exit(main())
