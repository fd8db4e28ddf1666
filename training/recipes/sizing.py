"""How long to train on few examples where nobody has said: the usual passes would be a handful of steps."""

import math
from collections.abc import Collection
from typing import TypeVar

from training.config import FULL_BATCH, TrainingOptions
from training.progress import Progress

Given = TypeVar("Given", bound=TrainingOptions)
# A batch has at least so many examples, and a pass, if it can, so many batches.
LEAST_EXAMPLES = 8
LEAST_BATCHES = 8


def sized(options: Given, given: Collection[str], train_size: int, least_steps: int, progress: Progress) -> Given:
    """Make smaller batches of few examples, and more passes over them, and say so.

    Args:
        options: As the recipe has them.
        given: Names of the options that somebody gave; those stay.
        train_size: Number of training examples, of which `--limit` may leave fewer.
        least_steps: About what such a training needs.
        progress: Told.
    """
    if options.optimizer in FULL_BATCH:
        return options
    examples = min(train_size, options.limit or train_size)
    batch_size = min(options.batch_size, max(LEAST_EXAMPLES, examples // LEAST_BATCHES))
    epochs = max(options.epochs, math.ceil(least_steps / max(1, examples // batch_size)))
    fitting = {"batch_size": batch_size, "epochs": epochs}
    if options.budget_s is not None:
        del fitting["epochs"]
    update = {
        option: value
        for option, value in fitting.items()
        if option not in given and value != getattr(options, option)
    }
    if update:
        told = ", ".join(f"--{option.replace('_', '-')} {value}" for option, value in update.items())
        progress.say(f"of {examples} training examples, {told} unless you say otherwise")
    return options.model_copy(update=update)
