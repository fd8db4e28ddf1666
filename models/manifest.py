"""manifest.json: what a bundle says of itself, in schema version 1.

Every other file of the bundle is listed here with its sha256; the manifest's own sha256 stands in the
repository's CURRENT. Unknown fields are refused: a field this code does not know may be one that matters.
"""

import json
from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, ValidationError
from pydantic import model_validator as validator_of_model

from models.errors import ManifestInvalid, PathEscapes, SchemaVersionUnknown

SCHEMA_VERSION: Literal[1] = 1
MANIFEST_NAME = "manifest.json"

ModelName = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?$")]
VersionName = Annotated[str, Field(pattern=r"^\d{8}\.[1-9]\d{0,5}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
UnitInterval = Annotated[float, Field(ge=0, le=1)]


def check_contained(path: str) -> str:
    """Return `path` if it is a plain relative path that stays inside the bundle.

    Raises:
        PathEscapes: It is absolute, holds `..`, a backslash, a NUL, or is not in its shortest form.
    """
    parts = PurePosixPath(path)
    unsafe = parts.is_absolute() or ".." in parts.parts or "\\" in path or "\0" in path
    if unsafe or not parts.parts or str(parts) != path:
        raise PathEscapes(f"the path {path!r} is not a plain path inside the bundle")
    return path


BundlePath = Annotated[str, AfterValidator(check_contained)]


Task = Literal["image-classification", "text-classification", "text-to-text"]


class Part(BaseModel):
    """A part of the manifest: frozen, and closed to unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FileEntry(Part):
    """What a listed file must be, to the byte; `size` counts bytes."""

    sha256: Sha256
    size: Annotated[int, Field(ge=0)]


class Source(Part):
    """What the model was made from."""

    git: str | None
    config: dict[str, JsonValue]
    data_sha256: Sha256


class BuiltWith(Part):
    """The versions that trained and exported the model."""

    torch: str
    torchvision: str
    python: str


class TensorSpec(Part):
    """One input or output of the graph; a letter in `shape` is a dimension that varies."""

    name: str
    dtype: Literal["uint8", "int64", "float32"]
    shape: tuple[int | str, ...]


class ImageDecoding(Part):
    """How an image file becomes the uint8 tensor that the graph takes: everything that is not in the graph.

    `crop` scales the shorter side to `shorter_side` and cuts the centre; `stretch` ignores the aspect.
    """

    color: Literal["L", "RGB"]
    size: tuple[Annotated[int, Field(ge=1, le=4096)], Annotated[int, Field(ge=1, le=4096)]]
    fit: Literal["stretch", "crop"] = "stretch"
    shorter_side: Annotated[int, Field(ge=1, le=8192)] | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    exif: bool = True
    max_pixels: Annotated[int, Field(ge=1)]

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""
        return 1 if self.color == "L" else 3

    @property
    def stretches(self) -> bool:
        """Whether the whole image is scaled to the size, whatever its aspect."""
        return self.fit == "stretch"

    @property
    def shape_CHW(self) -> tuple[int, int, int]:
        """The shape of a decoded example."""
        return (self.channels, *self.size)

    @validator_of_model(mode="after")
    def _crop_has_room(self) -> Self:
        if (self.fit == "crop") != (self.shorter_side is not None):
            raise ValueError("shorter_side goes with fit=crop, and only with it")
        if self.shorter_side is not None and self.shorter_side < max(self.size):
            raise ValueError(f"shorter_side {self.shorter_side} cannot hold a crop of {self.size}")
        return self


class Tokenization(Part):
    """How a text becomes the token ids that the graph takes.

    A text of more than `max_tokens` is refused, or with `truncate` cut.
    """

    file: BundlePath = "tokenizer.json"
    max_tokens: Annotated[int, Field(ge=1, le=65_536)]
    truncate: bool = False


class Writing(Part):
    """How the token ids that the graph writes become texts, and how many texts it writes for one input."""

    file: BundlePath = "target_tokenizer.json"
    beams: Annotated[int, Field(ge=1, le=64)]
    max_tokens: Annotated[int, Field(ge=1, le=65_536)]


class Postprocess(Part):
    """Informative: the temperature is a buffer of the exported graph, which already applies it."""

    temperature: Annotated[float, Field(gt=0)] = 1.0


class Limits(Part):
    """What the model may be asked for at once."""

    max_batch_size: Annotated[int, Field(ge=1, le=4096)]


class WarmUp(Part):
    """How often the loader runs every batch bucket before the model goes live."""

    repeats: Annotated[int, Field(ge=1, le=100)] = 3


class Calibration(Part):
    """On the test set, of the model's own scores and of those it gives: calibration error, log-likelihood."""

    bins: Annotated[int, Field(ge=1)]
    ece_before: UnitInterval
    ece_after: UnitInterval
    nll_before: Annotated[float, Field(ge=0)]
    nll_after: Annotated[float, Field(ge=0)]


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


class Accuracy(Part):
    """What a backend is worth beside the TorchScript one, measured on held-out examples when it was published.

    Attributes:
        examples: How many.
        top1_agreement: On how many of them its best label is TorchScript's.
        metric: Its accuracy, where the labels are known.
        metric_loss: How much less that is than TorchScript's; negative if it is more.
        data_sha256: Of the examples, as the model takes them.
    """

    examples: Annotated[int, Field(ge=1)]
    top1_agreement: UnitInterval
    metric: UnitInterval | None = None
    metric_loss: Annotated[float, Field(ge=-1, le=1)] | None = None
    data_sha256: Sha256 | None = None

    @validator_of_model(mode="after")
    def _loss_goes_with_metric(self) -> Self:
        if (self.metric is None) != (self.metric_loss is None):
            raise ValueError("metric_loss goes with metric: both or neither")
        return self


class AccuracyLimits(Part):
    """How much less a backend may be worth than the TorchScript one, to be in the bundle at all."""

    max_metric_loss: UnitInterval = 0.005
    min_top1_agreement: UnitInterval = 0.98

    def refusal(self, accuracy: Accuracy) -> str | None:
        """Say why a backend may not be in the bundle, if it may not."""
        agreement, loss = accuracy.top1_agreement, accuracy.metric_loss
        if agreement < self.min_top1_agreement:
            wanted = f"{self.min_top1_agreement:.2%} is wanted"
            return f"top-1 agrees on {agreement:.2%} of {accuracy.examples} examples; {wanted}"
        if loss is not None and loss > self.max_metric_loss:
            return f"accuracy falls by {100 * loss:.2f} points; {100 * self.max_metric_loss:.2f} are allowed"
        return None


class Backend(Part):
    """One runnable form of the model.

    Attributes:
        weights: A second file, of formats that have one.
        accuracy: Of every form but the TorchScript one, which is what the bundle's metrics were measured on.
        items_per_s: On one thread of the machine that published it.
        built_with: Of the libraries that made it, name -> version.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    format: Literal["torchscript", "openvino"]
    file: BundlePath
    weights: BundlePath | None = None
    devices: tuple[Literal["cpu", "cuda"], ...]
    precision: Literal["fp32", "bf16", "int8"]
    requires: Requires = Requires()
    tolerance: Tolerance
    accuracy: Accuracy | None = None
    items_per_s: Annotated[float, Field(gt=0)] | None = None
    built_with: dict[str, str] = {}

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of all that it is made of."""
        return (self.file,) if self.weights is None else (self.file, self.weights)

    @property
    def is_reference(self) -> bool:
        """Whether it is the form that all others are measured by."""
        return (self.format, self.precision) == ("torchscript", "fp32")

    @validator_of_model(mode="after")
    def _has_its_parts(self) -> Self:
        if (self.format == "openvino") != (self.weights is not None):
            raise ValueError("weights: a second file goes with openvino, and only with it")
        if self.weights is not None and (self.weights == self.file or self.devices != ("cpu",)):
            raise ValueError("openvino has two files, and runs on cpu only")
        if (self.accuracy is None) != self.is_reference:
            raise ValueError("accuracy: is wanted of every backend but torchscript in fp32")
        return self


class GoldenExample(Part):
    """A raw input and what the model must give for it: a score for each label, or the best text and its score."""

    file: BundlePath
    scores: tuple[UnitInterval, ...]
    texts: tuple[str, ...] = ()


class Manifest(Part):
    """Everything a bundle says of itself; of its backends the preferred ones come first."""

    schema_version: Literal[1] = SCHEMA_VERSION
    name: ModelName
    version: VersionName
    created_at: AwareDatetime
    task: Task
    source: Source
    built_with: BuiltWith
    files: dict[BundlePath, FileEntry]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    decode: ImageDecoding | None = None
    tokenize: Tokenization | None = None
    write: Writing | None = None
    labels: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    postprocess: Postprocess = Postprocess()
    limits: Limits
    warmup: WarmUp = WarmUp()
    metrics: dict[str, float]
    calibration: Calibration | None = None
    accuracy_limits: AccuracyLimits = AccuracyLimits()
    backends: Annotated[tuple[Backend, ...], Field(min_length=1)]
    golden: Annotated[tuple[GoldenExample, ...], Field(min_length=1)]

    @property
    def torchscript(self) -> Backend:
        """The form that every bundle has, and that the others are measured by."""
        return next(backend for backend in self.backends if backend.is_reference)

    @validator_of_model(mode="after")
    def _agrees_with_itself(self) -> Self:
        self._check_parts()
        self._check_shapes()
        self._check_backends()
        named = {part.file for part in (*self.golden, self.tokenize, self.write) if part is not None}
        named |= {path for backend in self.backends for path in backend.files}
        if unlisted := sorted(named - set(self.files)):
            raise ValueError(f"files: {unlisted[0]} is used but not listed")
        if MANIFEST_NAME in self.files:
            raise ValueError(f"files: {MANIFEST_NAME} cannot list itself")
        return self

    def _check_parts(self) -> None:
        takes_images, writes = self.task == "image-classification", self.task == "text-to-text"
        for field, wanted in (("decode", takes_images), ("tokenize", not takes_images), ("write", writes)):
            if (getattr(self, field) is not None) != wanted:
                raise ValueError(f"{field}: {'is wanted' if wanted else 'is not taken'} for {self.task}")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels: two are the same")
        if writes != (not self.labels) or len(self.labels) == 1:
            raise ValueError(
                f"labels: {'none are taken' if writes else 'at least two are wanted'} for {self.task}"
            )

    def _check_shapes(self) -> None:
        example = ("L",) if self.decode is None else self.decode.shape_CHW
        inputs = [("int64" if self.decode is None else "uint8", ("N", *example))]
        if [(spec.dtype, spec.shape) for spec in self.inputs] != inputs:
            raise ValueError(f"inputs: want {inputs}, as an example is")
        labelled = [("float32", ("N", len(self.labels)))]
        outputs = labelled if self.write is None else [("int64", ("N", "B", "T")), ("float32", ("N", "B"))]
        if [(spec.dtype, spec.shape) for spec in self.outputs] != outputs:
            raise ValueError(f"outputs: want {outputs}")
        for golden in self.golden:
            texts, scores = (0, len(self.labels)) if self.write is None else (1, 1)
            if (len(golden.texts), len(golden.scores)) != (texts, scores):
                raise ValueError(f"golden: {golden.file} wants {scores} scores and {texts} texts")

    def _check_backends(self) -> None:
        if len({backend.id for backend in self.backends}) != len(self.backends):
            raise ValueError("backends: two have the same id")
        if [backend.is_reference for backend in self.backends].count(True) != 1:
            raise ValueError("backends: one in torchscript and fp32 is wanted, whatever others there are")
        if self.write is not None and len(self.backends) > 1:
            raise ValueError(f"backends: {self.task} has no other than torchscript")
        for backend in self.backends:
            if backend.accuracy and (refusal := self.accuracy_limits.refusal(backend.accuracy)):
                raise ValueError(f"backends: {backend.id}: {refusal}")

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Read a manifest from the bytes of manifest.json.

        Raises:
            SchemaVersionUnknown: Its schema version is not one this code reads.
            PathEscapes: It lists a path that leaves the bundle.
            ManifestInvalid: It is not JSON, or a field is off; the message names the field.
        """
        fields = _json_object(text)
        version = fields.get("schema_version")
        if version != SCHEMA_VERSION or isinstance(version, bool):
            raise SchemaVersionUnknown(
                f"{MANIFEST_NAME} has schema_version {version!r}; this Lantern reads {SCHEMA_VERSION}"
            )
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(str(step) for step in first["loc"]) or "manifest"
            raise ManifestInvalid(f"{MANIFEST_NAME}: {field}: {first['msg']}") from error

    def to_json(self) -> bytes:
        """Write the manifest as the bytes of manifest.json."""
        return self.model_dump_json(indent=2).encode() + b"\n"


def _json_object(text: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ManifestInvalid(f"{MANIFEST_NAME} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ManifestInvalid(f"{MANIFEST_NAME} is not a JSON object")
    return fields


def version_order(version: str) -> tuple[str, int]:
    """Sort key of a version name: by day, then by number."""
    day, _, number = version.partition(".")
    return day, int(number)


def first_version_after(versions: list[str], now: datetime) -> str:
    """Name the next version: today's date and one more than the largest number it has.

    A clock set back never yields a version that sorts before one already there.
    """
    day = f"{now:%Y%m%d}"
    if versions:
        newest_day, newest_number = version_order(max(versions, key=version_order))
        if newest_day >= day:
            return f"{newest_day}.{newest_number + 1}"
    return f"{day}.1"
