"""The command line: every command and its options.

Nothing heavy is imported here, so that a wrong option is told at once.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliPositionalArg,
    CliSettingsSource,
    CliSubCommand,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from models.manifest import ModelName
from models.repository import DEFAULT_ROOT, MODELS_DIR_VARIABLE, InputKind, default_root
from models.signing_key import PUBLIC_SUFFIX, SIGNING_KEY_VARIABLE, default_signing_key
from training.compare.grid import compare_command
from training.config import (
    SIGNING_KEY,
    AllowingOptions,
    ImageOptions,
    Options,
    Seq2SeqOptions,
    TextClassificationOptions,
    TextOptions,
    TokenKind,
    TrainingOptions,
)
from training.datasets.splitting import TEST_FRACTION, VALIDATION_FRACTION
from training.help import help_formatter
from training.recipes import defaults

NOT_GIVEN = ", where the data do not say."
SPLIT_COLUMN = "Column that says train, validation or test, if any does."
TABLE = "CSV, TSV, JSON Lines or Parquet file, the text ones gzipped or not."


class FashionOptions(ImageOptions):
    """Train an image classifier on Fashion-MNIST, and publish it."""

    recipe = "fashion"

    name: ModelName = Field("fashion", description="Name to publish under.")
    arch: str = Field("convnet", description="convnet or resnet.")
    data: Path | None = Field(None, description="Directory of the data set's idx files, gzipped or not.")
    validation_fraction: float = Field(
        0.08, gt=0, lt=1, description="Share of the training images held out to choose the epoch."
    )
    min_accuracy: float = Field(
        0.9, ge=0, le=1, description="Gate: least test accuracy of the exported file; below, nothing is published."
    )


class ReviewOptions(TextClassificationOptions):
    """Train a text classifier on sentences of movie reviews, and publish it."""

    recipe = "reviews"

    name: ModelName = Field("reviews", description="Name to publish under.")
    arch: str = Field("committee", description="bag, lstm, gru, transformer or committee.")
    sharpness: float = Field(
        1.0, ge=0, description="How sure a rating makes of a sentence; 0: only its sign counts."
    )
    lexicon: bool = Field(True, description="Train on a lexicon of rated words too.")
    split: int = Field(0, ge=0, description="Which split of the sentences: each number draws another.")
    min_accuracy: float = Field(
        0.7, ge=0, le=1, description="Gate: least test accuracy of the exported file; below, nothing is published."
    )


class PronounceOptions(Seq2SeqOptions):
    """Train a model that writes how a word is said, on the CMU pronouncing dictionary, and publish it."""

    recipe = "pronounce"

    name: ModelName = Field("pronounce", description="Name to publish under.")
    arch: str = Field("seq2seq", description="seq2seq.")
    max_error_rate: float = Field(
        0.5, ge=0, description="Gate: largest share of wrong words on the test set, stress included."
    )


class OwnDataOptions(BaseModel):
    """What every recipe on a user's own data takes besides: how much is held out."""

    validation_fraction: float = Field(
        VALIDATION_FRACTION, gt=0, lt=1, description=f"Share held out to choose the epoch{NOT_GIVEN}"
    )
    test_fraction: float = Field(
        TEST_FRACTION, gt=0, lt=1, description=f"Share held out to be tested on{NOT_GIVEN}"
    )


class ImageFolderOptions(OwnDataOptions, ImageOptions):
    """Train an image classifier on images of your own, and publish it."""

    recipe = "image"

    data: Path = Field(
        description="Folders named by class, or train/, validation/, test/ of such; or a table of paths."
    )
    path_column: str = Field("path", description="Of a table: column of the paths, relative to the table.")
    label_column: str = Field("label", description="Of a table: column of the labels.")
    split_column: str | None = Field(None, description=f"Of a table: {SPLIT_COLUMN}")
    arch: str = Field("convnet", description="convnet, resnet, efficientnet_lite0 or any torchvision name.")
    pretrained: bool = Field(
        False, description="Begin with ImageNet's weights: the head alone first, then all, early layers slowly."
    )
    head_epochs: int = Field(3, ge=1, le=1000, description="With --pretrained: passes that train the head alone.")
    size: int = Field(64, ge=8, le=1024, description="Pixels a side that the network sees.")
    color: Literal["L", "RGB"] = Field("RGB", description="L: grey.")
    fit: Literal["stretch", "crop"] = Field("crop", description="crop: keep the aspect, and cut the centre.")
    max_pixels: int = Field(64_000_000, ge=1, description="Most pixels of an image file.")


class TextTableOptions(OwnDataOptions, TextClassificationOptions):
    """Train a text classifier on a table of your own, and publish it."""

    recipe = "text"

    data: Path = Field(description=TABLE)
    text_column: str = Field("text", description="Column of the texts.")
    label_column: str = Field("label", description="Column of the labels.")
    split_column: str | None = Field(None, description=SPLIT_COLUMN)
    arch: str = Field("committee", description="bag, lstm, gru, transformer or committee.")


class PairTableOptions(OwnDataOptions, Seq2SeqOptions):
    """Train a model that writes a text for a text, on a table of your own, and publish it."""

    recipe = "seq2seq"

    data: Path = Field(description=TABLE)
    source_column: str = Field("source", description="Column of the texts to read.")
    target_column: str = Field("target", description="Column of the texts to write.")
    split_column: str | None = Field(None, description=SPLIT_COLUMN)
    arch: str = Field("seq2seq", description="seq2seq.")
    tokens: TokenKind = Field("bpe", description="What a source is split into.")
    lowercase: bool = Field(False, description="Read capital letters of the source as small ones.")


class ImportOptions(AllowingOptions, Options):
    """Make a bundle of a TorchScript file, or of a state dict of a torchvision architecture.

    A TorchScript file is code: import none that you do not trust; one that could do more than compute is refused.
    With --arch, what is not given of size, shorter side, interpolation, mean and std is as torchvision's published
    weights want it.
    """

    file: CliPositionalArg[Path] = Field(description="TorchScript file, or .pth state dict.")
    task: Literal["image"] = Field("image", description="What the model does.")
    labels: Path = Field(description="File with a label a line, in the order of the model's outputs.")
    arch: str | None = Field(None, description="Of a state dict: torchvision's name of its architecture.")
    size: int = Field(224, ge=1, le=4096, description="Pixels a side that the model takes.")
    color: Literal["L", "RGB"] = Field("RGB", description="L: grey.")
    shorter_side: int | None = Field(
        None, ge=1, le=8192, description="Scale the shorter side to this and cut the centre; without it, stretch."
    )
    interpolation: Literal["bilinear", "bicubic"] = Field("bilinear", description="How images are resized.")
    mean: tuple[float, ...] = Field(
        (0.485, 0.456, 0.406), description="Subtracted from pixels of 0..1, a number a channel: 0.5,0.5,0.5."
    )
    std: tuple[float, ...] = Field(
        (0.229, 0.224, 0.225), description="Then divided by; --mean 0 --std 1: pixels of 0..1."
    )
    outputs: Literal["logits", "probabilities"] = Field("logits", description="What the model gives.")
    max_pixels: int = Field(64_000_000, ge=1, description="Most pixels of an image file.")


class TorchvisionOptions(Options):
    """Make a bundle of one of torchvision's classifiers."""

    arch: CliPositionalArg[str] = Field(description="As python -m training list shows it.")
    weights: str = Field("DEFAULT", description="DEFAULT downloads torchvision's best; a .pth file; none: random.")
    labels: Path | None = Field(None, description="File with a label a line; without it, ImageNet's 1000.")
    max_pixels: int = Field(64_000_000, ge=1, description="Most pixels of an image file.")


class ImagenetOptions(Options):
    """Make a bundle of EfficientNet-Lite0 with the weights that a package carries, for any photograph."""

    name: ModelName = Field("imagenet", description="Name to publish under.")
    max_pixels: int = Field(64_000_000, ge=1, description="Most pixels of an image file.")


CompareOptions = compare_command(
    {
        "fashion": FashionOptions,
        "reviews": ReviewOptions,
        "pronounce": PronounceOptions,
        "image": ImageFolderOptions,
        "text": TextTableOptions,
        "seq2seq": PairTableOptions,
    }
)


class OptimizeOptions(AllowingOptions):
    """Publish a model anew, with faster forms of it beside TorchScript, if they are as accurate.

    OpenVINO in fp32, in bf16 and quantized to int8, as far as this processor is made for them. They are judged on
    the test part of the data that the model was trained on; an imported model, on pictures of your own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: CliPositionalArg[ModelName] = Field(description="Name that the model is published under.")
    models_dir: Path = Field(
        default_factory=default_root, description=f"Model repository; {MODELS_DIR_VARIABLE} or {DEFAULT_ROOT}."
    )
    data: Path | None = Field(
        None,
        description="What it was trained on, as that command took it; of an imported model, a folder of pictures "
        "like those that it will be asked, in folders named by label if the labels are known.",
    )
    signing_key: Path | None = Field(default_factory=default_signing_key, description=SIGNING_KEY)
    max_metric_loss: float = Field(
        0.005, ge=0, le=1, description="Gate: most accuracy that a faster form may lose; 0.005 is half a point."
    )
    min_agreement: float = Field(
        0.98, ge=0, le=1, description="Gate: least share of examples on which its best label is TorchScript's."
    )


class KeygenOptions(BaseModel):
    """Make a pair of keys: one that signs what is published, and a public one that the service trusts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: CliPositionalArg[Path] = Field(
        description=f"For the private key; FILE{PUBLIC_SUFFIX} is the public one."
    )


class SignOptions(BaseModel):
    """Sign a version that is published already.

    A model is code: sign none that you do not know the origin of.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: CliPositionalArg[ModelName] = Field(description="Name that the model is published under.")
    version: str | None = Field(None, description="Which version; the current one, if none is named.")
    key: Path | None = Field(
        default_factory=default_signing_key, description=f"Private key that signs; or {SIGNING_KEY_VARIABLE}."
    )
    models_dir: Path = Field(
        default_factory=default_root, description=f"Model repository; {MODELS_DIR_VARIABLE} or {DEFAULT_ROOT}."
    )


class ListOptions(BaseModel):
    """Show the recipes, architectures, optimizers and schedules."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Command(BaseSettings):
    """Train models, judge what was exported, and publish it.

    Without a command: the starter set, which is fashion, reviews and imagenet.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        cli_prog_name="python -m training",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_use_class_docs_for_groups=True,
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
    imagenet: CliSubCommand[ImagenetOptions]
    torchvision: CliSubCommand[TorchvisionOptions]
    import_: CliSubCommand[ImportOptions] = Field(alias="import")
    optimize: CliSubCommand[OptimizeOptions]
    keygen: CliSubCommand[KeygenOptions]
    sign: CliSubCommand[SignOptions]
    compare: CliSubCommand[CompareOptions]  # type: ignore[valid-type]  # made of the recipes' options
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


# What a recipe's options are by default; under `compare` too, but for what goes with an optimizer.
DEFAULTS: Mapping[str, tuple[type[TrainingOptions], defaults.Defaults]] = {
    "fashion": (FashionOptions, defaults.FASHION),
    "reviews": (ReviewOptions, defaults.TEXTS),
    "pronounce": (PronounceOptions, defaults.PRONOUNCE),
    "image": (ImageFolderOptions, defaults.OWN_IMAGES),
    "text": (TextTableOptions, defaults.TEXTS),
    "seq2seq": (PairTableOptions, defaults.PAIRS),
}


def parse() -> Command:
    """Read the command line.

    Raises:
        ValidationError: An option is not what it should be.
        SystemExit: Help was asked for, or an option is not known.
    """
    source = CliSettingsSource[Command](Command, formatter_class=help_formatter(DEFAULTS))
    return CliApp.run(Command, cli_settings_source=source)


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


def input_kind(options: Options) -> InputKind:
    """Return what the trained model will take."""
    return "text" if isinstance(options, TextOptions) else "image"
