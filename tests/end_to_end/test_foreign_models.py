"""Models that others trained, by command: imported, or trained further, and served."""

import base64
import random
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torchvision.models import squeezenet1_1

from models.repository import Repository
from tests.end_to_end.commands import run, run_training
from tests.images import encoded, png
from tests.open_inference.target import Target, outputs
from tests.servers import process

LABELS = "dark\ngrey\nlight\n"


class Brightness(nn.Module):
    """Of pixels of -1 to 1: which of three it is."""

    def forward(self, images_NCHW: Tensor) -> Tensor:
        centres_1K = torch.tensor([[-1.0, 0.0, 1.0]], device=images_NCHW.device)
        return -20 * (images_NCHW.mean(dim=(1, 2, 3)).unsqueeze(1) - centres_1K).square()


class Explained(nn.Module):
    """Gives what it went by besides."""

    def forward(self, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        brightness_N1 = images_NCHW.mean(dim=(1, 2, 3)).unsqueeze(1)
        centres_1K = torch.tensor([[-1.0, 0.0, 1.0]], device=images_NCHW.device)
        return -20 * (brightness_N1 - centres_1K).square(), brightness_N1


def answer(client: httpx.Client, name: str, image: bytes) -> str:
    headers = {"Content-Type": "image/png"}
    found = client.post("/predict", params={"model": name}, content=image, headers=headers).json()
    label: str = found["predictions"][0]["label"]
    return label


def scores(client: httpx.Client, name: str, image: bytes) -> list[float]:
    """What /predict says, in the order of the labels."""
    headers = {"Content-Type": "image/png"}
    asked: dict[str, str | int] = {"model": name, "top_k": 3}
    found = client.post("/predict", params=asked, content=image, headers=headers).json()["predictions"][0]["top"]
    by_label = {each["label"]: each["score"] for each in found}
    return [by_label[label] for label in LABELS.split()]


def assert_v2_says_the_same(client: httpx.Client, name: str, side: int) -> None:
    """The Open Inference Protocol describes the model, and answers as /predict does: pixels, and image files."""
    asked = Target(client, name)
    assert asked.metadata == {
        "name": name,
        "versions": [client.get(f"/models/{name}").json()["version"]],
        "platform": "pytorch_torchscript",
        "inputs": [{"name": "images", "datatype": "UINT8", "shape": [-1, 3, side, side]}],
        "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 3]}],
    }
    greys = (0, 128, 255)
    pixels_NCHW = np.stack([np.full((3, side, side), grey, np.uint8) for grey in greys])
    request = {"inputs": [asked.binary_tensor(pixels_NCHW)]}
    found_NK = outputs(asked.infer_binary(request, pixels_NCHW.tobytes()))["scores"]
    assert np.allclose(found_NK, [scores(client, name, png(grey)) for grey in greys], atol=1e-5)
    drawing = photograph("rounds", random.Random(0))  # noqa: S311 (no secret is made of it)
    file = {"name": "images", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(drawing).decode()]}
    found_NK = outputs(asked.infer({"inputs": [file]}))["scores"]
    assert np.allclose(found_NK, [scores(client, name, drawing)], atol=1e-5)


def test_what_others_trained_is_imported_and_served(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text(LABELS)
    torch.jit.save(torch.jit.script(Brightness()), tmp_path / "brightness.pt")
    torch.manual_seed(0)
    torch.save(squeezenet1_1(num_classes=3).state_dict(), tmp_path / "squeezenet.pth")
    common = ("--labels", str(tmp_path / "labels.txt"), "--models-dir", str(tmp_path / "models"))
    commands = (
        ("import", str(tmp_path / "brightness.pt"), "--name", "brightness", "--size", "8",
         "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5", "--default"),
        ("import", str(tmp_path / "squeezenet.pth"), "--name", "squeezenet", "--arch", "squeezenet1_1",
         "--size", "64"),
        ("torchvision", "squeezenet1_1", "--weights", str(tmp_path / "squeezenet.pth"), "--name", "zoo"),
    )  # fmt: skip
    for command in commands:
        status, output = run(*command, *common)
        assert status == 0, output
    with process(tmp_path / "models", drain_grace_s=0) as service:
        client = service.until_ready().client
        assert {each["name"] for each in client.get("/models").json()["models"]} == {
            "brightness",
            "squeezenet",
            "zoo",
        }
        assert [answer(client, "brightness", png(grey)) for grey in (0, 128, 255)] == ["dark", "grey", "light"]
        unnamed = client.post("/predict", content=png(250), headers={"Content-Type": "image/png"}).json()
        assert (unnamed["model"], unnamed["predictions"][0]["label"]) == ("brightness", "light")
        for name, side in (("brightness", 8), ("squeezenet", 64), ("zoo", 224)):
            assert_v2_says_the_same(client, name, side)


def test_a_model_of_several_outputs_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text(LABELS)
    torch.jit.save(torch.jit.script(Explained()), tmp_path / "explained.pt")
    status, output = run(
        "import", str(tmp_path / "explained.pt"), "--name", "explained", "--size", "8",
        "--labels", str(tmp_path / "labels.txt"), "--models-dir", str(tmp_path / "models"),
    )  # fmt: skip
    assert status == 1, output
    assert output.strip().splitlines()[-1] == (
        "nothing was published: import: explained.pt gives Tuple[Tensor, Tensor]; "
        "a model of images gives one tensor of scores"
    )
    assert "Traceback" not in output
    assert Repository(tmp_path / "models").names() == []


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (("import", "nowhere.pt", "--name", "a", "--labels", "labels.txt"), "nothing was published: "),
        (("import", "--name", "a", "--labels", "labels.txt"), "the following arguments are required: FILE"),
        (("torchvision", "resnet19", "--name", "a"), "torchvision has no classifier 'resnet19'"),
    ],
)
def test_what_cannot_be_imported_ends_with_one_clear_line(
    tmp_path: Path, command: tuple[str, ...], complaint: str
) -> None:
    status, output = run(*command, "--models-dir", str(tmp_path))
    assert status != 0
    assert complaint in output.strip().splitlines()[-1]
    assert "Traceback" not in output


def photograph(kind: str, chance: random.Random) -> bytes:
    """A drawing, in colour and of another size each time."""
    width, height = chance.randint(60, 120), chance.randint(60, 120)
    image = Image.new("RGB", (width, height), tuple(chance.randint(150, 255) for _ in range(3)))
    drawing = ImageDraw.Draw(image)
    ink = tuple(chance.randint(0, 100) for _ in range(3))
    for _ in range(6):
        left, top, side = chance.randrange(width - 30), chance.randrange(height - 30), chance.randint(15, 30)
        box = (left, top, left + side, top + side)
        drawing.ellipse(box, fill=ink) if kind == "rounds" else drawing.rectangle(box, fill=ink)
    return encoded(image, "PNG")


def test_a_few_pictures_suffice_with_pretrained_weights(tmp_path: Path) -> None:
    chance = random.Random(0)  # noqa: S311 (no secret is made of it)
    for kind in ("rounds", "squares"):
        (tmp_path / "own" / kind).mkdir(parents=True)
        for number in range(36):
            (tmp_path / "own" / kind / f"{number}.png").write_bytes(photograph(kind, chance))
    status, output = run_training(
        tmp_path, "image", "--data", str(tmp_path / "own"), "--name", "shapes", "--pretrained",
        "--head-epochs", "2",
        "--epochs", "2", "--batch-size", "8", "--precision", "fp32", "--max-batch-size", "4",
    )  # fmt: skip
    assert status == 0, output
    assert "2 labels: rounds, squares" in output
    assert "half of the training images are mirrored; --no-flip" in output
    manifest = Repository(tmp_path / "models").open("shapes").manifest
    assert manifest.source.config["arch"] == "efficientnet_lite0"
    assert manifest.metrics["test_accuracy"] > 0.8
    with process(tmp_path / "models", drain_grace_s=0) as service:
        client = service.until_ready().client
        asked = [kind for kind in ("rounds", "squares") for _ in range(5)]
        right = sum(answer(client, "shapes", photograph(kind, chance)) == kind for kind in asked)
    assert right >= 8
