"""python -m training: from the command line to a published bundle, or one clear line."""

import sys

from pydantic import ValidationError
from pydantic_settings import CliApp

from models.errors import ModelsError
from training.config import TrainingConfig
from training.errors import TrainingError

INTERRUPTED = 130


def main() -> int:
    """Run from the command line; return the exit status."""
    try:
        config = CliApp.run(TrainingConfig)
    except ValidationError as error:
        for problem in error.errors():
            option = "--" + "-".join(str(step) for step in problem["loc"]).replace("_", "-")
            print(f"{option}: {problem['msg']}, got {problem['input']!r}", file=sys.stderr)  # noqa: T201
        return 2
    return _run(config)


def _run(config: TrainingConfig) -> int:
    # torch takes seconds to import, and a wrong option should be told at once.
    from training.progress import Progress
    from training.run import run

    try:
        bundle = run(config, Progress(config.epochs))
    except (TrainingError, ModelsError, OSError) as error:
        print(f"nothing was published: {error}", file=sys.stderr)  # noqa: T201 (the program's own voice)
        return 1
    except KeyboardInterrupt:
        print("interrupted: nothing was published", file=sys.stderr)  # noqa: T201
        return INTERRUPTED
    print(f"published {bundle.manifest.name}/{bundle.manifest.version} in {bundle.directory}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
