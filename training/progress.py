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
LAYOUT = "{desc} |{bar:8}| {elapsed}<{remaining}{postfix}"


class Progress:
    """A bar an epoch: elapsed and remaining time, live loss and score. Off a terminal, a line an epoch.

    Args:
        stream: Where to; standard error, if not given.
        silent: Say nothing at all: of several processes, one speaks.
    """

    def __init__(self, stream: TextIO | None = None, *, silent: bool = False) -> None:
        self.stream = stream or sys.stderr
        self._silent = silent
        self._running: tuple[float, float] | None = None
        self._bar = self._make_bar("", 0, disable=True)

    def begin_epoch(self, epoch: int, epochs: int, steps: int, done: int) -> None:
        """Open the bar of an epoch, counted from 0, of which some steps may be done already."""
        self._running = None
        # Redrawn into a file or a container's log, a bar would be noise.
        silent = self._silent or not self.stream.isatty()
        self._bar = self._make_bar(f"epoch {epoch + 1}/{epochs}", steps, disable=silent)
        self._bar.update(done)

    def step(self, means: Tensor) -> None:
        """Count a step; its loss and score are shown from time to time."""
        self._steps += 1
        if self._steps % STEPS_A_REFRESH == 1:
            loss, score = means.tolist()
            self._running = _smoothed(self._running, (loss, score))
            self._bar.set_postfix_str(self._figures(), refresh=False)
        self._bar.update()

    def end_epoch(self, validation_loss: float, validation_score: float) -> None:
        """Close the bar, with the validation figures."""
        figures = f"{self._figures()}, val {validation_loss:.3f} acc {validation_score:.2%}"
        self._bar.set_postfix_str(figures)
        self._bar.close()
        if not self._silent and not self.stream.isatty():
            self.say(f"{self._title} ({self._steps} steps): {figures}")

    def say(self, line: str) -> None:
        """Write lines, clear of any bar."""
        if not self._silent:
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
        loss, score = self._running or (float("nan"), float("nan"))
        return f"loss {loss:.3f} acc {score:.2%}"


def _smoothed(before: tuple[float, float] | None, now: tuple[float, float]) -> tuple[float, float]:
    if before is None:
        return now
    loss, score = ((1 - SMOOTHING) * old + SMOOTHING * new for old, new in zip(before, now, strict=True))
    return loss, score
