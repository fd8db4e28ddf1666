"""manifest.json: what a bundle says of itself, in schema version 1.

Every other file of the bundle but its signature is listed here with its sha256; the manifest's own sha256 stands
in the repository's CURRENT. Unknown fields are refused: a field this code does not know may be one that matters.
"""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, Field, JsonValue, ValidationError
from pydantic import model_validator as validator_of_model

from models.accuracy import AccuracyLimits
from models.backend import Backend
from models.bundle_path import BundlePath
from models.errors import ManifestInvalid, SchemaVersionUnknown
from models.part import Part, Sha256, UnitInterval
from models.signature import SIGNATURE_NAME
from models.versions import VersionName

SCHEMA_VERSION: Literal[1] = 1
MANIFEST_NAME = "manifest.json"

ModelName = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?$")]
Task = Literal["image-classification", "text-classification", "text-to-text"]


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
    """How often the loader runs a batch size that it measures before the model goes live."""

    repeats: Annotated[int, Field(ge=1, le=100)] = 3


class Calibration(Part):
    """On the test set, of the model's own scores and of those it gives: calibration error, log-likelihood."""

    bins: Annotated[int, Field(ge=1)]
    ece_before: UnitInterval
    ece_after: UnitInterval
    nll_before: Annotated[float, Field(ge=0)]
    nll_after: Annotated[float, Field(ge=0)]


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
        if itself := sorted({MANIFEST_NAME, SIGNATURE_NAME} & set(self.files)):
            raise ValueError(f"files: {itself[0]} is there, and a manifest cannot list itself nor its signature")
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
