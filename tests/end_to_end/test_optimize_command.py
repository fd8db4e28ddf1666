"""python -m training optimize, and --optimize: published, refused, served."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from app.backends import usable
from models.repository import Repository
from tests.end_to_end.commands import run, run_training
from tests.servers import process
from tests.training.small_images import put
from training.commands import OptimizeOptions
from training.errors import DataInvalid, OptionInvalid
from training.optimizing.run import optimize
from training.optimizing.source import sample_of
from training.progress import Progress
from training.tasks.images import encode_png

SIZE = 32


class Layers(nn.Module):
    """Many small layers: what a graph costs beside its arithmetic shows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = [each for _ in range(8) for each in (nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())]
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8, 3)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        logits_NK: Tensor = self.head(self.layers(images_NCHW))
        return logits_NK


def picture(index: int) -> Tensor:
    generator = torch.Generator().manual_seed(index)
    colour_311 = torch.rand(3, 1, 1, generator=generator)
    return (255 * (0.8 * colour_311 + 0.2 * torch.rand(3, SIZE, SIZE, generator=generator))).to(torch.uint8)


def test_an_imported_model_gets_faster_forms_and_is_served_by_them(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(Layers()), tmp_path / "net.pt")
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    models = ("--models-dir", str(tmp_path / "models"))
    options = ("--size", str(SIZE), "--labels", str(tmp_path / "labels.txt"))
    status, output = run("import", str(tmp_path / "net.pt"), "--name", "net", *options, *models)
    assert status == 0, output
    for index in range(220):
        put(tmp_path / "pictures" / f"{index}.png", encode_png(picture(index)))
    # Of random weights, whose labels lie close together: how often they agree says nothing here.
    pictures = ("--data", str(tmp_path / "pictures"), "--min-agreement", "0")
    status, output = run(*models, "optimize", "net", *pictures)
    bundle = Repository(tmp_path / "models").open("net")
    # Whether one is faster hangs on the machine, and on what else it does; what serves goes with it.
    assert (status, f"published net/{bundle.manifest.version}" in output) == (0, True) or (
        (status, "none of the other forms is accurate enough and faster" in output) == (1, True)
    ), output
    expected = usable(bundle.manifest, torch.device("cpu"), "fp32")[0].id
    with process(tmp_path / "models", drain_grace_s=0, precision="fp32") as service:
        client = service.until_ready().client
        assert client.get("/models/net").json()["backend"] == expected
        body = encode_png(picture(7))
        given = client.post("/predict", content=body, headers={"Content-Type": "image/png"}).json()
    assert given["version"] == bundle.manifest.version
    assert given["predictions"][0]["label"] in ("a", "b", "c")


def test_a_training_judges_other_forms_on_its_test_part(tmp_path: Path) -> None:
    for label, shift in (("bright", 100), ("dim", 0)):
        for index in range(320):
            image = (picture(index) // 2 + shift).clamp(max=255)
            put(tmp_path / "data" / label / f"{index}.png", encode_png(image))
    common = ("--epochs", "1", "--size", "32", "--min-accuracy", "0", "--name", "net")
    data = ("--data", str(tmp_path / "data"))
    status, output = run_training(tmp_path, "image", *data, *common, "--optimize")
    assert status == 0, output
    # How fast they are hangs on the machine, and so does which are kept; that each was tried does not.
    assert "torchscript-fp32: " in output
    assert "openvino-fp32: " in output
    bundle = Repository(tmp_path / "models").open("net")
    for backend in bundle.manifest.backends:
        assert backend.is_reference or (backend.accuracy and backend.accuracy.metric is not None)
    options = OptimizeOptions(name="net", models_dir=tmp_path / "models", data=tmp_path / "data")
    # The same part of the same data, found again.
    sample = sample_of(bundle, options.data, Progress(silent=True))
    assert sample.labels is not None
    assert len(sample.judge) == pytest.approx(128, abs=28)
    (tmp_path / "data" / "dim" / "0.png").unlink()
    with pytest.raises(DataInvalid, match="these are not the data that net"):
        optimize(options, Progress(silent=True))
    with pytest.raises(OptionInvalid, match="--data: give what it was trained on"):
        optimize(options.model_copy(update={"data": None}), Progress(silent=True))
