"""python -m training: from the command line to a published bundle, or one clear line."""

import sys

from pydantic import ValidationError
from pydantic_settings import CliApp, get_subcommand

from models.bundle import Bundle
from models.errors import ModelsError
from models.repository import Repository
from training.commands import (
    Command,
    CompareOptions,
    FashionOptions,
    ImagenetOptions,
    ImportOptions,
    ListOptions,
    ReviewOptions,
    TorchvisionOptions,
    input_kind,
    recipe_of,
)
from training.compare.grid import GridOptions
from training.config import Options, TrainingOptions
from training.errors import TrainingError

INTERRUPTED = 130


def main() -> int:
    """Run from the command line; return the exit status."""
    try:
        command = CliApp.run(Command)
    except ValidationError as error:
        for problem in error.errors():
            steps = [str(step) for step in problem["loc"] if isinstance(step, str)]
            option = "--" + "-".join(steps[2 if steps[0] == "compare" else 1 :]).replace("_", "-")
            print(f"{option}: {problem['msg']}, got {problem['input']!r}", file=sys.stderr)
        return 2
    options = get_subcommand(command, is_required=False)
    if isinstance(options, ListOptions):
        return _list()
    if isinstance(options, CompareOptions):
        options = get_subcommand(options)
    if isinstance(options, GridOptions):
        return _compare(options)
    return max(_make(each) for each in _wanted(command, options))


def _wanted(command: Command, options: object) -> list[Options]:
    if isinstance(options, Options):
        return [options]
    # The starter set; any photograph and any text can then be posted without naming a model.
    root = command.models_dir
    return [
        FashionOptions(models_dir=root),
        ReviewOptions(models_dir=root, default=True),
        ImagenetOptions(models_dir=root, default=True),
    ]


def _make(options: Options) -> int:
    try:
        bundle = _train(options) if isinstance(options, TrainingOptions) else _import(options)
    except (TrainingError, ModelsError, OSError, MemoryError) as error:
        return _tell(f"nothing was published: {error or type(error).__name__}", 1)
    except KeyboardInterrupt:
        return _tell("interrupted: nothing was published; a training goes on with --resume", INTERRUPTED)
    if bundle is None:
        return 0
    print(f"published {bundle.manifest.name}/{bundle.manifest.version} in {bundle.directory}")
    return _make_default(options) if options.default else 0


def _train(options: TrainingOptions) -> Bundle | None:
    # torch takes seconds to import, and a wrong option should be told at once.
    from training.distributed import joined
    from training.progress import Progress
    from training.run import run

    with joined(options.device) as group:
        return run(options, recipe_of(options), group, Progress(silent=not group.is_first))


def _import(options: Options) -> Bundle:
    from training import importing
    from training.progress import Progress

    match options:
        case ImportOptions():
            return importing.import_file(options, Progress())
        case TorchvisionOptions():
            return importing.import_torchvision(options, Progress())
        case ImagenetOptions():
            return importing.import_imagenet(options, Progress())
    raise AssertionError(f"no command for {type(options).__name__}")


def _make_default(options: Options) -> int:
    kind = input_kind(options)
    try:
        Repository(options.models_dir).set_default(kind, options.name)
    except (ModelsError, OSError) as error:
        return _tell(f"but {options.name} could not be made the default for {kind}s: {error}", 1)
    return 0


def _compare(grid: GridOptions) -> int:
    from training.compare.run import compare
    from training.progress import Progress

    try:
        comparison = compare(grid, Progress())
    except (TrainingError, ModelsError, OSError, MemoryError) as error:
        return _tell(f"the comparison ended: {error or type(error).__name__}", 1)
    found, planned = len(comparison.combinations), comparison.planned
    if not comparison.is_whole:
        return _tell(f"interrupted: {found} of {planned} combinations are in {grid.directory}", INTERRUPTED)
    print(f"compared {planned} combinations, of which {len(comparison.failures())} failed: {grid.directory}")
    return 0 if comparison.finished() else 1


def _list() -> int:
    from training.listing import listing

    print(listing())
    return 0


def _tell(line: str, status: int) -> int:
    print(line, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
