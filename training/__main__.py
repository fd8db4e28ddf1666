"""python -m training: from the command line to a published bundle, or one clear line."""

import sys

from pydantic import ValidationError
from pydantic_settings import CliApp

from models.errors import ModelsError
from models.repository import Repository
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
            print(f"{option}: {problem['msg']}, got {problem['input']!r}", file=sys.stderr)
        return 2
    return _run(config)


def _run(config: TrainingConfig) -> int:
    try:
        # torch takes seconds to import, and a wrong option should be told at once.
        from training.progress import Progress
        from training.run import run

        bundle = run(config, Progress(config.epochs))
    except (TrainingError, ModelsError, OSError, MemoryError) as error:
        return _tell(f"nothing was published: {error or type(error).__name__}", 1)
    except KeyboardInterrupt:
        return _tell("interrupted: nothing was published", INTERRUPTED)
    print(f"published {bundle.manifest.name}/{bundle.manifest.version} in {bundle.directory}")
    return _make_default(config) if config.default else 0


def _make_default(config: TrainingConfig) -> int:
    try:
        Repository(config.models_dir).set_default("image", config.name)
    except (ModelsError, OSError) as error:
        return _tell(f"but {config.name} could not be made the default for images: {error}", 1)
    return 0


def _tell(line: str, status: int) -> int:
    print(line, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
