"""The training commands as processes: killed and resumed, in several processes, on a user's own files."""

import csv
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.repository import Repository
from tests.servers import ROOT, process
from training.export import Exported

SLICE = ("fashion", "--limit", "1500", "--batch-size", "64", "--precision", "fp32", "--min-accuracy", "0.2")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
WORDS = {
    "praise": ("lovely", "superb", "charming", "brilliant", "delightful"),
    "blame": ("dreadful", "dull", "clumsy", "tedious", "awful"),
}


def places(root: Path) -> tuple[str, ...]:
    return ("--models-dir", str(root / "models"), "--runs-dir", str(root / "runs"))


def run_training(root: Path, *arguments: str, python: Sequence[str] = ("-m", "training")) -> tuple[int, str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, *python, *arguments, *places(root)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def weights(root: Path, name: str) -> dict[str, Tensor]:
    bundle = Repository(root / "models").open(name)
    return dict(Exported(bundle.read("model.ts.pt")).module.state_dict())


def test_a_run_killed_with_kill_9_goes_on_to_the_very_same_model(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    arguments = (*SLICE, "--epochs", "4", "--ema-decay", "0.9")
    status, output = run_training(whole, *arguments)
    assert status == 0, output
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "training", *arguments, *places(cut)]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        assert any(line.startswith("epoch 2/4") for line in running.stderr), "it ended before it was killed"
        running.send_signal(signal.SIGKILL)
    assert Repository(cut / "models").names() == []
    status, output = run_training(cut, *arguments, "--resume")
    assert status == 0, output
    assert re.search(r"going on from epoch [234],", output)
    expected, found = weights(whole, "fashion"), weights(cut, "fashion")
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_checkpoint_of_other_options_is_not_gone_on_from(tmp_path: Path) -> None:
    status, _ = run_training(tmp_path, *SLICE, "--epochs", "1", "--min-accuracy", "1")
    assert status == 1
    status, output = run_training(tmp_path, *SLICE, "--epochs", "2", "--resume")
    assert status == 1
    assert "is of a run with other options or data" in output


def test_two_processes_train_one_model_and_publish_it_once(tmp_path: Path) -> None:
    arguments = (*SLICE, "--epochs", "2")
    status, output = run_training(tmp_path, *arguments, python=(*TORCHRUN, "-m", "training"))
    assert status == 0, output
    assert output.count("published fashion/") == 1
    # One process speaks, and no example is evaluated twice.
    assert len(re.findall(r"^epoch 1/2 \(21 steps\)", output, re.MULTILINE)) == 1
    bundle = Repository(tmp_path / "models").open("fashion")
    assert Repository(tmp_path / "models").versions("fashion") == [bundle.manifest.version]
    assert bundle.manifest.metrics["test_accuracy"] > 0.4


def write_table(file: Path, rows: int = 400) -> None:
    chance = random.Random(0)  # noqa: S311 (no secret is made of it)
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["what they wrote", "verdict"])
        for number in range(rows):
            verdict = ("praise", "blame")[number % 2]
            words = chance.choices(("the", "film", "plot", "actor", "music"), k=6)
            words.insert(chance.randrange(6), chance.choice(WORDS[verdict]))
            writer.writerow([" ".join(words) + f" {number}", verdict])
        writer.writerow(["", "praise"])


COLUMNS = ("--text-column", "what they wrote", "--label-column", "verdict")


@pytest.mark.parametrize("arch", ["bag", "gru"])
def test_a_table_of_texts_becomes_a_model_that_is_served(tmp_path: Path, arch: str) -> None:
    write_table(tmp_path / "own.csv")
    status, output = run_training(
        tmp_path, "text", "--data", str(tmp_path / "own.csv"), *COLUMNS, "--name", "verdicts", "--arch", arch,
        "--epochs", "8", "--batch-size", "32", "--min-accuracy", "0.9", "--default",
    )  # fmt: skip
    assert status == 0, output
    assert "1 skipped: the text is empty" in output or "1 skipped" in output
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
        answer = client.post("/predict?top_k=2", content=next(iter(sorted(words))), headers=headers).json()
        written = answer["predictions"][0]
        assert set(written["text"]) <= set("ABCD ")
        assert len(written["top"]) == 2
        assert written["score"] >= written["top"][1]["score"]


@pytest.mark.parametrize(
    ("content", "arguments", "complaint"),
    [
        (None, COLUMNS, "own.csv"),
        ("", COLUMNS, "own.csv"),
        ("what they wrote,verdict\nhello,praise\n", COLUMNS, "own.csv"),
        ("what they wrote,verdict\nhello,praise\n", ("--text-column", "what they wrot"), "what they wrot"),
        ("what they wrote,verdict\n,praise\n", COLUMNS, "own.csv"),
    ],
)
def test_a_wrong_table_ends_with_one_clear_line(
    tmp_path: Path, content: str | None, arguments: Sequence[str], complaint: str
) -> None:
    file = tmp_path / "own.csv"
    if content is not None:
        file.write_text(content)
    status, output = run_training(tmp_path, "text", "--data", str(file), "--name", "own", *arguments)
    assert status == 1
    last = output.strip().splitlines()[-1]
    assert last.startswith("nothing was published: ")
    assert complaint in last
    assert "Traceback" not in output


def test_own_images_become_a_model(tmp_path: Path) -> None:
    from tests.images import png

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
