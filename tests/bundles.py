"""Small real bundles: TorchScript models whose answers are known without training."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.accuracy import Accuracy
from models.backend import Backend, Tolerance
from models.bundle import Bundle, describe_all
from models.manifest import (
    BuiltWith,
    GoldenExample,
    ImageDecoding,
    Limits,
    Manifest,
    Postprocess,
    Source,
    TensorSpec,
    Tokenization,
    Writing,
)
from models.preprocessing import decode_image
from models.repository import Repository
from models.signing_key import SigningKey
from models.staging import Staging
from models.tokenization import Tokenizer
from tests.images import png
from training.export import Exported, script
from training.optimizing.openvino import convert, serialized
from training.tokenizing import train_tokenizer

LABELS = ("dark", "grey", "light")
MAX_PIXELS = 1_000_000


class Shades(nn.Module):
    """Tells dark from grey from light: each label's score falls with the distance from its brightness."""

    centres_1K: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centres_1K", torch.tensor([[0.0, 0.5, 1.0]]))

    def forward(self, images_NCHW: Tensor) -> Tensor:
        brightness_N1 = images_NCHW.float().mean(dim=(1, 2, 3)).unsqueeze(1) / 255
        return torch.softmax(-20 * (brightness_N1 - self.centres_1K).square(), dim=1)


class Always(nn.Module):
    """Says the same label whatever it is shown; a second version that can be told from the first."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def forward(self, images_NCHW: Tensor) -> Tensor:
        scores_NK = torch.zeros(images_NCHW.shape[0], 3, device=images_NCHW.device)
        scores_NK[:, self.index] = 1.0
        return scores_NK


def decoding(**changes: Any) -> ImageDecoding:
    return ImageDecoding.model_validate({"color": "L", "size": (8, 8), "max_pixels": MAX_PIXELS} | changes)


def publish(
    repository: Repository,
    name: str,
    module: nn.Module | None = None,
    labels: Sequence[str] = LABELS,
    **changes: Any,
) -> Bundle:
    """Publish the next version of a model; `changes` replace fields of its manifest."""
    with repository.staging(name) as staging:
        stage(staging, name, module or Shades(), labels, **changes)
        return repository.publish(name, staging)


def publish_signed(
    repository: Repository, name: str, key: SigningKey, module: nn.Module | None = None, *, current: bool = True
) -> Bundle:
    """Publish the next version of a model, signed."""
    with repository.staging(name) as staging:
        stage(staging, name, module or Shades())
        staging.write_manifest(Manifest.parse((staging.directory / "manifest.json").read_bytes()), key)
        return repository.publish(name, staging, current=current)


def stage(staging: Staging, name: str, module: nn.Module, labels: Sequence[str] = LABELS, **changes: Any) -> None:
    content = script(module)
    (staging.directory / "model.ts.pt").write_bytes(content)
    decode = changes.get("decode", decoding())
    golden = write_golden(staging.directory, Exported(content), decode)
    staging.write_manifest(manifest(staging, name, labels, **{"golden": golden} | changes))


def write_golden(directory: Path, exported: Exported, decode: ImageDecoding) -> tuple[GoldenExample, ...]:
    (directory / "golden").mkdir()
    content = png(200, size=(8, 8))
    (directory / "golden/0.png").write_bytes(content)
    scores_K = exported.scores(decode_image(content, decode).unsqueeze(0))[0]
    return (GoldenExample(file="golden/0.png", scores=tuple(scores_K.tolist())),)


def manifest(
    staging: Staging, name: str, labels: Sequence[str], golden: tuple[GoldenExample, ...], **changes: Any
) -> Manifest:
    decode: ImageDecoding = changes.get("decode", decoding())
    fields: dict[str, Any] = {
        "name": name,
        "version": staging.version,
        "created_at": datetime.now(UTC),
        "task": "image-classification",
        "source": Source(git=None, config={}, data_sha256="0" * 64),
        "built_with": BuiltWith(torch="2", torchvision="0", python="3"),
        "files": describe_all(staging.directory),
        "inputs": (TensorSpec(name="images", dtype="uint8", shape=("N", *decode.shape_CHW)),),
        "outputs": (TensorSpec(name="scores", dtype="float32", shape=("N", len(labels))),),
        "decode": decode,
        "labels": tuple(labels),
        "postprocess": Postprocess(temperature=1.0),
        "limits": Limits(max_batch_size=8),
        "metrics": {"test_accuracy": 1.0},
        "backends": (
            Backend(
                id="torchscript-fp32",
                format="torchscript",
                file="model.ts.pt",
                devices=("cpu", "cuda"),
                precision="fp32",
                tolerance=Tolerance(atol=1e-4),
            ),
        ),
        "golden": golden,
    }
    return Manifest(**fields | changes)


MOODS = ("bad", "good")
MAX_TOKENS = 8
GOLDEN_TEXT = "good film"


class Mood(nn.Module):
    """Tells bad from good by the share of the two words among a text's tokens, its beginning and end included."""

    def __init__(self, bad: int, good: int) -> None:
        super().__init__()
        self.bad = bad
        self.good = good

    def forward(self, tokens_NL: Tensor) -> Tensor:
        counts_NK = torch.stack([(tokens_NL == self.bad).sum(1), (tokens_NL == self.good).sum(1)], dim=1)
        return torch.softmax(8.0 * counts_NK / (tokens_NL != 0).sum(1, keepdim=True), dim=1)


class Echo(nn.Module):
    """Writes what it reads, and as the second best its first word alone; the longer, the less sure."""

    def forward(self, tokens_NL: Tensor) -> tuple[Tensor, Tensor]:
        whole_NT = tokens_NL[:, 1:]
        first_NT = torch.nn.functional.pad(whole_NT[:, :1], [0, whole_NT.shape[1] - 1])
        length_N1 = (tokens_NL != 0).sum(1, keepdim=True)
        scores_NB = torch.cat([2.0 / length_N1, 1.0 / length_N1], dim=1)
        return torch.stack([whole_NT, first_NT], dim=1), scores_NB


def tokenizer_json() -> bytes:
    """The rules of a tokenizer that knows five words."""
    return train_tokenizer(["a bad film", "a good film", "fine"], "words", 20, lowercase=True)


def mood() -> Mood:
    """The classifier for the words of `tokenizer_json`."""
    bad, good = Tokenizer(tokenizer_json()).encode("bad good").tolist()[1:-1]
    return Mood(bad, good)


def publish_texts(
    repository: Repository,
    name: str,
    module: nn.Module | None = None,
    labels: Sequence[str] = MOODS,
    rules: bytes | None = None,
    **changes: Any,
) -> Bundle:
    """Publish the next version of a model that sorts texts; `changes` replace fields of its manifest."""
    files = {"tokenizer.json": rules or tokenizer_json()}
    fields = {
        "task": "text-classification",
        "outputs": (TensorSpec(name="scores", dtype="float32", shape=("N", len(labels))),),
        "labels": tuple(labels),
    }
    return _publish_text_model(repository, name, module or mood(), files, fields | changes)


def publish_writer(
    repository: Repository,
    name: str,
    module: nn.Module | None = None,
    rules: bytes | None = None,
    target_rules: bytes | None = None,
    **changes: Any,
) -> Bundle:
    """Publish the next version of a model that writes texts; `changes` replace fields of its manifest."""
    files = {
        "tokenizer.json": rules or tokenizer_json(),
        "target_tokenizer.json": target_rules or tokenizer_json(),
    }
    fields = {
        "task": "text-to-text",
        "outputs": (
            TensorSpec(name="written", dtype="int64", shape=("N", "B", "T")),
            TensorSpec(name="scores", dtype="float32", shape=("N", "B")),
        ),
        "write": Writing(beams=2, max_tokens=MAX_TOKENS),
    }
    return _publish_text_model(repository, name, module or Echo(), files, fields | changes)


def _publish_text_model(
    repository: Repository, name: str, module: nn.Module, rules: dict[str, bytes], fields: dict[str, Any]
) -> Bundle:
    content = script(module)
    with repository.staging(name) as staging:
        files = rules | {"model.ts.pt": content, "0.txt": GOLDEN_TEXT.encode()}
        for path, file in files.items():
            (staging.directory / path).write_bytes(file)
        taken = {
            "inputs": (TensorSpec(name="tokens", dtype="int64", shape=("N", "L")),),
            "decode": None,
            "tokenize": Tokenization(max_tokens=MAX_TOKENS),
        }
        golden = fields.get("golden") or (_text_golden(Exported(content), rules),)
        # What any manifest says, whatever the model takes and gives.
        shared = dict(manifest(staging, name, LABELS, (GoldenExample(file="0.txt", scores=(1.0, 0.0, 0.0)),)))
        staging.write_manifest(Manifest(**shared | {"labels": ()} | taken | fields | {"golden": golden}))
        return repository.publish(name, staging)


def _text_golden(exported: Exported, rules: dict[str, bytes]) -> GoldenExample:
    outputs = exported.run(Tokenizer(rules["tokenizer.json"]).encode(GOLDEN_TEXT)[None])
    if isinstance(outputs, Tensor):
        return GoldenExample(file="0.txt", scores=tuple(outputs[0].tolist()))
    tokens_NBT, scores_NB = outputs
    text = Tokenizer(rules["target_tokenizer.json"]).decode(tokens_NBT[0, 0].tolist())
    return GoldenExample(file="0.txt", scores=(scores_NB[0, 0].item(),), texts=(text,))


def openvino_files(content: bytes, spec: TensorSpec) -> dict[str, bytes]:
    """The two files of a TorchScript file's OpenVINO form."""
    graph, weights = serialized(convert(content, spec))
    return {"model.openvino.xml": graph, "model.openvino.bin": weights}


def openvino_backend(**changes: Any) -> Backend:
    """What a manifest says of that form; `changes` replace fields of it."""
    fields: dict[str, Any] = {
        "id": "openvino-fp32",
        "format": "openvino",
        "file": "model.openvino.xml",
        "weights": "model.openvino.bin",
        "devices": ("cpu",),
        "precision": "fp32",
        "tolerance": Tolerance(atol=1e-4),
        "accuracy": Accuracy(examples=50, top1_agreement=1.0),
    }
    return Backend(**fields | changes)


def publish_with_openvino(
    repository: Repository, name: str, *backends: Backend, files: dict[str, bytes] | None = None
) -> Bundle:
    """Publish `Shades` with its OpenVINO form before the TorchScript one; `files` replace that form's own."""
    module = Shades()
    with repository.staging(name) as staging:
        spec = TensorSpec(name="images", dtype="uint8", shape=("N", *decoding().shape_CHW))
        for path, content in (openvino_files(script(module), spec) | (files or {})).items():
            (staging.directory / path).write_bytes(content)
        stage(staging, name, module)
        plain = Manifest.parse((staging.directory / "manifest.json").read_bytes())
        forms = (*(backends or (openvino_backend(),)), plain.torchscript)
        staging.write_manifest(plain.model_copy(update={"backends": forms}))
        return repository.publish(name, staging)
