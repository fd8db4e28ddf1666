"""What a person sees while a model trains."""

import shutil
import sys
from typing import Never, TextIO

from torch import Tensor
from tqdm import tqdm

# Reading a loss from a GPU waits for it, so it is not done at every step.
STEPS_A_REFRESH = 10
SMOOTHING = 0.2
# Fits a terminal of 80 columns with all its figures.
LAYOUT = "{desc} |{bar:10}| {elapsed}<{remaining}{postfix}"


class Progress:
    """A bar an epoch: elapsed and remaining time, live loss and accuracy. Off a terminal, a line an epoch."""

    def __init__(self, epochs: int, stream: TextIO | None = None) -> None:
        self.epochs = epochs
        self.stream = stream or sys.stderr
        self._running: tuple[float, float] | None = None
        self._bar = self._make_bar("", 0, disable=True)

    def begin_epoch(self, epoch: int, steps: int) -> None:
        """Open the bar of an epoch, counted from 0."""
        self._running = None
        # Redrawn into a file or a container's log, a bar would be noise.
        self._bar = self._make_bar(f"epoch {epoch + 1}/{self.epochs}", steps, disable=not self.stream.isatty())

    def step(self, loss: Tensor, accuracy: Tensor) -> None:
        """Count a step; its loss and accuracy are shown from time to time."""
        self._steps += 1
        if self._steps % STEPS_A_REFRESH == 1:
            self._running = _smoothed(self._running, (loss.item(), accuracy.item()))
            self._bar.set_postfix_str(self._figures(), refresh=False)
        self._bar.update()

    def end_epoch(self, validation_loss: float, validation_accuracy: float) -> None:
        """Close the bar, with the validation figures."""
        figures = f"{self._figures()}, val {validation_loss:.3f} acc {validation_accuracy:.2%}"
        self._bar.set_postfix_str(figures)
        self._bar.close()
        if not self.stream.isatty():
            self.say(f"{self._title} ({self._steps} steps): {figures}")

    def say(self, line: str) -> None:
        """Write one line, clear of any bar."""
        tqdm.write(line, file=self.stream)

    def _make_bar(self, title: str, steps: int, *, disable: bool) -> "tqdm[Never]":
        self._title = title
        self._steps = 0
        # A terminal without a size, as containers may have, would otherwise show nothing at all.
        columns, rows = shutil.get_terminal_size(fallback=(100, 24))
        return tqdm(
            total=steps,
            desc=title,
            file=self.stream,
            mininterval=0.2,
            bar_format=LAYOUT,
            ncols=columns,
            nrows=rows,
            disable=disable,
        )

    def _figures(self) -> str:
        loss, accuracy = self._running or (float("nan"), float("nan"))
        return f"loss {loss:.3f} acc {accuracy:.2%}"


def _smoothed(before: tuple[float, float] | None, now: tuple[float, float]) -> tuple[float, float]:
    if before is None:
        return now
    loss, accuracy = ((1 - SMOOTHING) * old + SMOOTHING * new for old, new in zip(before, now, strict=True))
    return loss, accuracy
