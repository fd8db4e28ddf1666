"""python -m training: from the command line to a published bundle, or one clear line."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import get_subcommand

from models.bundle import Bundle
from models.errors import ModelsError
from models.memory import is_out_of_memory
from models.repository import Repository, default_root
from models.signing_key import SigningKey, public_file
from training.commands import (
    Command,
    CompareOptions,
    FashionOptions,
    ImagenetOptions,
    ImportOptions,
    KeygenOptions,
    ListOptions,
    OptimizeOptions,
    ReviewOptions,
    SignOptions,
    TorchvisionOptions,
    input_kind,
    parse,
    recipe_of,
)
from training.compare.grid import GridOptions
from training.config import Options, TrainingOptions
from training.errors import TrainingError

INTERRUPTED = 130

# What commands take that publish a model.
Publishing = Options | OptimizeOptions


def main() -> int:
    """Run from the command line; return the exit status."""
    try:
        command = parse()
    except ValidationError as error:
        for problem in error.errors():
            print(_complaint(problem), file=sys.stderr)
        return 2
    options = get_subcommand(command, is_required=False)
    wanted = _wanted(command, options)
    # Of the processes that torchrun starts, all train; the first does the rest.
    if os.environ.get("RANK", "0") != "0":
        return _make_all([each for each in wanted if isinstance(each, TrainingOptions)])
    match options:
        case ListOptions():
            return _list()
        case CompareOptions():
            return _compare(get_subcommand(options, is_required=False))
        case KeygenOptions():
            return _keygen(options)
        case SignOptions():
            return _sign(options, _models_dir(command, options))
    return _make_all(wanted)


def _complaint(problem: ErrorDetails) -> str:
    steps = [str(step) for step in problem["loc"] if isinstance(step, str)]
    # Before the option comes the command, of which `compare` takes two.
    option = "--" + "-".join(steps[2 if steps[0] == "compare" else 1 :]).replace("_", "-")
    if problem["type"] == "missing":
        return f"{option}: it has to be given"
    return f"{option}: {problem['msg']}, got {problem['input']!r}"


def _wanted(command: Command, options: object) -> Sequence[Publishing]:
    if isinstance(options, (ListOptions, CompareOptions, KeygenOptions, SignOptions)):
        return []
    if isinstance(options, (Options, OptimizeOptions)):
        return [options.model_copy(update={"models_dir": _models_dir(command, options)})]
    # The starter set; any photograph and any text can then be posted without naming a model.
    root = command.models_dir
    return [
        FashionOptions(models_dir=root),
        ReviewOptions(models_dir=root, default=True),
        ImagenetOptions(models_dir=root, default=True),
    ]


def _models_dir(command: Command, options: Publishing | SignOptions) -> Path:
    """Return where the models are: given before the command it is meant as much as after it."""
    before = "models_dir" in command.model_fields_set - options.model_fields_set
    return command.models_dir if before else options.models_dir


def _make_all(wanted: Sequence[Publishing]) -> int:
    worst = 0
    for options in wanted:
        worst = max(worst, _make(options))
        if worst == INTERRUPTED:
            break
    return worst


def _make(options: Publishing) -> int:
    trains = isinstance(options, TrainingOptions)
    try:
        bundle = _made(options)
    except (TrainingError, ModelsError, OSError) as error:
        return _tell(f"nothing was published: {error}", 1)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        hint = "; a smaller --batch-size needs less" if trains else ""
        return _tell(f"nothing was published: out of memory{hint}", 1)
    except KeyboardInterrupt:
        hint = "; a training goes on with --resume" if trains else ""
        return _tell(f"interrupted: nothing was published{hint}", INTERRUPTED)
    # Of the processes that train together, only the first has something.
    if bundle is None:
        return 0
    name, version = bundle.manifest.name, bundle.manifest.version
    print(f"published {name}/{version} in {bundle.directory}")
    if isinstance(options, Options) and options.candidate:
        elsewhere = options.models_dir != default_root()
        place = f" --models-dir {shlex.quote(str(options.models_dir))}" if elsewhere else ""
        print(f"nobody is answered by it yet: python -m models.rollout {name} {version} --share 0.1{place}")
    return _make_default(options) if isinstance(options, Options) and options.default else 0


def _made(options: Publishing) -> Bundle | None:
    if isinstance(options, OptimizeOptions):
        return _optimize(options)
    return _train(options) if isinstance(options, TrainingOptions) else _import(options)


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


def _optimize(options: OptimizeOptions) -> Bundle:
    from training.optimizing.run import optimize
    from training.progress import Progress

    return optimize(options, Progress())


def _make_default(options: Options) -> int:
    kind = input_kind(options)
    try:
        Repository(options.models_dir).set_default(kind, options.name)
    except (ModelsError, OSError) as error:
        return _tell(f"but {options.name} could not be made the default for {kind}s: {error}", 1)
    return 0


def _compare(grid: object) -> int:
    if not isinstance(grid, GridOptions):
        return _tell(f"compare: say on what: {', '.join(CompareOptions.model_fields)}", 2)
    from training.compare.run import compare
    from training.progress import Progress

    try:
        comparison = compare(grid, Progress())
    except (TrainingError, ModelsError, OSError) as error:
        return _tell(f"the comparison ended: {error}", 1)
    found, planned = len(comparison.combinations), comparison.planned
    if not comparison.is_whole:
        return _tell(f"interrupted: {found} of {planned} combinations are in {grid.directory}", INTERRUPTED)
    print(f"compared {planned} combinations, of which {len(comparison.failures())} failed: {grid.directory}")
    return 0 if comparison.finished() else 1


def _keygen(options: KeygenOptions) -> int:
    file, public = options.file, public_file(options.file)
    try:
        SigningKey.make().write(file)
    except (ModelsError, OSError) as error:
        return _tell(f"no key was made: {error}", 1)
    print(
        f"{file} signs: keep it where only the training reads it\n"
        f"  python -m training ... --signing-key {shlex.quote(str(file))}\n"
        f"  python -m training sign NAME --key {shlex.quote(str(file))}    # what is published already\n"
        f"{public} is trusted: give it to the service, which then refuses what is not signed\n"
        f"  LANTERN_TRUSTED_KEYS_FILE={shlex.quote(str(public))} python -m app"
    )
    return 0


def _sign(options: SignOptions, models_dir: Path) -> int:
    if options.key is None:
        return _tell("--key: it has to be given; python -m training keygen FILE makes one", 2)
    try:
        key = SigningKey.read(options.key)
        bundle = Repository(models_dir).sign(options.name, key, options.version)
    except (ModelsError, OSError) as error:
        return _tell(f"nothing was signed: {error}", 1)
    print(f"signed {options.name}/{bundle.manifest.version} in {bundle.directory}")
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
