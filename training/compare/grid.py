"""What `compare` takes: architectures, optimizers, one time budget, and the options of a recipe.

Nothing heavy is imported here, so that a wrong option is told at once.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model
from pydantic_core import PydanticCustomError
from pydantic_settings import CliSubCommand

from training.config import OptimizerName, TrainingOptions

ALL = "all"
DIRECTORY = Path("runs/compare")
BUDGET = re.compile(r"(\d+(?:\.\d+)?)([smh]?)")
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}
# The gate lets everything through: what a model is worth shall stand in the table, however little it is.
LENIENT: Mapping[str, float] = {"min_accuracy": 0.0, "max_error_rate": 1.0}
# What the grid decides itself, and what only a publication or a single run asks for.
DECIDED = frozenset(
    {"name", "models_dir", "runs_dir", "default", "max_batch_size", "resume", "arch", "optimizer", "epochs"}
    | {"budget_s", "optimize", "signing_key", "candidate", "feedback", *LENIENT}
)


def _seconds(given: object) -> object:
    found = BUDGET.fullmatch(given.strip()) if isinstance(given, str) else None
    if isinstance(given, str) and found is None:
        raise PydanticCustomError("budget", "should be like 60s, 5m, 1h or 90")
    return float(found[1]) * SECONDS[found[2]] if found else given


def _optimizers(given: object) -> object:
    if given in (ALL, [ALL], (ALL,)):
        return get_args(OptimizerName)
    return tuple(dict.fromkeys(given)) if isinstance(given, list | tuple) else given


class GridOptions(BaseModel):
    """What every comparison takes; a subclass adds its recipe's options, which go for all combinations."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    command: ClassVar[str]
    recipe: ClassVar[type[TrainingOptions]]

    archs: tuple[str, ...] = Field((ALL,), min_length=1, description="a,b,c; all: those that need no download.")
    optimizers: Annotated[tuple[OptimizerName, ...], BeforeValidator(_optimizers)] = Field(
        get_args(OptimizerName), min_length=1, description="a,b,c; all: every one."
    )
    budget: Annotated[float, BeforeValidator(_seconds)] = Field(
        60.0, gt=0, description="Training time of each combination: 60s, 5m, 1h, or seconds."
    )
    output: Path | None = Field(None, description=f"Directory of the table and curves; {DIRECTORY}/RECIPE.")

    @property
    def directory(self) -> Path:
        """Where the comparison is written to."""
        return self.output or DIRECTORY / self.command

    def given(self) -> dict[str, object]:
        """Return the recipe's options that were given."""
        return {field: getattr(self, field) for field in self.model_fields_set - GridOptions.model_fields.keys()}

    def options(self, arch: str, optimizer: OptimizerName | None = None) -> TrainingOptions:
        """Return what the recipe is given for a combination; without an optimizer it takes its own."""
        fixed: dict[str, object] = {"name": self.command, "arch": arch, "budget_s": self.budget}
        fixed |= {field: value for field, value in LENIENT.items() if field in self.recipe.model_fields}
        fixed |= {"optimizer": optimizer} if optimizer else {}
        return self.recipe(**self.given() | fixed)


def grid_of(command: str, recipe: type[TrainingOptions]) -> type[GridOptions]:
    """Return the options of comparing on a recipe: its own but for those that the grid decides."""
    own = {field: (of.annotation, of) for field, of in recipe.model_fields.items() if field not in DECIDED}
    # pydantic's signature does not let a field's type be any expression.
    made: type[GridOptions] = create_model(f"Compare{recipe.__name__}", __base__=GridOptions, **own)  # type: ignore[call-overload]
    made.__doc__ = f"Compare architectures and optimizers under one time budget: {command}."
    made.command, made.recipe = command, recipe
    return made


def compare_command(recipes: Mapping[str, type[TrainingOptions]]) -> type[BaseModel]:
    """Return the options of `compare`, which has a command for each recipe."""
    commands = {name: (CliSubCommand[grid_of(name, recipe)], ...) for name, recipe in recipes.items()}  # type: ignore[misc]  # made here
    doc = "Train architectures with optimizers, each for the same time, and tabulate them; nothing is published."
    made: type[BaseModel] = create_model("CompareOptions", __doc__=doc, **commands)  # type: ignore[call-overload]
    return made
