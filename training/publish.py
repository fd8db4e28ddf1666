"""A gated, trained classifier -> a published bundle."""

import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from pathlib import Path

from models.bundle import Bundle, describe_all
from models.manifest import (
    Backend,
    BuiltWith,
    Calibration,
    GoldenExample,
    ImageDecoding,
    Limits,
    Manifest,
    Postprocess,
    Source,
    TensorSpec,
    Tolerance,
)
from models.repository import Repository, Staging
from training.classifier import Classifier
from training.config import TrainingConfig
from training.datasets.images import ImageDataset
from training.evaluate import CALIBRATION_BINS
from training.export import Exported
from training.fresh_check import check_in_fresh_process
from training.gate import SCORE_ATOL, Judgement, encode_png, scores_as_served
from training.report import write_pictures, write_report
from training.train import Trained, count_parameters

MODEL_FILE = "model.ts.pt"
GOLDEN_EXAMPLES = 4


@dataclass(frozen=True)
class Candidate:
    """What passed the gate, and all that its bundle will say of it.

    Attributes:
        content: The exported file.
        classifier: What was exported.
        trained: How it was trained.
        judgement: What the gate measured.
        dataset: Gives the golden examples and the sha256 that the manifest names.
        decoding: How serving is to decode images.
        device: What it was trained on.
    """

    content: bytes
    classifier: Classifier
    trained: Trained
    judgement: Judgement
    dataset: ImageDataset
    decoding: ImageDecoding
    device: str


def publish(candidate: Candidate, config: TrainingConfig) -> Bundle:
    """Stage the bundle, check it in a fresh process, and make it current.

    Args:
        candidate: What to publish.
        config: Names the repository and the model; recorded in the manifest.

    Raises:
        GateFailed: The fresh process did not get the golden scores.
        NotWritable, OSError: The repository cannot be written; the old version stays current.
    """
    repository = Repository(config.models_dir)
    with repository.staging(config.name) as staging:
        (staging.directory / MODEL_FILE).write_bytes(candidate.content)
        golden = _write_golden(staging.directory, candidate)
        _write_report(staging.directory, candidate)
        staging.write_manifest(_manifest(staging, candidate, config, golden))
        check_in_fresh_process(staging.directory)
        return repository.publish(config.name, staging)


def _write_golden(directory: Path, candidate: Candidate) -> tuple[GoldenExample, ...]:
    (directory / "golden").mkdir()
    images_NCHW = candidate.dataset.test.images_NCHW[:GOLDEN_EXAMPLES]
    scores_NK = scores_as_served(Exported(candidate.content), images_NCHW, candidate.decoding)
    examples = []
    for index, (image_CHW, scores_K) in enumerate(zip(images_NCHW, scores_NK, strict=True)):
        file = f"golden/{index}.png"
        (directory / file).write_bytes(encode_png(image_CHW))
        examples.append(GoldenExample(file=file, scores=tuple(scores_K.tolist())))
    return tuple(examples)


def _write_report(directory: Path, candidate: Candidate) -> None:
    dataset, trained, judgement = candidate.dataset, candidate.trained, candidate.judgement
    figures = {
        "test": judgement.calibrated.summary(),
        "test_before_calibration": judgement.uncalibrated.summary(),
        "temperature": candidate.classifier.temperature.item(),
        "parity": judgement.parity,
        "parameters": count_parameters(candidate.classifier.network),
        "training": trained.summary(),
        "images": {
            "train": len(dataset.train),
            "validation": len(dataset.validation),
            "test": len(dataset.test),
        },
    }
    write_report(directory, figures)
    labels_N = dataset.test.labels_N
    calibration = {
        "before": (judgement.uncalibrated_NK, labels_N),
        "after": (judgement.calibrated_NK, labels_N),
    }
    write_pictures(directory, judgement.calibrated, trained.history, trained.best_epoch, calibration)


def _manifest(
    staging: Staging, candidate: Candidate, config: TrainingConfig, golden: tuple[GoldenExample, ...]
) -> Manifest:
    before, after = candidate.judgement.uncalibrated, candidate.judgement.calibrated
    dataset, decoding = candidate.dataset, candidate.decoding
    # What `auto` came to: without it the seed alone would not make the run again.
    resolved = {"precision": candidate.trained.precision, "device": candidate.device}
    scores = TensorSpec(name="scores", dtype="float32", shape=("N", len(dataset.labels)))
    return Manifest(
        name=config.name,
        version=staging.version,
        created_at=datetime.now(UTC),
        task="image-classification",
        source=Source(
            git=_git_commit(),
            config=config.model_dump(mode="json", exclude={"models_dir", "data"}) | resolved,
            data_sha256=dataset.sha256,
        ),
        built_with=BuiltWith(
            torch=installed_version("torch"),
            torchvision=installed_version("torchvision"),
            python=platform.python_version(),
        ),
        files=describe_all(staging.directory),
        inputs=(TensorSpec(name="images", dtype="uint8", shape=("N", *decoding.shape_CHW)),),
        outputs=(scores,),
        decode=decoding,
        labels=dataset.labels,
        postprocess=Postprocess(temperature=candidate.classifier.temperature.item()),
        limits=Limits(max_batch_size=config.max_batch_size),
        metrics={
            "test_accuracy": after.accuracy,
            "test_macro_f1": after.macro_f1,
            "test_nll": after.nll,
            "test_ece": after.ece,
        },
        calibration=Calibration(
            bins=CALIBRATION_BINS,
            ece_before=before.ece,
            ece_after=after.ece,
            nll_before=before.nll,
            nll_after=after.nll,
        ),
        backends=(
            Backend(
                id="torchscript-fp32",
                format="torchscript",
                file=MODEL_FILE,
                devices=("cpu", "cuda"),
                precision="fp32",
                tolerance=Tolerance(atol=SCORE_ATOL),
            ),
        ),
        golden=golden,
    )


def _git_commit() -> str | None:
    # Inside a container there is neither git nor a checkout; the manifest then says so.
    root = Path(__file__).resolve().parent.parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],  # noqa: S607 (git is found on PATH)
            cwd=root,
            check=True,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip() or None
