"""A grid of architectures and optimizers: every combination trained on one split, for the same time."""

import errno
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile

import torch

from models.device import choose_device
from models.whole_file import whole_file
from training.architectures.catalogue import SEQUENCES, TEXTS
from training.commands import recipe_of
from training.compare.combination import measure
from training.compare.comparison import Combination, Comparison
from training.compare.curves import png
from training.compare.grid import ALL, GridOptions
from training.compare.table import markdown
from training.config import ImageOptions, Seq2SeqOptions, TrainingOptions
from training.errors import DataInvalid, DataUnavailable, TrainingError
from training.machine import this_machine
from training.progress import Progress

# Those for any image; the others of the catalogue want photographs, or a download.
IMAGES = ("convnet", "resnet")
FILES = ("comparison.json", "comparison.md", "curves.png")


def compare(grid: GridOptions, progress: Progress) -> Comparison:
    """Train every combination, and write the comparison anew after each.

    Args:
        grid: What to combine.
        progress: Told of every combination.

    Returns:
        The comparison as it was written; not whole, if Ctrl-C ended it.

    Raises:
        DataUnavailable, DataInvalid: There is nothing to train on.
        ModelsError: The device is not there.
        OSError: The directory cannot be written.
    """
    archs = _archs(grid)
    some = grid.options(archs[0])
    device = choose_device(some.device)
    _check_writable(grid.directory)
    comparison = Comparison(
        recipe=grid.command,
        planned=len(archs) * len(grid.optimizers),
        budget_s=grid.budget,
        seed=some.seed,
        options={field: value for field, value in some.record().items() if field in grid.given()},
        machine=this_machine(device),
    )
    progress.say(f"{comparison.planned} combinations, {grid.budget:g} s of training each, on {device}")
    try:
        for arch in archs:
            for combination in _tried(grid, arch, device, progress):
                comparison = comparison.joined_by(combination)
                write(comparison, grid.directory)
                progress.say(_line(comparison))
    except KeyboardInterrupt:
        # It may have come while the last was being written.
        write(comparison, grid.directory)
    return comparison


def write(comparison: Comparison, directory: Path) -> None:
    """Write the table, the figures and the curves, each whole or not at all; nothing, if nothing is known."""
    if not comparison.combinations:
        return
    contents = (
        comparison.model_dump_json(indent=2).encode() + b"\n",
        markdown(comparison).encode(),
        png(comparison),
    )
    for name, content in zip(FILES, contents, strict=True):
        with whole_file(directory / name) as stream:
            stream.write(content)


def _check_writable(directory: Path) -> None:
    """Try what would otherwise fail once the first combination has cost its budget."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if (directory / name).is_dir():
            raise IsADirectoryError(errno.EISDIR, "a directory is where a file is to be", str(directory / name))
    with TemporaryFile(dir=directory):
        pass


def _archs(grid: GridOptions) -> Sequence[str]:
    if ALL not in grid.archs:
        return list(dict.fromkeys(grid.archs))
    if issubclass(grid.recipe, ImageOptions):
        return IMAGES
    return list(SEQUENCES if issubclass(grid.recipe, Seq2SeqOptions) else TEXTS)


def _tried(grid: GridOptions, arch: str, device: torch.device, progress: Progress) -> Iterator[Combination]:
    """Prepare the data and the network once, and train a copy with each optimizer."""
    given = grid.options(arch)
    try:
        task, own = recipe_of(given)(given, progress)
    except (DataUnavailable, DataInvalid):
        raise
    except Exception as error:
        reason = _reason(error)
        yield from (Combination(arch=arch, optimizer=each, failed=reason) for each in grid.optimizers)
        return
    for optimizer in grid.optimizers:
        try:
            # All that the recipe filled in, but for the learning rate, which goes with the optimizer.
            options: TrainingOptions = grid.options(arch, optimizer).resolved(dict(own))
            yield Combination(arch=arch, optimizer=optimizer, result=measure(task, options, device))
        except Exception as error:
            # Whatever ends one combination must not cost the night that the others took.
            yield Combination(arch=arch, optimizer=optimizer, failed=_reason(error))


def _reason(error: Exception) -> str:
    said = next(iter(str(error).splitlines()), "")
    return said if isinstance(error, TrainingError) and said else f"{type(error).__name__}: {said}"


def _line(comparison: Comparison) -> str:
    # Without the test metric: what scrolls by is what people choose by.
    last = comparison.combinations[-1]
    title = f"[{len(comparison.combinations)}/{comparison.planned}] {last.arch} + {last.optimizer}"
    if last.result is None:
        return f"{title}: failed: {last.failed}"
    found = last.result
    return (
        f"{title}: validation {found.metric} {found.validation:.2%}, "
        f"{found.training_s:.1f} s, {found.epochs:.1f} epochs"
    )
