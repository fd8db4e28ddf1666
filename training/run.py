"""A training run: its calls, in execution order."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TypeVar

import torch

from models.accuracy import AccuracyLimits
from models.bundle import Bundle
from models.device import choose_device
from models.openvino_graph import import_openvino
from models.repository import Repository
from models.signing_key import SigningKey, signing_key_of
from training.architectures.catalogue import unused
from training.board import Board
from training.checkpoint import Checkpoint, alone_in
from training.config import OptimizerName, TrainingOptions
from training.distributed import Group
from training.errors import OutOfRoom
from training.export import Exported, script
from training.gate import check_parity
from training.optimizers import LBFGS_HISTORY
from training.optimizing.backends import Exporting, Optimized, optimized
from training.pictures import draw_learning_curves
from training.progress import Progress
from training.publish import Candidate, publish
from training.report import Report
from training.tasks.task import Judgement, Task
from training.train import train
from training.trained import Trained, joined

Given = TypeVar("Given", bound=TrainingOptions)
# What makes a recipe's task of its options; the options come back with all that was not given filled in.
Prepare = Callable[[Given, Progress], tuple[Task, Given]]

# How often a checkpoint holds the model: the weights, their average, the best so far; and the optimizer's state.
WEIGHTS_KEPT = 3
STATES_OF_OPTIMIZER: Mapping[OptimizerName, int] = {"lbfgs": 2 * LBFGS_HISTORY + 4}
STATES_OF_OTHERS = 2
# One is written while the one before is still there, and another phase's may stand beside it.
CHECKPOINTS_AT_ONCE = 3
# As published, and once more while it is staged; the other forms are another of that size, and one of a quarter.
PUBLISHED = 2
OPTIMIZED = 3
# Of the options, those that say what may be published, not what is learned.
OF_THE_GATE = ("min_accuracy", "max_error_rate", "max_batch_size", "device")


def run(options: Given, prepare: Prepare[Given], group: Group, progress: Progress) -> Bundle | None:
    """Train, calibrate, export, judge and publish.

    Args:
        options: As they were given.
        prepare: The recipe's own.
        group: The processes that train together; only the first publishes.
        progress: Told of what goes on.

    Returns:
        What was published; None in any process but the first.

    Raises:
        TrainingError: With what is missing, or which check the exported file did not pass.
        ModelsError, OSError: The bundle cannot be published.
    """
    repository = Repository(options.models_dir)
    key = None
    if group.is_first:
        _check_repository(repository, options)
        # Held until it signs: a file that goes meanwhile must not cost the training.
        key = signing_key_of(options.signing_key)
    if options.optimize:
        import_openvino()  # Likewise better known before.
    device = choose_device(options.device)
    given = options.model_fields_set
    task, options = prepare(options, progress)
    for option in unused(options.arch, given):
        progress.say(f"--{option.replace('_', '-')}: {options.arch} has no use for it")
    task.to(device)
    _check_room(task, options)
    identity = _identity(task, options, group)
    progress.say(f"training {options.arch} on {device}")

    directory = options.runs_dir / options.name
    with alone_in(directory) if group.is_first else nullcontext():
        checkpoints = [Checkpoint(directory / phase.name, identity) for phase in task.phases()]
        if group.is_first and not options.resume:
            _set_aside(checkpoints, progress)
        if options.resume and not any(checkpoint.file.exists() for checkpoint in checkpoints):
            progress.say(f"--resume: there is no unfinished run in {directory}; beginning one")
        trained = _train_phases(task, options, group, checkpoints, progress)
        if not group.is_first:
            return None
        bundle = _publish(task, options, trained, str(device), key, progress)
        for checkpoint in checkpoints:
            checkpoint.remove()
    return bundle


def _set_aside(checkpoints: Sequence[Checkpoint], progress: Progress) -> None:
    for checkpoint in checkpoints:
        if moved := checkpoint.set_aside():
            progress.say(f"an unfinished run was here; --resume would have gone on with it. It is now {moved}")


def _train_phases(
    task: Task, options: TrainingOptions, group: Group, checkpoints: Sequence[Checkpoint], progress: Progress
) -> Trained:
    phases = task.phases()
    trained = []
    for phase, checkpoint in zip(phases, checkpoints, strict=True):
        phase.begin()
        board = Board(checkpoint.file.parent if group.is_first else None)
        given = phase.options(options, len(phases))
        trained.append(train(task, given, group, checkpoint, progress, board))
        board.close()
    return joined(trained)


def _check_repository(repository: Repository, options: TrainingOptions) -> None:
    """See, before the training and not after, whether its model can be published."""
    repository.check_writable(options.name)
    repository.check_task(options.name, options.task)
    if options.candidate:
        repository.check_beside(options.name)
    repository.defaults()


def _publish(
    task: Task,
    options: TrainingOptions,
    trained: Trained,
    device: str,
    key: SigningKey | None,
    progress: Progress,
) -> Bundle:
    """Calibrate, export, judge and publish what was trained."""
    task.to(torch.device("cpu"))
    task.calibrate()
    content = script(task.model)
    exported = Exported(content)
    parity = check_parity(task.model, exported, task.parity_batch())
    judgement = task.judge(exported)
    progress.say(judgement.table)
    for doubt in judgement.doubts:
        progress.say(f"careful: {doubt}")
    progress.say(
        f"trained in {trained.elapsed_s:.0f} s ({trained.precision}), kept epoch {trained.best_epoch + 1}"
    )
    candidate = _candidate(task, options, content, trained, judgement, parity, device)
    if options.optimize:
        candidate = replace(candidate, optimized=_optimized(candidate, task, progress))
    return publish(candidate, options, key)


def _optimized(candidate: Candidate, task: Task, progress: Progress) -> Sequence[Optimized]:
    golden = list(candidate.golden_inputs.values())
    exporting = Exporting(candidate.content, candidate.description["inputs"][0], candidate.preparation, golden)
    try:
        sample = task.sample()
        if sample is None:
            progress.say("--optimize: there are no other forms of a model that writes texts")
            return ()
        return optimized(exporting, sample, AccuracyLimits(), progress)
    except Exception as error:
        # What was trained for hours is good without them, whatever a library makes of it.
        progress.say(f"--optimize: there are no other forms: {error}")
        return ()


def _candidate(
    task: Task,
    options: TrainingOptions,
    content: bytes,
    trained: Trained,
    judgement: Judgement,
    parity: float,
    device: str,
) -> Candidate:
    figures = {
        **judgement.figures,
        "metrics": dict(judgement.metrics),
        "parity": parity,
        "parameters": trained.parameters,
        "examples": dict(task.sizes()),
        "training": trained.summary(),
    }
    curves = draw_learning_curves(trained.history, trained.best_epoch, task.metric)
    # What `auto` came to: without it the seed alone would not make the run again.
    resolved = {"precision": trained.precision, "device": device}
    return Candidate(
        content=content,
        preparation=task.preparation,
        golden_inputs=task.golden_inputs(),
        description=task.description(),
        files=task.files(),
        metrics=judgement.metrics,
        calibration=judgement.calibration,
        config={"recipe": options.recipe} | options.record() | resolved,
        data_sha256=task.data_sha256,
        report=Report(
            title=f"{options.name}: {options.arch}",
            table=judgement.table,
            figures=figures,
            pictures={"learning_curves": curves, **judgement.pictures},
            mistakes=judgement.mistakes,
        ),
    )


def _identity(task: Task, options: TrainingOptions, group: Group) -> str:
    """Say what the run trains and on what: a checkpoint of anything else is not gone on from."""
    learned = {name: value for name, value in options.record().items() if name not in OF_THE_GATE}
    facts = {**learned, "data": task.data_sha256, "sizes": dict(task.sizes()), "processes": group.size}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _check_room(task: Task, options: TrainingOptions) -> None:
    model_bytes = sum(tensor.numel() * tensor.element_size() for tensor in task.model.state_dict().values())
    models_kept = WEIGHTS_KEPT + STATES_OF_OPTIMIZER.get(options.optimizer, STATES_OF_OTHERS)
    published = PUBLISHED + (OPTIMIZED if options.optimize else 0)
    needed = (CHECKPOINTS_AT_ONCE * models_kept + published) * model_bytes
    for directory in (options.models_dir, options.runs_dir):
        directory.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(directory).free
        if free < needed:
            raise OutOfRoom(
                f"{directory} has {free / 2**20:.0f} MiB left; a run of this size wants {needed / 2**20:.0f} MiB"
            )
