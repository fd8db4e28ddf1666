"""Try a version on a share of its model's traffic, and then make it current, or stop.

python -m models.rollout NAME VERSION --share 0.1
python -m models.rollout NAME --promote
python -m models.rollout NAME --stop
"""

import argparse
import sys
from pathlib import Path

from models.errors import ModelsError
from models.repository import Repository, default_root


def main() -> int:
    """Roll out from the command line; return the exit status."""
    arguments = _parser().parse_args()
    try:
        done = _do(Repository(arguments.models_dir), arguments)
    except (ModelsError, OSError) as error:
        print(f"nothing was changed: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.name} {done}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m models.rollout", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="model")
    parser.add_argument("version", nargs="?", help="version to try, as listed below the model's directory")
    parser.add_argument("--models-dir", type=Path, default=default_root())
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--share", type=_share, help="of the requests that name no version, from 0 to 1")
    what.add_argument("--promote", action="store_true", help="make the version that is tried the current one")
    what.add_argument("--stop", action="store_true", help="try it no more")
    return parser


def _do(repository: Repository, arguments: argparse.Namespace) -> str:
    if (arguments.version is None) == (arguments.share is not None):
        raise ModelsError("VERSION goes with --share, and only with it")
    if arguments.share is not None:
        repository.set_candidate(arguments.name, arguments.version, arguments.share)
        return f"{arguments.version} is tried on {arguments.share:.1%} of the requests"
    if arguments.promote:
        return f"{repository.promote(arguments.name)} is current"
    return f"{repository.drop_candidate(arguments.name) or 'a candidate in a damaged file'} is tried no more"


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return share


if __name__ == "__main__":
    sys.exit(main())
