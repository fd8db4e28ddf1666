"""The configuration of a training run; the command line is derived from it."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from models.manifest import ModelName
from models.repository import DEFAULT_ROOT, MODELS_DIR_VARIABLE, default_root


class TrainingConfig(BaseSettings):
    """Train an image classifier on Fashion-MNIST, check what was exported, and publish it."""

    model_config = SettingsConfigDict(
        frozen=True,
        cli_prog_name="python -m training",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
    )

    name: ModelName = Field("fashion", description="Name to publish under.")
    models_dir: Path = Field(
        default_factory=default_root, description=f"Model repository; {MODELS_DIR_VARIABLE} or {DEFAULT_ROOT}."
    )
    default: bool = Field(False, description="Make this the default model for images.")
    data: Path | None = Field(None, description="Directory of the data set's idx files, gzipped or not.")
    limit: Annotated[int, Field(ge=64)] | None = Field(
        None, description="Use only this many training and test images: for a quick try."
    )
    validation_fraction: float = Field(
        0.08, gt=0, lt=1, description="Share of the training images held out to choose the epoch."
    )

    hidden_size: int = Field(128, ge=1, le=65_536, description="Units of the hidden fully connected layer.")
    epochs: int = Field(6, ge=1, le=100_000, description="Passes over the training images.")
    batch_size: int = Field(256, ge=2, le=1_000_000, description="Images a step.")
    learning_rate: float = Field(0.003, gt=0, description="Peak learning rate of AdamW.")
    weight_decay: float = Field(0.05, ge=0, description="Decoupled weight decay of the matrices.")
    warmup_fraction: float = Field(0.1, ge=0, lt=1, description="Share of the steps that warm up.")
    label_smoothing: float = Field(0.05, ge=0, lt=1, description="Probability spread over all labels.")
    shift_pixels: int = Field(1, ge=0, le=1000, description="Augmentation: largest shift in each direction.")
    seed: int = Field(
        0, ge=0, lt=2**63, description="Seed of the split, the weights, the order and the augmentation."
    )
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:[0-9]{1,3})?)$", description="auto, cpu, cuda or cuda:N."
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Of the training steps; auto times both and takes the faster."
    )

    min_accuracy: float = Field(
        0.9,
        ge=0,
        le=1,
        description="Gate: least test accuracy of the exported file; below, nothing is published.",
    )
    max_batch_size: int = Field(64, ge=1, le=4096, description="Most images the service may batch.")

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
