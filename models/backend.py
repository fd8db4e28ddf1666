"""A backend, as the manifest tells of it: one runnable form of the model, measured."""

from typing import Annotated, Literal, Self

from pydantic import Field
from pydantic import model_validator as validator_of_model

from models.accuracy import Accuracy
from models.bundle_path import BundlePath
from models.part import Part, UnitInterval


class Requires(Part):
    """What a machine must have for a backend; None means anything will do.

    `torch` begins its version; `isa` names instructions of which one set is enough, with | between them;
    `cuda_cc` is the least compute capability.
    """

    torch: str | None = None
    arch: str | None = None
    isa: str | None = None
    cuda_cc: str | None = None


class Tolerance(Part):
    """How far a backend's scores may lie from the golden ones."""

    atol: Annotated[float, Field(gt=0, lt=1)]
    min_top1_agreement: UnitInterval = 1.0


class Form(Part):
    """One runnable form of a model: its files, and what it takes to run them.

    Attributes:
        weights: A second file, of formats that have one.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    format: Literal["torchscript", "openvino"]
    file: BundlePath
    weights: BundlePath | None = None
    devices: tuple[Literal["cpu", "cuda"], ...]
    precision: Literal["fp32", "bf16", "int8"]
    requires: Requires = Requires()

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of all that it is made of."""
        return (self.file,) if self.weights is None else (self.file, self.weights)

    @property
    def is_reference(self) -> bool:
        """Whether it is the form that all others are measured by."""
        return (self.format, self.precision) == ("torchscript", "fp32")

    @validator_of_model(mode="after")
    def _has_its_files(self) -> Self:
        if (self.format == "openvino") != (self.weights is not None):
            raise ValueError("weights: a second file goes with openvino, and only with it")
        if self.weights is not None and (self.weights == self.file or self.devices != ("cpu",)):
            raise ValueError("openvino has two files, and runs on cpu only")
        return self


class Backend(Form):
    """A form of a bundle's model, and what was measured of it before it was published.

    Attributes:
        accuracy: Of every form but the TorchScript one, which is what the bundle's metrics were measured on.
        items_per_s: On one thread of the machine that published it.
        built_with: Of the libraries that made it, name -> version.
    """

    tolerance: Tolerance
    accuracy: Accuracy | None = None
    items_per_s: Annotated[float, Field(gt=0)] | None = None
    built_with: dict[str, str] = Field(default_factory=dict)

    @validator_of_model(mode="after")
    def _has_its_accuracy(self) -> Self:
        if (self.accuracy is None) != self.is_reference:
            raise ValueError("accuracy: is wanted of every backend but torchscript in fp32")
        return self
