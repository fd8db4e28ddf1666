"""A user's own files, by command: from a table or folders to a model that is served, or to one clear line."""

import random
from pathlib import Path

import pytest

from models.repository import Repository
from tests.end_to_end.commands import run_training
from tests.images import png
from tests.servers import process
from tests.verdicts import COLUMNS, write_table


@pytest.mark.parametrize("arch", ["committee", "transformer"])
def test_a_table_of_texts_becomes_a_model_that_is_served(tmp_path: Path, arch: str) -> None:
    write_table(tmp_path / "own.csv")
    status, output = run_training(
        tmp_path, "text", "--data", str(tmp_path / "own.csv"), *COLUMNS, "--name", "verdicts", "--arch", arch,
        "--epochs", "8", "--batch-size", "32", "--min-accuracy", "0.9", "--default",
    )  # fmt: skip
    assert status == 0, output
    assert "1 skipped: 'what they wrote' is empty (line 402)" in output
    with process(tmp_path / "models", drain_grace_s=0) as service:
        client = service.until_ready().client
        answer = client.post("/predict", content="a superb film", headers={"Content-Type": "text/plain"}).json()
        assert (answer["model"], answer["predictions"][0]["label"]) == ("verdicts", "praise")
        texts = [{"text": "such a tedious plot"}, {"text": "lovely music"}]
        answers = client.post("/predict", json={"instances": texts}).json()["predictions"]
        assert [each["label"] for each in answers] == ["blame", "praise"]


def test_a_table_of_pairs_becomes_a_model_that_writes(tmp_path: Path) -> None:
    chance = random.Random(0)  # noqa: S311 (no secret is made of it)
    words = {"".join(chance.choices("abcd", k=chance.randint(2, 4))) for _ in range(300)}
    lines = [f"{word}\t{' '.join(word.upper())}" for word in sorted(words)]
    (tmp_path / "own.tsv").write_text("\n".join(["source\ttarget", *lines]) + "\n")
    status, output = run_training(
        tmp_path, "seq2seq", "--data", str(tmp_path / "own.tsv"), "--name", "spell", "--tokens", "chars",
        "--target-tokens", "words", "--dim", "32", "--hidden-size", "64", "--layers", "1", "--epochs", "60",
        "--batch-size", "16", "--learning-rate", "0.005", "--max-error-rate", "0.5", "--max-steps", "8",
    )  # fmt: skip
    assert status == 0, output
    with process(tmp_path / "models", drain_grace_s=0) as service:
        client = service.until_ready().client
        headers = {"Content-Type": "text/plain"}
        asked = sorted(words)[:40]
        answers = [client.post("/predict?top_k=2", content=word, headers=headers).json() for word in asked]
        written = [answer["predictions"][0] for answer in answers]
        right = sum(each["text"] == " ".join(word.upper()) for word, each in zip(asked, written, strict=True))
        assert right > 20
        for each in written:
            assert len(each["top"]) == 2
            assert each["score"] >= each["top"][1]["score"]


def test_own_images_become_a_model(tmp_path: Path) -> None:
    for label, grey in (("night", 20), ("noon", 220)):
        folder = tmp_path / "own" / label
        folder.mkdir(parents=True)
        for number in range(60):
            (folder / f"{number}.png").write_bytes(png(grey + number % 15, (20 + number, 20)))
    (tmp_path / "own/noon/notes.txt").write_text("no image")
    status, output = run_training(
        tmp_path, "image", "--data", str(tmp_path / "own"), "--name", "light", "--size", "16", "--epochs", "6",
        "--batch-size", "16", "--min-accuracy", "0.9",
    )  # fmt: skip
    assert status == 0, output
    assert "notes.txt" in output
    manifest = Repository(tmp_path / "models").open("light").manifest
    assert manifest.labels == ("night", "noon")
    assert manifest.decode is not None
    assert manifest.decode.size == (16, 16)
