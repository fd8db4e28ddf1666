"""A training run as a whole, on a small data set of its own: nothing is chosen on the test set."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch

from models.bundle import Bundle
from models.errors import KeyFileInvalid, NotWritable
from models.manifest import ImageDecoding
from models.repository import Repository
from models.signing_key import SigningKey
from tests.bundles import publish_texts
from tests.training.small import silent
from tests.training.stopping import Killed, Stopping, kill
from training.architectures.convolutional import ConvNet
from training.commands import FashionOptions
from training.datasets import fashion_mnist
from training.datasets.images import ImageDataset, LabelledImages
from training.distributed import Group
from training.errors import GateFailed, OutOfRoom
from training.export import Exported
from training.progress import Progress
from training.randomness import seed_here
from training.recipes import fashion
from training.run import run
from training.tasks.images import ImageClassification
from training.train import train
from training.trained import Trained


def dataset(test_labels_N: torch.Tensor) -> ImageDataset:
    """Ten shades of grey, each its own label."""

    def images(count: int, labels_N: torch.Tensor | None = None) -> LabelledImages:
        shades_N = torch.arange(count) % 10
        images_NCHW = (shades_N * 25)[:, None, None, None].expand(-1, 1, 28, 28).to(torch.uint8).contiguous()
        return LabelledImages(images_NCHW, shades_N if labels_N is None else labels_N)

    return ImageDataset(
        fashion_mnist.LABELS, images(320), images(80), images(len(test_labels_N), test_labels_N), "0" * 64
    )


RIGHT_N = torch.arange(100) % 10


def trained_on(data: ImageDataset, root: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Bundle:
    monkeypatch.setattr(fashion_mnist, "load", lambda *_: data)
    fields: dict[str, Any] = {"epochs": 1, "batch_size": 32, "precision": "fp32", "min_accuracy": 0.0}
    options = FashionOptions(models_dir=root / "models", runs_dir=root / "runs", **fields | changes)
    bundle = run(options, fashion.prepare, Group(), silent())
    assert bundle is not None
    return bundle


def test_scrambled_test_labels_change_the_figures_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = trained_on(dataset(RIGHT_N), tmp_path / "plain", monkeypatch)
    scrambled = trained_on(dataset((RIGHT_N + 1) % 10), tmp_path / "scrambled", monkeypatch)
    assert plain.manifest.metrics["test_accuracy"] != scrambled.manifest.metrics["test_accuracy"]
    assert plain.manifest.postprocess == scrambled.manifest.postprocess
    scores = [[golden.scores for golden in bundle.manifest.golden] for bundle in (plain, scrambled)]
    assert scores[0] == scores[1]


def test_a_candidate_is_published_beside_the_current_version_and_only_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = Repository(tmp_path / "models")
    with pytest.raises(NotWritable, match="without --candidate"):
        trained_on(dataset(RIGHT_N), tmp_path, monkeypatch, candidate=True)
    current = trained_on(dataset(RIGHT_N), tmp_path, monkeypatch).manifest
    beside = trained_on(dataset(RIGHT_N), tmp_path, monkeypatch, candidate=True).manifest
    assert repository.current(current.name).version == current.version
    assert repository.versions(current.name) == [current.version, beside.version]
    assert "candidate" not in beside.source.config


def test_what_is_trained_is_signed_even_if_the_key_goes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, file = SigningKey.make(), tmp_path / "signing.key"
    key.write(file)
    trained = train

    def train_and_lose_the_key(*arguments: Any) -> Trained:
        file.unlink()
        return trained(*arguments)

    monkeypatch.setattr("training.run.train", train_and_lose_the_key)
    bundle = trained_on(dataset(RIGHT_N), tmp_path, monkeypatch, signing_key=file)
    assert Bundle.open(bundle.directory, trusted=key.public) == bundle
    assert "signing_key" not in bundle.manifest.source.config


def test_a_key_that_cannot_sign_stops_the_run_before_it_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.run.train", lambda *_: pytest.fail("trained"))
    with pytest.raises(KeyFileInvalid, match=r"signing\.key cannot be read: No such file"):
        trained_on(dataset(RIGHT_N), tmp_path, monkeypatch, signing_key=tmp_path / "signing.key")


def test_the_manifest_says_what_would_make_the_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = trained_on(dataset(RIGHT_N), tmp_path, monkeypatch, seed=7).manifest
    config = manifest.source.config
    assert (config["seed"], config["epochs"], config["arch"]) == (7, 1, "convnet")
    assert (config["precision"], config["device"]) == ("fp32", "cpu")
    # Filled in by the recipe, and recorded all the same.
    assert config["shift_pixels"] == 1
    assert "models_dir" not in config


def test_the_report_is_one_page_that_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = trained_on(dataset((RIGHT_N + 1) % 10), tmp_path, monkeypatch)
    page = bundle.read("report.html").decode()
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("<img") == 3 + 24
    assert "Worst mistakes" in page
    assert "T-shirt/top" in page


def test_a_failing_gate_publishes_nothing_and_keeps_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(GateFailed, match=r"accuracy: .*--min-accuracy is 100\.00%"):
        trained_on(dataset((RIGHT_N + 1) % 10), tmp_path, monkeypatch, min_accuracy=1.0)
    assert Repository(tmp_path / "models").names() == []
    assert (tmp_path / "runs/fashion/all/checkpoint.pt").exists()


def test_a_published_run_leaves_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained_on(dataset(RIGHT_N), tmp_path, monkeypatch)
    assert not (tmp_path / "runs/fashion/all/checkpoint.pt").exists()


def test_what_a_gate_refused_is_published_once_the_gate_is_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dataset((RIGHT_N + 1) % 10)
    with pytest.raises(GateFailed):
        trained_on(data, tmp_path, monkeypatch, min_accuracy=1.0)
    monkeypatch.setattr("training.state.Run.take_step", lambda *_: pytest.fail("trained again"))
    bundle = trained_on(data, tmp_path, monkeypatch, resume=True, max_batch_size=8)
    assert bundle.manifest.limits.max_batch_size == 8


def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: ImageDataset, **changes: Any) -> str:
    """What a run says."""
    said = io.StringIO()
    monkeypatch.setattr(fashion_mnist, "load", lambda *_: data)
    fields: dict[str, Any] = {"epochs": 1, "batch_size": 32, "precision": "fp32", "min_accuracy": 0.0}
    options = FashionOptions(models_dir=tmp_path / "models", runs_dir=tmp_path / "runs", **fields | changes)
    run(options, fashion.prepare, Group(), Progress(said))
    return said.getvalue()


def test_what_a_person_should_know_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = told(tmp_path, monkeypatch, dataset(RIGHT_N), hidden_size=16, epochs=3)
    # Of a test set that has one label only, one answer is always right.
    spoilt = dataset(torch.zeros(100, dtype=torch.int64))
    warned = told(tmp_path, monkeypatch, spoilt, resume=True, dropout=0.5, epochs=3)
    for line in (
        "--resume: there is no unfinished run in",
        "--dropout: convnet has no use for it\n",
        "careful: it is no better than always answering 'T-shirt/top' would be (100.00%)",
    ):
        assert line in warned
        assert line not in plain


def test_a_name_that_does_something_else_is_not_published_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_texts(Repository(tmp_path / "models"), "fashion")
    monkeypatch.setattr("training.run.train", lambda *_: pytest.fail("trained"))
    with pytest.raises(NotWritable, match=r"fashion .* does text-classification, and this model image-class"):
        trained_on(dataset(RIGHT_N), tmp_path, monkeypatch)


@pytest.mark.parametrize("after", [3, 13])
def test_a_pretrained_run_killed_in_either_phase_goes_on_to_the_very_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    def pretrained(given: FashionOptions, _: Progress) -> tuple[ImageClassification, FashionOptions]:
        given = given.resolved({"flip": False})
        seed_here(0, "weights")
        decoding = ImageDecoding(color="L", size=fashion_mnist.SIZE, max_pixels=1000)
        mean_C, std_C = torch.zeros(1), torch.ones(1)
        network = ConvNet((1, 28, 28), 8, 10, widths=(4, 6, 8))
        return ImageClassification(dataset(RIGHT_N), network, mean_C, std_C, decoding, given, head_epochs=1), given

    def model(root: Path, progress: Progress, **changes: Any) -> dict[str, torch.Tensor]:
        fields: dict[str, Any] = {"epochs": 1, "batch_size": 32, "precision": "fp32", "min_accuracy": 0.0}
        options = FashionOptions(models_dir=root / "models", runs_dir=root / "runs", **fields | changes)
        bundle = run(options, pretrained, Group(), progress)
        assert bundle is not None
        return dict(Exported(bundle.read("model.ts.pt")).module.state_dict())

    # Each phase takes ten steps.
    monkeypatch.setattr("training.train.SAVE_INTERVAL_S", 0.0)
    whole = model(tmp_path / "whole", silent())
    with pytest.raises(Killed):
        model(tmp_path / "cut", Stopping(after, kill))
    resumed = model(tmp_path / "cut", silent(), resume=True)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_run_that_does_not_resume_sets_an_unfinished_one_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(GateFailed):
        trained_on(dataset((RIGHT_N + 1) % 10), tmp_path, monkeypatch, min_accuracy=1.0)
    directory = tmp_path / "runs/fashion/all"
    unfinished = (directory / "checkpoint.pt").read_bytes()
    trained_on(dataset(RIGHT_N), tmp_path, monkeypatch, seed=1)
    assert (directory / "checkpoint.before.pt").read_bytes() == unfinished
    assert not (directory / "checkpoint.pt").exists()


def test_a_full_disk_stops_the_run_before_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.run.shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    monkeypatch.setattr("training.run.train", lambda *_: pytest.fail("trained"))
    with pytest.raises(OutOfRoom, match=r"MiB left; a run of this size wants"):
        trained_on(dataset(RIGHT_N), tmp_path, monkeypatch)


def test_an_unwritable_place_for_runs_stops_the_run_before_it_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").write_text("in the way")
    monkeypatch.setattr("training.run.train", lambda *_: pytest.fail("trained"))
    with pytest.raises(OSError, match="runs"):
        trained_on(dataset(RIGHT_N), tmp_path, monkeypatch)


def test_tensorboard_reads_the_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trained_on(dataset(RIGHT_N), tmp_path, monkeypatch, epochs=2)
    curves = EventAccumulator(str(tmp_path / "runs/fashion/all"))
    curves.Reload()
    assert [event.step for event in curves.Scalars("score/validation")] == [1, 2]
    assert {"loss/train", "loss/validation", "score/train", "learning_rate"} <= set(curves.Tags()["scalars"])
