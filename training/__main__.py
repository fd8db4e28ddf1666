"""python -m training: from the command line to a published bundle, or one clear line."""

import sys

from pydantic import ValidationError
from pydantic_settings import CliApp, get_subcommand

from models.errors import ModelsError
from models.repository import Repository
from training.commands import Command, FashionOptions, ListOptions, ReviewOptions, input_kind, recipe_of
from training.config import TrainingOptions
from training.errors import TrainingError

INTERRUPTED = 130


def main() -> int:
    """Run from the command line; return the exit status."""
    try:
        command = CliApp.run(Command)
    except ValidationError as error:
        for problem in error.errors():
            option = "--" + "-".join(str(step) for step in problem["loc"][1:]).replace("_", "-")
            print(f"{option}: {problem['msg']}, got {problem['input']!r}", file=sys.stderr)
        return 2
    options = get_subcommand(command, is_required=False)
    if isinstance(options, ListOptions):
        return _list()
    return max(_train(each) for each in _wanted(command, options))


def _wanted(command: Command, options: object) -> list[TrainingOptions]:
    if isinstance(options, TrainingOptions):
        return [options]
    # The starter set, each the default for its kind of input.
    return [kind(models_dir=command.models_dir, default=True) for kind in (FashionOptions, ReviewOptions)]


def _train(options: TrainingOptions) -> int:
    # torch takes seconds to import, and a wrong option should be told at once.
    from training.distributed import joined
    from training.progress import Progress
    from training.run import run

    try:
        with joined(options.device) as group:
            bundle = run(options, recipe_of(options), group, Progress(silent=not group.is_first))
    except (TrainingError, ModelsError, OSError, MemoryError) as error:
        return _tell(f"nothing was published: {error or type(error).__name__}", 1)
    except KeyboardInterrupt:
        return _tell("interrupted: nothing was published; the same command with --resume goes on", INTERRUPTED)
    if bundle is None:
        return 0
    print(f"published {bundle.manifest.name}/{bundle.manifest.version} in {bundle.directory}")
    return _make_default(options) if options.default else 0


def _make_default(options: TrainingOptions) -> int:
    kind = input_kind(options)
    try:
        Repository(options.models_dir).set_default(kind, options.name)
    except (ModelsError, OSError) as error:
        return _tell(f"but {options.name} could not be made the default for {kind}s: {error}", 1)
    return 0


def _list() -> int:
    from training.listing import listing

    print(listing())
    return 0


def _tell(line: str, status: int) -> int:
    print(line, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
