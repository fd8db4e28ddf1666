"""The training loop: one for every task and optimizer."""

import copy
import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from training.board import Board
from training.checkpoint import Checkpoint
from training.config import TrainingOptions
from training.distributed import Group
from training.errors import Diverged
from training.progress import Progress
from training.state import Run
from training.tasks.task import Task
from training.trained import Epoch, Trained, count_parameters

SAVE_INTERVAL_S = 60.0


def train(
    task: Task,
    options: TrainingOptions,
    group: Group,
    checkpoint: Checkpoint,
    progress: Progress,
    board: Board | None = None,
) -> Trained:
    """Train the task's model in place and leave it with the weights of the epoch that validated best.

    Args:
        task: On the device to train on; its test part is not looked at.
        options: The run's, resolved.
        group: The processes that train together.
        checkpoint: Saved to as the run goes on, and gone on from with `--resume`.
        progress: Told of every step and epoch.
        board: Told of every epoch, if there is one.

    Raises:
        CheckpointUnfit: `--resume`, and what is there is of another run.
        Diverged: The loss is no number, and never was one.
        KeyboardInterrupt: Ctrl-C; the checkpoint was saved first.
    """
    run = Run(task, options, group)
    saved = checkpoint.load() if options.resume else None
    if saved is not None:
        run.restore(saved)
        progress.say(f"going on from epoch {run.epoch + 1}, step {run.step_in_epoch}")
    run.prepare()
    # Whatever stops a run from saving is better known before the first step than after the last.
    _save(run, checkpoint)
    with _interruptible() as interrupted:
        while not run.is_over:
            _run_epoch(run, checkpoint, progress, interrupted)
            if board is not None and len(run.history) == run.epoch:
                board.write(run.epoch - 1, run.history[-1])
        if run.group.any(bool(interrupted), run.device):  # while the last epoch was validated
            raise KeyboardInterrupt
    run.task.model.load_state_dict(run.best_state)
    return Trained(
        history=tuple(run.history),
        best_epoch=run.best_epoch,
        precision=run.precision,
        parameters=count_parameters(run.task.model),
        examples=run.examples,
        elapsed_s=run.elapsed_s,
    )


def _run_epoch(run: Run, checkpoint: Checkpoint, progress: Progress, interrupted: Sequence[int]) -> None:
    epochs = math.ceil(run.total_steps / run.steps_per_epoch)
    progress.begin_epoch(run.epoch, epochs, run.steps_this_epoch, run.step_in_epoch)
    saved_s = time.monotonic()
    for indices_N in run.batches()[run.step_in_epoch : run.steps_this_epoch]:
        progress.step(run.take_step(indices_N))
        # One process that left the others in the middle of a step would leave them waiting.
        if run.group.any(bool(interrupted), run.device):
            _save(run, checkpoint)
            raise KeyboardInterrupt
        if time.monotonic() - saved_s > SAVE_INTERVAL_S:
            _save(run, checkpoint)
            saved_s = time.monotonic()
    _end_epoch(run, progress)
    _save(run, checkpoint)


def _end_epoch(run: Run, progress: Progress) -> None:
    # One process measures, and tells the others.
    found = run.validate() if run.group.is_first else (0.0, 0.0)
    loss, score = run.group.from_first(found, run.device)
    progress.end_epoch(loss, score)
    if math.isfinite(loss):
        _note(run, loss, score)
    else:
        _end_diverged(run, loss, progress)
    run.sums.zero_()
    run.epoch, run.step_in_epoch = run.epoch + 1, 0


def _note(run: Run, loss: float, score: float) -> None:
    mean_loss, mean_score = (run.sums / run.step_in_epoch).tolist()
    run.history.append(Epoch(mean_loss, mean_score, loss, score, run.learning_rate, run.elapsed_s))
    if (score, -loss) > run.best_score or not run.best_state:
        run.best_epoch, run.best_score = run.epoch, (score, -loss)
        run.best_state = copy.deepcopy(run.learned.state_dict())


def _end_diverged(run: Run, loss: float, progress: Progress) -> None:
    """End the run: weights that are no numbers will not be numbers again."""
    what = f"diverged: the validation loss of epoch {run.epoch + 1} is {loss}"
    if not run.best_state:
        raise Diverged(f"{what}; a smaller --learning-rate may help")
    progress.say(f"{what}; epoch {run.best_epoch + 1} is kept")
    run.total_steps = run.step


def _save(run: Run, checkpoint: Checkpoint) -> None:
    if run.group.is_first:
        checkpoint.save(run.state())


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Yield a list that a Ctrl-C puts something into, instead of stopping in the middle of a step."""
    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if seen and callable(before):
            before(number, frame)
        seen.append(number)

    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, note)
    except ValueError:  # Only the main thread may; elsewhere nobody presses Ctrl-C.
        yield seen
        return
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)
