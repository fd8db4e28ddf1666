"""The options of a training command; the command line is derived from them.

An option that is not given takes the recipe's value for the chosen architecture (`recipes/defaults.py`), and where
that has none, the default here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator

from models.manifest import ModelName, Task
from models.operators import ALLOW_VARIABLE, default_allowed, parse_operators
from models.repository import DEFAULT_ROOT, MODELS_DIR_VARIABLE, default_root
from models.signing_key import SIGNING_KEY_VARIABLE, default_signing_key
from training.errors import OptionInvalid

OptimizerName = Literal["sgd", "adam", "adamw", "muon", "adagrad", "rmsprop", "lbfgs", "gd"]
TokenKind = Literal["words", "bpe", "chars"]
ScheduleName = Literal["cosine", "step", "constant"]
# What a step's size means differs from one optimizer to the next, so each brings its own.
LEARNING_RATES: Mapping[OptimizerName, float] = {
    "sgd": 0.05,
    "adam": 0.002,
    "adamw": 0.003,
    "muon": 0.008,
    "adagrad": 0.02,
    "rmsprop": 0.001,
    "lbfgs": 1.0,
    "gd": 0.2,
}
FULL_BATCH: frozenset[OptimizerName] = frozenset({"lbfgs", "gd"})
SIGNING_KEY = f"Private key that signs what is published; {SIGNING_KEY_VARIABLE}, or it is not signed."
# None of these has anything to do with what is learned.
PLACES = (
    "models_dir",
    "signing_key",
    "runs_dir",
    "data",
    "file",
    "labels",
    "feedback",
    "resume",
    "default",
    "candidate",
    "optimize",
    "allow_operators",
)


class Options(BaseModel):
    """What every command takes that publishes a model."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: ModelName = Field(description="Name to publish under.")
    models_dir: Path = Field(
        default_factory=default_root, description=f"Model repository; {MODELS_DIR_VARIABLE} or {DEFAULT_ROOT}."
    )
    default: bool = Field(False, description="Make this the default model for its kind of input.")
    candidate: bool = Field(
        False,
        description="Publish beside the current version, not in its place; python -m models.rollout tries it.",
    )
    signing_key: Path | None = Field(default_factory=default_signing_key, description=SIGNING_KEY)
    max_batch_size: int = Field(64, ge=1, le=4096, description="Most items the service may batch.")

    def record(self) -> dict[str, object]:
        """The options that decide what the model is, as plain values."""
        return self.model_dump(mode="json", exclude=set(PLACES))


class AllowingOptions(BaseModel):
    """What every command takes that reads a TorchScript file which others may have made."""

    allow_operators: str = Field(
        default_factory=default_allowed,
        validate_default=True,
        description="Operators of torch that it may use besides those that only compute, with commas between, as "
        f"aten::save; {ALLOW_VARIABLE} or none. The service has to be told the same.",
    )

    @property
    def allowed(self) -> frozenset[str]:
        """The operators."""
        return parse_operators(self.allow_operators)

    @field_validator("allow_operators")
    @classmethod
    def _names_operators(cls, text: str) -> str:
        parse_operators(text)
        return text


class TrainingOptions(Options):
    """What every command takes that trains."""

    task: ClassVar[Task]
    # The command's name: by it, a bundle tells what data it was made from.
    recipe: ClassVar[str]

    runs_dir: Path = Field(Path("runs"), description="Checkpoints and TensorBoard logs.")
    resume: bool = Field(False, description="Go on from the checkpoint of a run that was cut off.")
    optimize: bool = Field(
        False,
        description="Publish faster forms of the model too, in fp32, bf16 and int8, if they are as accurate.",
    )
    feedback: Path | None = Field(
        None,
        description="Learn from the corrections too that POST /feedback stored in this LANTERN_FEEDBACK_FILE.",
    )
    limit: Annotated[int, Field(ge=64)] | None = Field(
        None, description="Use only this many training and test examples: for a quick try."
    )

    arch: str = Field(description="Architecture; python -m training list shows them.")
    hidden_size: int = Field(128, ge=1, le=65_536, description="Units of the hidden layer, where there is one.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Share of the features dropped, where it has dropout.")

    optimizer: OptimizerName = Field("adamw", description="lbfgs and gd take the whole training set a step.")
    learning_rate: float = Field(
        0.003, gt=0, description="Peak learning rate; another --optimizer brings its own."
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Of sgd and muon (Nesterov's), and rmsprop.")
    weight_decay: float = Field(0.01, ge=0, description="Of matrices and kernels; lbfgs takes none.")
    schedule: ScheduleName = Field("cosine", description="Course of the learning rate; step halves it five times.")
    warmup_fraction: float = Field(0.1, ge=0, lt=1, description="Share of the steps over which it rises.")
    epochs: int = Field(
        10, ge=1, le=100_000, description="Passes over the training examples; over few of your own, more."
    )
    budget_s: float | None = Field(
        None, gt=0, description="Train for about so long instead of --epochs, validation included."
    )
    batch_size: int = Field(256, ge=2, le=1_000_000, description="Examples a step, over all processes.")
    clip_norm: float = Field(0, ge=0, description="Largest norm of the gradient; 0: no limit; lbfgs takes none.")
    label_smoothing: float = Field(0, ge=0, lt=1, description="Probability spread over all labels.")
    ema_decay: float = Field(
        0, ge=0, lt=1, description="Keep an average of the weights that forgets so slowly; 0: the weights."
    )
    patience: int = Field(0, ge=0, description="Stop after so many epochs without a better one; 0: never.")
    seed: int = Field(0, ge=0, lt=2**63, description="Of the weights, the order, augmentation and dropout.")
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:[0-9]{1,3})?)$", description="auto, cpu, cuda or cuda:N."
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Of the training steps; auto times both and takes the faster."
    )

    def resolved(self, defaults: Mapping[str, object]) -> Self:
        """Fill in what was not given.

        Args:
            defaults: The recipe's values for the architecture.

        Raises:
            OptionInvalid: An option does not go with another.
        """
        given = self.model_fields_set
        update = {field: value for field, value in defaults.items() if field not in given}
        if "optimizer" in given and self.optimizer != defaults.get("optimizer", "adamw"):
            update |= {} if "learning_rate" in given else {"learning_rate": LEARNING_RATES[self.optimizer]}
        filled = self.model_copy(update=update)
        if filled.optimizer == "lbfgs" and "weight_decay" in given and filled.weight_decay:
            raise OptionInvalid("--weight-decay: lbfgs takes none")
        if filled.optimizer == "lbfgs" and "clip_norm" in given and filled.clip_norm:
            raise OptionInvalid("--clip-norm: lbfgs takes none")
        if filled.optimizer == "lbfgs" and filled.precision == "bf16":
            raise OptionInvalid("--precision: lbfgs compares losses too close for bf16; it takes fp32")
        return filled


class ImageOptions(TrainingOptions):
    """What training on images takes besides."""

    task = "image-classification"

    flip: bool = Field(True, description="Augmentation: mirror half of the images.")
    shift_pixels: int = Field(0, ge=0, le=1000, description="Augmentation: largest shift in each direction.")
    erase: float = Field(0, ge=0, le=1, description="Augmentation: share of the images that lose a rectangle.")
    mixup: float = Field(0, ge=0, description="Augmentation: mix pairs of images, Beta(a, a); 0: never.")
    cutmix: float = Field(0, ge=0, description="Augmentation: paste pieces of others, Beta(a, a); 0: never.")
    min_accuracy: float = Field(
        0, ge=0, le=1, description="Gate: least test accuracy of the exported file; below, nothing is published."
    )


class TextOptions(TrainingOptions):
    """What training on texts takes besides."""

    vocabulary: int = Field(20_000, ge=8, le=1_000_000, description="Most tokens the tokenizer may know.")
    tokens: TokenKind = Field("words", description="What a text is split into.")
    lowercase: bool = Field(True, description="Read capital letters as small ones.")
    max_tokens: int = Field(512, ge=4, le=65_536, description="Longest text; a longer one is refused.")
    truncate: bool = Field(False, description="Cut a longer text instead of refusing it.")
    dim: int = Field(128, ge=2, le=65_536, description="Features a token.")
    layers: int = Field(1, ge=1, le=64, description="Layers of the network.")
    heads: int = Field(4, ge=1, le=64, description="Attention heads.")
    word_dropout: float = Field(0, ge=0, lt=1, description="Augmentation: share of the tokens made unknown.")


class TextClassificationOptions(TextOptions):
    """What sorting texts takes besides."""

    task = "text-classification"

    min_accuracy: float = Field(
        0, ge=0, le=1, description="Gate: least test accuracy of the exported file; below, nothing is published."
    )


class Seq2SeqOptions(TextOptions):
    """What writing a text for a text takes besides."""

    task = "text-to-text"

    target_tokens: TokenKind = Field("bpe", description="What a target is split into.")
    target_vocabulary: int = Field(20_000, ge=8, le=1_000_000, description="Most tokens of the targets.")
    max_steps: int = Field(128, ge=2, le=65_536, description="Most tokens written for one input.")
    beams: int = Field(4, ge=1, le=64, description="Texts that the search keeps, and the service can give.")
    length_power: float = Field(1.0, ge=0, le=2, description="Texts are compared by log-probability/length^power.")
    max_error_rate: float = Field(
        1, ge=0, description="Gate: largest share of wrong texts on the test set, through the exported file."
    )
