"""A run's curves for TensorBoard: `tensorboard --logdir runs`."""

from pathlib import Path

from training.trained import Epoch


class Board:
    """Writes each epoch's figures; a run that goes on after a stop goes on in the same curves.

    Args:
        directory: Where to; None writes nothing.
    """

    def __init__(self, directory: Path | None) -> None:
        self._writer = None
        if directory is not None:
            # Imported where it is used: it takes seconds.
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(directory))

    def write(self, number: int, epoch: Epoch) -> None:
        """Write the figures of an epoch, counted from 0."""
        if self._writer is None:
            return
        figures = {
            "loss/train": epoch.train_loss,
            "loss/validation": epoch.validation_loss,
            "score/train": epoch.train_score,
            "score/validation": epoch.validation_score,
            "learning_rate": epoch.learning_rate,
        }
        for name, value in figures.items():
            self._writer.add_scalar(name, value, number + 1)
        # A run may be killed at any time.
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()
