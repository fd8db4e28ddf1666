"""Models that others trained -> verified bundles. Axes: N images, C, H, W, K labels."""

import hashlib
import math
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.bundle import Bundle
from models.manifest import ImageDecoding, TensorSpec
from models.operators import NO_OTHERS
from models.preparation import ImagePreparation
from models.repository import Repository
from models.signing_key import signing_key_of
from training import imagenet
from training.architectures import zoo
from training.architectures.prepared import Prepared
from training.classifier import Classifier
from training.commands import ImagenetOptions, ImportOptions, TorchvisionOptions
from training.config import Options
from training.errors import DataInvalid, DataUnavailable, GateFailed, OptionInvalid
from training.export import Exported, is_script, load_script, script
from training.gate import check_parity
from training.progress import Progress
from training.publish import Candidate, publish
from training.randomness import derived_seed
from training.report import Report
from training.tasks.images import encode_png

GOLDEN_EXAMPLES = 4
COMPARED = 16
ZIP_MAGIC = b"PK\x03\x04"


@dataclass(frozen=True)
class Foreign:
    """A model that was trained elsewhere.

    Attributes:
        prepared: The network and its preprocessing.
        labels: The K names, in the order of its outputs.
        sha256: Of the file that it came in.
        allowed: Operators that it may use besides `models.operators.OPERATORS`.
    """

    prepared: Prepared
    labels: tuple[str, ...]
    sha256: str
    allowed: frozenset[str] = NO_OTHERS


class Logarithm(nn.Module):
    """Turns a network's probabilities back into logits: what follows in the graph is a softmax."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return logits of shape NK."""
        logits_NK: Tensor = self.network(images_NCHW).clamp(min=1e-38).log()
        return logits_NK


def import_imagenet(options: ImagenetOptions, progress: Progress) -> Bundle:
    """Publish EfficientNet-Lite0 as its authors trained it on ImageNet.

    Raises:
        TrainingError, ModelsError, OSError: It cannot be fetched or published; with the reason.
    """
    prepared = imagenet.efficientnet_lite0(options.max_pixels)
    return _publish(Foreign(prepared, imagenet.labels(), imagenet.SHA256), options, progress)


def import_torchvision(options: TorchvisionOptions, progress: Progress) -> Bundle:
    """Publish one of torchvision's classifiers, with weights of its own, of a file, or none.

    Raises:
        TrainingError, ModelsError, OSError: It cannot be built or published; with the reason.
    """
    labels = read_labels(options.labels) if options.labels else imagenet.labels()
    weights, digest = _weights(options)
    prepared = zoo.build(options.arch, len(labels), weights, options.max_pixels)
    return _publish(Foreign(prepared, labels, digest), options, progress)


def import_file(options: ImportOptions, progress: Progress) -> Bundle:
    """Publish a TorchScript file, or a state dict of one of torchvision's classifiers.

    Raises:
        TrainingError, ModelsError, OSError: It cannot be read, is none that can be served, or cannot be published.
    """
    labels = read_labels(options.labels)
    digest = _sha256(options.file)
    prepared = _from_script(options) if _holds_script(options.file) else _from_weights(options, len(labels))
    if options.outputs == "probabilities":
        prepared = replace(prepared, network=Logarithm(prepared.network))
    return _publish(Foreign(prepared, labels, digest, options.allowed), options, progress)


def _from_script(options: ImportOptions) -> Prepared:
    """Return what a TorchScript file holds, with the preprocessing that the options say."""
    _check_crop(options.shorter_side, options.size)
    decoding = ImageDecoding(
        color=options.color,
        size=(options.size, options.size),
        fit="crop" if options.shorter_side else "stretch",
        shorter_side=options.shorter_side,
        interpolation=options.interpolation,
        max_pixels=options.max_pixels,
    )
    network = load_script(options.file, options.allowed)
    _check_signature(network, options.file)
    mean_C = _per_channel("mean", options.mean, decoding.channels)
    std_C = _per_channel("std", options.std, decoding.channels)
    return Prepared(network, mean_C, std_C, decoding)


def _from_weights(options: ImportOptions, num_labels: int) -> Prepared:
    """Return an architecture with its weights; of its preprocessing, only what was given differs."""
    if options.arch is None:
        raise OptionInvalid(f"--arch: {options.file} is no TorchScript file; say whose state dict it is")
    given = options.model_fields_set
    size = options.size if "size" in given else None
    prepared = zoo.build(options.arch, num_labels, options.file, options.max_pixels, size)
    decoding, channels = prepared.decoding, prepared.decoding.channels
    if "color" in given and options.color != decoding.color:
        raise OptionInvalid(f"--color {options.color}: {options.arch} takes images in colour")
    if "shorter_side" in given:
        _check_crop(options.shorter_side, decoding.size[0])
    named = given & {"shorter_side", "interpolation"}
    mean_C = _per_channel("mean", options.mean, channels) if "mean" in given else prepared.mean_C
    std_C = _per_channel("std", options.std, channels) if "std" in given else prepared.std_C
    decoding = decoding.model_copy(update={field: getattr(options, field) for field in named})
    return Prepared(prepared.network, mean_C, std_C, decoding)


def read_labels(file: Path) -> tuple[str, ...]:
    """Read a label a line, in the order of the model's outputs.

    Raises:
        DataUnavailable: The file cannot be read.
        DataInvalid: It has fewer than two labels, or one twice.
    """
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataUnavailable(f"the labels {file} cannot be read: {error}") from error
    labels = [line.strip() for line in lines if line.strip()]
    if len(labels) < 2:
        raise DataInvalid(f"{file} has {len(labels)} labels; at least two are wanted, one a line")
    if twice := sorted(label for label, count in Counter(labels).items() if count > 1):
        raise DataInvalid(f"{file} has {twice[0]!r} twice; make the labels different")
    return tuple(labels)


def _publish(foreign: Foreign, options: Options, progress: Progress) -> Bundle:
    repository = Repository(options.models_dir)
    repository.check_writable(options.name)
    repository.check_task(options.name, "image-classification")
    if options.candidate:
        repository.check_beside(options.name)
    key = signing_key_of(options.signing_key)
    decoding = foreign.prepared.decoding
    model = Classifier(foreign.prepared.network, foreign.prepared.mean_C, foreign.prepared.std_C).cpu().eval()
    goldens = {f"{index}.png": encode_png(picture(decoding, index)) for index in range(GOLDEN_EXAMPLES)}
    preparation = ImagePreparation(decoding)
    batch = torch.stack([picture(decoding, index) for index in range(COMPARED)])
    # A model that was only ever asked for many may take the axis of one for none.
    for images in (batch, batch[:1]):
        _check_outputs(model, images, len(foreign.labels))
    content = script(model)
    parity = check_parity(model, Exported(content, foreign.allowed), batch)
    progress.say(f"{options.name}: {len(foreign.labels)} labels, parity {parity:.1g}")
    candidate = Candidate(
        content=content,
        preparation=preparation,
        golden_inputs=goldens,
        description=_description(decoding, foreign.labels),
        files={},
        metrics={},
        calibration=None,
        config=options.record(),
        data_sha256=foreign.sha256,
        report=Report(
            title=f"{options.name}: imported",
            table="Imported, not trained here: nothing was measured on a test set.",
            figures={"parity": parity, "sha256": foreign.sha256},
            pictures={},
        ),
        allowed=foreign.allowed,
    )
    return publish(candidate, options, key)


def picture(decoding: ImageDecoding, index: int) -> Tensor:
    """Return a made-up picture, uint8 of shape CHW: waves of colour and some noise, the same on every machine."""
    C, H, W = decoding.shape_CHW
    generator = torch.Generator().manual_seed(derived_seed("picture", index))
    row_H, column_W = torch.arange(H) / H, torch.arange(W) / W
    turns_C2 = torch.rand(C, 2, generator=generator) * 6
    phase_CHW = turns_C2[:, 0, None, None] * row_H[:, None] + turns_C2[:, 1, None, None] * column_W
    noise_CHW = torch.rand(C, H, W, generator=generator)
    wave_CHW = 0.5 + 0.4 * torch.sin(2 * math.pi * phase_CHW) + 0.1 * (noise_CHW - 0.5)
    return (wave_CHW.clamp(0, 1) * 255).round().to(torch.uint8)


def _check_outputs(model: Classifier, batch_NCHW: Tensor, count: int) -> None:
    N = len(batch_NCHW)
    images = "1 image" if N == 1 else f"{N} images"
    try:
        with torch.inference_mode():
            scores_NK = model(batch_NCHW)
    except Exception as error:  # Foreign code may raise anything.
        last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise GateFailed(
            f"import: the model fails on {images} of {tuple(batch_NCHW.shape[1:])}: {last}"
        ) from error
    if scores_NK.ndim != 2 or len(scores_NK) != N:
        raise GateFailed(f"import: the model gives {tuple(scores_NK.shape)} for {images}, not N x labels")
    if scores_NK.shape[1] != count:
        raise GateFailed(f"import: the model gives {scores_NK.shape[1]} scores, and there are {count} labels")
    if not scores_NK.isfinite().all():
        raise GateFailed("import: the model gives scores that are no numbers")


def _check_signature(module: nn.Module, file: Path) -> None:
    forward = getattr(module, "forward", None)
    if forward is None:
        raise GateFailed(f"import: {file.name} has no method forward, so that it cannot be asked")
    schema = forward.schema  # A TorchScript method has one.
    inputs = [argument for argument in schema.arguments[1:] if not argument.has_default_value()]
    if [str(argument.type) for argument in inputs] != ["Tensor"]:
        taken = ", ".join(f"{argument.name}: {argument.type}" for argument in inputs) or "nothing"
        raise GateFailed(f"import: {file.name} takes ({taken}); a model of images takes one tensor")
    if [str(returned.type) for returned in schema.returns] != ["Tensor"]:
        given = ", ".join(str(returned.type) for returned in schema.returns)
        raise GateFailed(f"import: {file.name} gives {given}; a model of images gives one tensor of scores")


def _check_crop(shorter_side: int | None, size: int) -> None:
    if shorter_side is not None and shorter_side < size:
        raise OptionInvalid(f"--shorter-side {shorter_side}: a square of --size {size} cannot be cut out of it")


def _holds_script(file: Path) -> bool:
    """Whether a file holds TorchScript.

    Raises:
        DataInvalid: It is an archive, as TorchScript and state dicts are, that is cut short or damaged.
    """
    with file.open("rb") as stream:
        begins_as_archive = stream.read(len(ZIP_MAGIC)) == ZIP_MAGIC
    try:
        if begins_as_archive and not zipfile.is_zipfile(file):
            raise zipfile.BadZipFile("its end is missing")
        return is_script(file)
    except zipfile.BadZipFile as error:
        raise DataInvalid(f"{file} is cut short or damaged: {error}") from error


def _per_channel(name: str, values: tuple[float, ...], channels: int) -> Tensor:
    if len(values) not in (1, channels):
        raise OptionInvalid(f"--{name}: {len(values)} values for {channels} channels; give 1 or {channels}")
    return torch.tensor(values * (channels // len(values)))


def _description(decoding: ImageDecoding, labels: tuple[str, ...]) -> Mapping[str, Any]:
    return {
        "task": "image-classification",
        "inputs": (TensorSpec(name="images", dtype="uint8", shape=("N", *decoding.shape_CHW)),),
        "outputs": (TensorSpec(name="scores", dtype="float32", shape=("N", len(labels))),),
        "decode": decoding,
        "labels": labels,
    }


def _weights(options: TorchvisionOptions) -> tuple[zoo.Weights, str]:
    """Return where the weights come from, and a sha256 that stands for them."""
    match options.weights:
        case "DEFAULT" | "none" as named:
            return named, hashlib.sha256(f"{options.arch} {named}".encode()).hexdigest()
        case path:
            return Path(path), _sha256(Path(path))


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataUnavailable(f"{file} cannot be read: {error.strerror}") from error
