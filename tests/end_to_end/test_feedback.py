"""From a wrong answer to a model that knows better, as the README has it: by commands and over HTTP alone."""

from base64 import b64encode
from pathlib import Path
from typing import Any

import httpx

from models.repository import Repository
from tests.end_to_end.commands import run, run_training
from tests.images import png
from tests.servers import process, until

PNG = {"Content-Type": "image/png"}


def own_images(folder: Path) -> None:
    """Nights and noons; nothing in between."""
    for label, darkest in (("night", 0), ("noon", 215)):
        (folder / label).mkdir(parents=True)
        for step in range(40):
            (folder / label / f"{step}.png").write_bytes(png(darkest + step, (16, 16)))


def answer(client: httpx.Client, grey: int) -> Any:
    return client.post("/models/hours/predict", content=png(grey, (16, 16)), headers=PNG).json()


def label(client: httpx.Client, grey: int) -> str:
    told: str = answer(client, grey)["predictions"][0]["label"]
    return told


def roll_out(root: Path, *arguments: str) -> None:
    models = ("--models-dir", str(root / "models"))
    status, output = run("hours", *arguments, *models, python=("-m", "models.rollout"))
    assert status == 0, output


def test_a_wrong_answer_is_corrected_learned_and_promoted(tmp_path: Path) -> None:
    own_images(tmp_path / "own")
    file = tmp_path / "feedback.sqlite"
    train = ("image", "--data", str(tmp_path / "own"), "--name", "hours", "--size", "16", "--color", "L",
             "--no-flip", "--min-accuracy", "0.8")  # fmt: skip
    status, output = run_training(tmp_path, *train, "--epochs", "20")
    assert status == 0, output
    with process(tmp_path / "models", reload_interval_s=0.05, feedback_file=file, drain_grace_s=0) as service:
        client = service.until_ready().client
        first = client.get("/models/hours").json()["version"]
        # Dusk is called one or the other; whoever knows says that it is the other.
        dusk = range(100, 140, 4)
        was = {grey: label(client, grey) for grey in dusk}
        for grey, wrong in was.items():
            request_id = answer(client, grey)["request_id"]
            right = "noon" if wrong == "night" else "night"
            image = b64encode(png(grey, (16, 16))).decode()
            body = {"request_id": request_id, "model": "hours", "label": right, "image": image}
            assert client.post("/feedback", json=body).status_code == 201
        status, output = run_training(tmp_path, *train, "--feedback", str(file), "--epochs", "60", "--candidate")
        assert status == 0, output
        assert f"feedback: {len(was)} corrected examples are trained on" in output
        assert client.get("/models/hours").json()["version"] == first
        newest = Repository(tmp_path / "models").versions("hours")[-1]
        roll_out(tmp_path, newest, "--shadow", "0.5")
        until(lambda: (client.get("/models/hours").json()["candidate"] or {}).get("live") is True)
        roll_out(tmp_path, newest, "--share", "1")
        until(lambda: answer(client, 0)["version"] == newest)
        roll_out(tmp_path, "--promote")
        until(lambda: client.get("/models/hours").json()["version"] == newest)
        corrected = sum(label(client, grey) != was[grey] for grey in dusk)
        assert corrected >= 0.8 * len(was)
