"""What passed the gate -> a published bundle."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from torch import Tensor

from models.backend import Backend, Tolerance
from models.bundle import Bundle, describe_all
from models.manifest import BuiltWith, Calibration, GoldenExample, Limits, Manifest, Source
from models.operators import NO_OTHERS
from models.preparation import Preparation
from models.repository import Repository
from models.signing_key import SigningKey
from models.staging import Staging
from models.tokenization import Tokenizer
from training.config import Options
from training.export import Exported
from training.fresh_check import check_in_fresh_process
from training.gate import SCORE_ATOL
from training.machine import git_commit
from training.optimizing.backends import Optimized
from training.report import Report, write_report

MODEL_FILE = "model.ts.pt"


@dataclass(frozen=True)
class Candidate:
    """What passed the gate, and all that its bundle will say of it.

    Attributes:
        content: The exported file.
        preparation: How its raw inputs become a batch.
        golden_inputs: File name -> raw input, a few.
        description: The manifest's fields that say what it takes and gives.
        files: Path -> content, of what it needs besides.
        metrics: What it is worth.
        calibration: Before and after what was fitted, if anything was.
        config: The options that it was made with.
        data_sha256: Of what it was made from.
        report: For a person.
        optimized: Other forms of the model, the fastest first.
        allowed: Operators that it may use besides `models.operators.OPERATORS`.
    """

    content: bytes
    preparation: Preparation
    golden_inputs: Mapping[str, bytes]
    description: Mapping[str, Any]
    files: Mapping[str, bytes]
    metrics: Mapping[str, float]
    calibration: Calibration | None
    config: Mapping[str, Any]
    data_sha256: str
    report: Report
    optimized: Sequence[Optimized] = ()
    allowed: frozenset[str] = NO_OTHERS


def publish(candidate: Candidate, options: Options, key: SigningKey | None) -> Bundle:
    """Stage the bundle, check it in a fresh process, and make it current, or a candidate.

    Args:
        candidate: What to publish.
        options: Name the repository and the model.
        key: Signs it, before it can be served; None: it is not signed.

    Raises:
        GateFailed: The fresh process did not get the golden answers.
        NotWritable, OSError: The repository cannot be written; the old version stays current.
    """
    repository = Repository(options.models_dir)
    with repository.staging(options.name) as staging:
        (staging.directory / MODEL_FILE).write_bytes(candidate.content)
        for path, content in candidate.files.items():
            (staging.directory / path).write_bytes(content)
        write_optimized(staging.directory, candidate.optimized)
        golden = _write_golden(staging.directory, candidate)
        write_report(staging.directory, candidate.report)
        staging.write_manifest(_manifest(staging, candidate, options, golden), key)
        check_in_fresh_process(staging.directory, candidate.allowed)
        return repository.publish(options.name, staging, current=not options.candidate)


def write_optimized(directory: Path, optimized: Sequence[Optimized]) -> None:
    """Write the files of backends into a bundle's directory; two may share them."""
    for each in optimized:
        for path, content in each.files.items():
            (directory / path).write_bytes(content)


def _write_golden(directory: Path, candidate: Candidate) -> tuple[GoldenExample, ...]:
    (directory / "golden").mkdir()
    paths = [f"golden/{name}" for name in candidate.golden_inputs]
    contents = list(candidate.golden_inputs.values())
    for path, content in zip(paths, contents, strict=True):
        (directory / path).write_bytes(content)
    preparation = candidate.preparation
    batch = preparation.collate([preparation.prepare(content) for content in contents])
    outputs = Exported(candidate.content, candidate.allowed).run(batch)
    if isinstance(outputs, Tensor):
        rows = zip(paths, outputs.tolist(), strict=True)
        return tuple(GoldenExample(file=path, scores=scores) for path, scores in rows)
    writer = Tokenizer(candidate.files[candidate.description["write"].file])
    return tuple(
        GoldenExample(file=path, scores=(scores[0],), texts=(writer.decode(tokens[0]),))
        for path, tokens, scores in zip(paths, outputs[0].tolist(), outputs[1].tolist(), strict=True)
    )


def _manifest(
    staging: Staging, candidate: Candidate, options: Options, golden: Sequence[GoldenExample]
) -> Manifest:
    return Manifest(
        name=options.name,
        version=staging.version,
        created_at=datetime.now(UTC),
        source=Source(git=git_commit(), config=dict(candidate.config), data_sha256=candidate.data_sha256),
        built_with=BuiltWith(
            torch=installed_version("torch"),
            torchvision=installed_version("torchvision"),
            python=platform.python_version(),
        ),
        files=describe_all(staging.directory),
        limits=Limits(max_batch_size=options.max_batch_size),
        metrics=dict(candidate.metrics),
        calibration=candidate.calibration,
        backends=(
            *(each.backend for each in candidate.optimized),
            Backend(
                id="torchscript-fp32",
                format="torchscript",
                file=MODEL_FILE,
                devices=("cpu", "cuda"),
                precision="fp32",
                tolerance=Tolerance(atol=SCORE_ATOL),
            ),
        ),
        golden=tuple(golden),
        **candidate.description,
    )
