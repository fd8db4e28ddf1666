"""The recipes on texts, on a slice of their real data, by command; their whole figures are in docs/results.md."""

from pathlib import Path

from models.repository import Repository
from tests.end_to_end.commands import run_training
from tests.servers import process
from training.datasets import cmudict

TEXT = {"Content-Type": "text/plain"}


def test_reviews_learn_and_are_served(tmp_path: Path) -> None:
    status, output = run_training(
        tmp_path, "reviews", "--epochs", "1", "--limit", "3000", "--precision", "fp32", "--min-accuracy", "0.7"
    )
    assert status == 0, output
    assert Repository(tmp_path / "models").open("reviews").manifest.labels == ("negative", "positive")
    with process(tmp_path / "models", drain_grace_s=0) as service:
        client = service.until_ready().client
        for text, label in (("A dull and tedious mess.", "negative"), ("A superb, moving film.", "positive")):
            answer = client.post("/predict", content=text, headers=TEXT).json()
            assert answer["predictions"][0]["label"] == label


def test_pronounce_learns_and_is_served(tmp_path: Path) -> None:
    status, output = run_training(
        tmp_path, "pronounce", "--epochs", "1", "--limit", "300", "--dim", "32", "--layers", "1",
        "--hidden-size", "32",
        "--precision", "fp32", "--beams", "2", "--max-error-rate", "1",
    )  # fmt: skip
    assert status == 0, output
    manifest = Repository(tmp_path / "models").open("pronounce").manifest
    assert 0 < manifest.metrics["test_error_rate_no_stress"] <= manifest.metrics["test_error_rate"]
    assert manifest.calibration is not None
    with process(tmp_path / "models", drain_grace_s=0) as service:
        client = service.until_ready().client
        written = client.post("/predict?top_k=2", content="lantern", headers=TEXT).json()["predictions"][0]
        # Badly, after so little: but in phones.
        phones = {phone for pair in cmudict.load()["train"] for phone in pair.targets[0].split()}
        assert set(written["text"].split()) <= phones
