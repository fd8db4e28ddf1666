"""The main job on real data: train on a slice, publish, serve, retrain, see the swap, drain."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import get_args

import httpx
import pytest
from PIL import Image

from models.repository import Repository
from tests.servers import ROOT, process, until
from training.commands import RECIPES, Command
from training.config import TrainingOptions
from training.datasets import fashion_mnist
from training.export import Exported
from training.tasks.images import encode_png

SLICE = (
    "fashion",
    "--limit",
    "3000",
    "--epochs",
    "2",
    "--batch-size",
    "128",
    "--precision",
    "fp32",
    "--min-accuracy",
    "0.5",
)


def run_training(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "training", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository with a `fashion` that was trained on a slice of the real data."""
    root = tmp_path_factory.mktemp("trained") / "artifacts"
    finished = run_training(*SLICE, "--default", "--runs-dir", str(root.parent), LANTERN_MODELS_DIR=str(root))
    assert finished.returncode == 0, finished.stderr
    assert "published fashion/" in finished.stdout
    return Repository(root)


def test_the_bundle_holds_what_it_promises(published: Repository) -> None:
    bundle = published.open("fashion")
    files = set(bundle.manifest.files)
    pictures = {f"report/{name}.png" for name in ("confusion_matrix", "learning_curves", "calibration")}
    assert {"model.ts.pt", "report.json", "report.html", "golden/0.png", *pictures} <= files
    assert bundle.manifest.metrics["test_accuracy"] > 0.5
    assert bundle.manifest.source.config["seed"] == 0
    assert bundle.manifest.source.config["device"] in ("cpu", "cuda")
    assert bundle.manifest.source.config["precision"] == "fp32"
    assert published.defaults() == {"image": "fashion"}
    report = json.loads(bundle.read("report.json"))
    assert report["test"]["accuracy"] == bundle.manifest.metrics["test_accuracy"]
    assert sum(map(sum, report["test"]["confusion"])) == 3000
    assert len(report["training"]["history"]) == 2
    assert report["parity"] < 1e-4
    # Fitted, on other images than the test's, and inside the exported file.
    temperature = bundle.manifest.postprocess.temperature
    assert temperature != 1.0
    assert Exported(bundle.read("model.ts.pt")).module.temperature.item() == temperature
    assert bundle.manifest.calibration is not None
    assert bundle.manifest.calibration.nll_after < bundle.manifest.calibration.nll_before
    for name in pictures:
        with Image.open(io.BytesIO(bundle.read(name))) as picture:
            assert min(picture.size) > 300


def test_a_gate_that_fails_publishes_nothing_and_says_what_failed(tmp_path: Path) -> None:
    arguments = ("--limit", "200", "--epochs", "1", "--min-accuracy", "0.99", "--models-dir", str(tmp_path / "a"))
    finished = run_training("fashion", *arguments, "--runs-dir", str(tmp_path))
    assert finished.returncode == 1
    assert "nothing was published: accuracy:" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert Repository(tmp_path / "a").names() == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--epochs", "0"), "--epochs: Input should be greater than or equal to 1"),
        (("--name", "Not A Name"), "--name"),
        (("--device", "cuda:99"), "device cuda:99: this machine has"),
        (("--data", "/nowhere"), "--data /nowhere does not hold"),
        (("--seed", "99999999999999999999"), "--seed"),
        (("--hidden-size", "999999999999"), "--hidden-size"),
        (("--bogus", "1"), "unrecognized arguments: --bogus"),
    ],
)
def test_a_wrong_option_ends_with_one_clear_line(
    arguments: tuple[str, str], complaint: str, tmp_path: Path
) -> None:
    finished = run_training("fashion", *arguments, "--models-dir", str(tmp_path), "--runs-dir", str(tmp_path))
    assert finished.returncode != 0
    assert complaint in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_default_that_cannot_be_written_is_known_before_the_training(tmp_path: Path) -> None:
    (tmp_path / "defaults.json").write_text("nonsense")
    finished = run_training(*SLICE, "--default", "--models-dir", str(tmp_path), "--runs-dir", str(tmp_path))
    assert finished.returncode == 1
    assert "nothing was published: " in finished.stderr
    assert "defaults.json" in finished.stderr
    assert "epoch" not in finished.stderr


def test_a_directory_that_cannot_be_written_fails_before_the_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    finished = run_training(*SLICE, "--models-dir", str(tmp_path / "file"), "--runs-dir", str(tmp_path))
    assert finished.returncode == 1
    assert "cannot publish to" in finished.stderr
    assert "epoch" not in finished.stderr


@pytest.mark.parametrize("options", RECIPES)
def test_the_help_lists_every_option(options: type[TrainingOptions]) -> None:
    name = next(name for name, field in Command.model_fields.items() if options in get_args(field.annotation))
    text = run_training(name, "--help").stdout
    assert all(f"--{field.replace('_', '-')}" in text for field in options.model_fields)


def test_the_list_shows_commands_architectures_and_optimizers() -> None:
    text = run_training("list").stdout
    for word in ("pronounce", "convnet", "resnet18", "transformer", "seq2seq", "lbfgs", "cosine"):
        assert word in text


def test_real_images_are_served_and_a_retrained_model_takes_over_without_a_failure(published: Repository) -> None:
    dataset = fashion_mnist.load(None, 0.1, seed=0, limit=300)
    pngs = [encode_png(image_CHW) for image_CHW in dataset.test.images_NCHW[:300]]
    first = published.current("fashion").version
    answers: list[tuple[int, str]] = []
    stop = threading.Event()
    with process(published.root, reload_interval_s=0.1, drain_grace_s=0) as service:
        service.until_ready()
        right = sum(
            service.client.post("/predict", content=png, headers={"Content-Type": "image/png"}).json()[
                "predictions"
            ][0]["label"]
            == dataset.labels[label]
            for png, label in zip(pngs, dataset.test.labels_N.tolist(), strict=True)
        )
        expected = published.open("fashion").manifest.metrics["test_accuracy"]
        assert right / len(pngs) == pytest.approx(expected, abs=0.08)

        jpeg = io.BytesIO()
        Image.open(io.BytesIO(pngs[1])).convert("RGB").resize((200, 200)).save(jpeg, "JPEG", quality=95)
        files = [("file", pngs[1]), ("file", jpeg.getvalue())]
        from_png, from_jpeg = service.client.post("/predict", files=files).json()["predictions"]
        assert from_png["label"] == from_jpeg["label"] == dataset.labels[int(dataset.test.labels_N[1])]

        def ask() -> None:
            with httpx.Client(base_url=service.client.base_url, timeout=60) as client:
                while not stop.is_set():
                    response = client.post("/predict", content=pngs[0], headers={"Content-Type": "image/png"})
                    answers.append((response.status_code, response.json().get("version", response.text)))

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            retrained = run_training(
                *SLICE,
                "--seed",
                "1",
                "--runs-dir",
                str(published.root.parent),
                LANTERN_MODELS_DIR=str(published.root),
            )
            assert retrained.returncode == 0, retrained.stderr
            second = published.current("fashion").version
            assert second != first
            until(lambda: answers[-1] == (200, second) or not asking.is_alive())
        finally:
            stop.set()
            asking.join()
        assert {*answers} == {(200, first), (200, second)}

        service.popen.send_signal(signal.SIGTERM)
        assert service.wait() == 0
    assert any("drained: every admitted item was answered" in line for line in service.lines)
