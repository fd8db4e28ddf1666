"""What `python -m training list` shows."""

from collections.abc import Mapping
from typing import get_args

from training.architectures import zoo
from training.architectures.catalogue import IMAGES, SEQUENCES, TEXTS
from training.commands import Command
from training.config import LEARNING_RATES, ScheduleName


def listing() -> str:
    """Return the commands, architectures, optimizers and schedules, as lines of text."""
    commands = {
        name: (_options(field.annotation).__doc__ or "").splitlines()[0]
        for name, field in Command.model_fields.items()
        if _options(field.annotation) is not None
    }
    parts = [
        _table("Commands", commands),
        _table("Architectures for images", {**IMAGES, "any of torchvision": ", ".join(zoo.names())}),
        _table("Architectures for texts", TEXTS),
        _table("Architectures for sequence pairs", SEQUENCES),
        _table(
            "Optimizers, and their learning rates", {name: f"{rate:g}" for name, rate in LEARNING_RATES.items()}
        ),
        f"Schedules\n  {', '.join(get_args(ScheduleName))}",
    ]
    return "\n\n".join(parts)


def _options(annotation: object) -> type | None:
    return next(
        (each for each in get_args(annotation) if isinstance(each, type) and hasattr(each, "model_fields")), None
    )


def _table(title: str, rows: Mapping[str, str]) -> str:
    width = max(map(len, rows))
    return "\n".join([title, *(f"  {name:<{width}}  {text}" for name, text in rows.items())])
