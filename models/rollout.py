"""Try a version on a share of its model's traffic, and then make it current, or stop.

python -m models.rollout NAME VERSION --share 0.1 --shadow 0.2
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
    parser.add_argument("--share", type=_share, help="of the requests that name no version, which it answers")
    parser.add_argument("--shadow", type=_share, help="of those, which it is asked too, to compare what it says")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--promote", action="store_true", help="make the version that is tried the current one")
    what.add_argument("--stop", action="store_true", help="try it no more")
    return parser


def _do(repository: Repository, arguments: argparse.Namespace) -> str:
    shares = (arguments.share, arguments.shadow)
    tries = shares != (None, None)
    if tries == (arguments.promote or arguments.stop):
        raise ModelsError("say either --share or --shadow or both, or --promote, or --stop")
    if tries != (arguments.version is not None):
        raise ModelsError("VERSION goes with --share and --shadow, and only with them")
    if tries:
        share, shadow = (given or 0.0 for given in shares)
        if share + shadow > 1:
            raise ModelsError("--share and --shadow are over 1 together: a request is answered or copied")
        repository.set_candidate(arguments.name, arguments.version, share, shadow)
        return f"{arguments.version} answers {share:.1%} of the requests, and a copy of {shadow:.1%} is compared"
    if arguments.promote:
        return f"{repository.promote(arguments.name).version} is current"
    return f"{repository.drop_candidate(arguments.name) or 'a candidate in a damaged file'} is tried no more"


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return share


if __name__ == "__main__":
    sys.exit(main())
