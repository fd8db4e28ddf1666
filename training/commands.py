"""The command line: every command and its options.

Nothing heavy is imported here, so that a wrong option is told at once.
"""

import importlib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, CliSubCommand, PydanticBaseSettingsSource, SettingsConfigDict

from models.repository import DEFAULT_ROOT, MODELS_DIR_VARIABLE, InputKind, default_root
from training.config import ImageOptions, Seq2SeqOptions, TextClassificationOptions, TokenKind, TrainingOptions

SPLIT_COLUMN = "Column that says train, validation or test, if any does."
TABLE = "CSV, TSV, JSON Lines or Parquet file, the text ones gzipped or not."


class FashionOptions(ImageOptions):
    """Train an image classifier on Fashion-MNIST, and publish it."""

    name: str = Field("fashion", description="Name to publish under.")
    arch: str = Field("convnet", description="convnet, resnet, or any that python -m training list shows.")
    data: Path | None = Field(None, description="Directory of the data set's idx files, gzipped or not.")
    validation_fraction: float = Field(
        0.08, gt=0, lt=1, description="Share of the training images held out to choose the epoch."
    )
    min_accuracy: float = Field(
        0.9, ge=0, le=1, description="Gate: least test accuracy of the exported file; below, nothing is published."
    )


class ReviewOptions(TextClassificationOptions):
    """Train a text classifier on sentences of movie reviews, and publish it."""

    name: str = Field("reviews", description="Name to publish under.")
    arch: str = Field("committee", description="bag, lstm, gru, transformer or committee.")
    sharpness: float = Field(
        1.0, ge=0, description="How sure a rating makes of a sentence; 0: only its sign counts."
    )
    others: bool = Field(True, description="Train on rated sentences of other kinds and on rated words too.")
    min_accuracy: float = Field(
        0.7, ge=0, le=1, description="Gate: least test accuracy of the exported file; below, nothing is published."
    )


class PronounceOptions(Seq2SeqOptions):
    """Train a model that writes how a word is said, on the CMU pronouncing dictionary, and publish it."""

    name: str = Field("pronounce", description="Name to publish under.")
    arch: str = Field("seq2seq", description="seq2seq.")
    max_error_rate: float = Field(
        0.5, ge=0, description="Gate: largest share of wrong words on the test set, stress included."
    )


class ImageFolderOptions(ImageOptions):
    """Train an image classifier on images of your own, and publish it."""

    data: Path = Field(
        description="Folders named by class, or train/, validation/, test/ of such; or a table of paths."
    )
    path_column: str = Field("path", description="Of a table: column of the paths, relative to the table.")
    label_column: str = Field("label", description="Of a table: column of the labels.")
    split_column: str | None = Field(None, description=f"Of a table: {SPLIT_COLUMN}")
    arch: str = Field("convnet", description="convnet, resnet, efficientnet_lite0 or any torchvision name.")
    size: int = Field(64, ge=8, le=1024, description="Pixels a side that the network sees.")
    color: Literal["L", "RGB"] = Field("RGB", description="L: grey.")
    fit: Literal["stretch", "crop"] = Field("crop", description="crop: keep the aspect, and cut the centre.")
    max_pixels: int = Field(64_000_000, ge=1, description="Most pixels of an image file.")


class TextTableOptions(TextClassificationOptions):
    """Train a text classifier on a table of your own, and publish it."""

    data: Path = Field(description=TABLE)
    text_column: str = Field("text", description="Column of the texts.")
    label_column: str = Field("label", description="Column of the labels.")
    split_column: str | None = Field(None, description=SPLIT_COLUMN)
    arch: str = Field("committee", description="bag, lstm, gru, transformer or committee.")


class PairTableOptions(Seq2SeqOptions):
    """Train a model that writes a text for a text, on a table of your own, and publish it."""

    data: Path = Field(description=TABLE)
    source_column: str = Field("source", description="Column of the texts to read.")
    target_column: str = Field("target", description="Column of the texts to write.")
    split_column: str | None = Field(None, description=SPLIT_COLUMN)
    arch: str = Field("seq2seq", description="seq2seq.")
    tokens: TokenKind = Field("bpe", description="What a source is split into.")
    lowercase: bool = Field(False, description="Read capital letters of the source as small ones.")


class ListOptions(BaseModel):
    """Show the recipes, architectures, optimizers and schedules."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Command(BaseSettings):
    """Train models, judge what was exported, and publish it.

    Without a command: train and publish the starter set, which is fashion and reviews.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        cli_prog_name="python -m training",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
    )

    models_dir: Path = Field(
        default_factory=default_root, description=f"Model repository; {MODELS_DIR_VARIABLE} or {DEFAULT_ROOT}."
    )
    fashion: CliSubCommand[FashionOptions]
    reviews: CliSubCommand[ReviewOptions]
    pronounce: CliSubCommand[PronounceOptions]
    image: CliSubCommand[ImageFolderOptions]
    text: CliSubCommand[TextTableOptions]
    seq2seq: CliSubCommand[PairTableOptions]
    list: CliSubCommand[ListOptions]

    @classmethod
    def settings_customise_sources(  # noqa: D102 (pydantic-settings' own hook)
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 (the hook passes all of them)
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (likewise)
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (likewise)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (likewise)
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # Only the command line: a stray NAME or SEED in the environment must not change a training run.
        return (init_settings,)


# The module of each recipe; imported when it is run, for torch takes seconds.
RECIPES: dict[type[TrainingOptions], str] = {
    FashionOptions: "training.recipes.fashion",
    ReviewOptions: "training.recipes.reviews",
    PronounceOptions: "training.recipes.pronounce",
    ImageFolderOptions: "training.recipes.own_images",
    TextTableOptions: "training.recipes.own_texts",
    PairTableOptions: "training.recipes.own_pairs",
}


def recipe_of(options: TrainingOptions) -> Any:  # noqa: ANN401 (each takes its own kind of options)
    """Return a recipe's `prepare`: options and progress -> task and options filled in."""
    return importlib.import_module(RECIPES[type(options)]).prepare


def input_kind(options: TrainingOptions) -> InputKind:
    """Return what the trained model will take."""
    return "image" if isinstance(options, ImageOptions) else "text"
