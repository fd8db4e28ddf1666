"""Models that others trained, imported by the command and served."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import squeezenet1_1

from models.repository import Repository
from tests.images import png
from tests.servers import Running
from tests.training.small import silent
from training.commands import ImagenetOptions, ImportOptions, TorchvisionOptions
from training.errors import TrainingError
from training.importing import import_file, import_imagenet, import_torchvision, read_labels

ROOT = Path(__file__).resolve().parent.parent.parent
Serve = Callable[..., Running]


class Brightness(nn.Module):
    """Three labels by brightness; takes pixels of 0..1, as somebody else's model would."""

    centres_1K: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centres_1K", torch.tensor([[0.0, 0.5, 1.0]]))

    def forward(self, images_NCHW: Tensor) -> Tensor:
        brightness_N1 = images_NCHW.mean(dim=(1, 2, 3)).unsqueeze(1)
        return -20 * (brightness_N1 - self.centres_1K).square()


class Probabilities(Brightness):
    def forward(self, images_NCHW: Tensor) -> Tensor:
        brightness_N1 = images_NCHW.mean(dim=(1, 2, 3)).unsqueeze(1)
        return torch.softmax(-20 * (brightness_N1 - self.centres_1K).square(), dim=1)


class TwoInputs(nn.Module):
    def forward(self, images_NCHW: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return images_NCHW, state


class Nothing(nn.Module):
    def forward(self, images_NCHW: Tensor) -> Tensor:
        return images_NCHW.mean(dim=(2, 3)) / 0


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    file = tmp_path / "labels.txt"
    file.write_text("dark\ngrey\nlight\n")
    return file


def saved(module: nn.Module, file: Path, *, traced: bool = False) -> Path:
    made = torch.jit.trace(module, torch.rand(1, 3, 8, 8)) if traced else torch.jit.script(module)
    torch.jit.save(made, file)
    return file


def options(repository: Repository, file: Path, labels: Path, **changes: Any) -> ImportOptions:
    fields: dict[str, Any] = {"name": "foreign", "models_dir": repository.root, "file": file, "labels": labels}
    return ImportOptions(**fields | {"size": 8, "mean": (0.0,), "std": (1.0,)} | changes)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize(("module", "outputs"), [(Brightness(), "logits"), (Probabilities(), "probabilities")])
def test_a_torchscript_file_is_served(
    repository: Repository,
    serve: Serve,
    tmp_path: Path,
    labels: Path,
    module: nn.Module,
    outputs: str,
    traced: bool,
) -> None:
    file = saved(module, tmp_path / "model.pt", traced=traced)
    import_file(options(repository, file, labels, outputs=outputs), silent())
    client = serve().until_ready().client
    for grey, label in ((0, "dark"), (128, "grey"), (250, "light")):
        answer = client.post("/predict", content=png(grey), headers={"Content-Type": "image/png"}).json()
        assert answer["predictions"][0]["label"] == label
    expected = torch.softmax(Brightness()(torch.full((1, 3, 8, 8), 128 / 255)), 1)[0, 1].item()
    answer = client.post("/predict", content=png(128), headers={"Content-Type": "image/png"}).json()
    assert answer["predictions"][0]["score"] == pytest.approx(expected, abs=1e-5)


def test_a_state_dict_of_a_torchvision_architecture_is_imported(
    repository: Repository, tmp_path: Path, labels: Path
) -> None:
    torch.manual_seed(0)
    network = squeezenet1_1(num_classes=3)
    torch.save({"state_dict": network.state_dict()}, tmp_path / "weights.pth")
    given = options(repository, tmp_path / "weights.pth", labels, arch="squeezenet1_1", size=64)
    manifest = import_file(given, silent()).manifest
    assert manifest.labels == ("dark", "grey", "light")
    assert manifest.decode is not None
    assert (manifest.decode.size, manifest.metrics) == ((64, 64), {})


@pytest.mark.parametrize(
    ("module", "complaint"),
    [
        (TwoInputs(), r"takes \(images_NCHW: Tensor, state: Tensor\)"),
        (Nothing(), "scores that are no numbers"),
        (nn.Flatten(), "gives 192 scores, and there are 3 labels"),
        (nn.Identity(), "not N x labels"),
        (nn.Linear(5, 3), "fails on 16 images"),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_reason(
    repository: Repository, tmp_path: Path, labels: Path, module: nn.Module, complaint: str
) -> None:
    file = saved(module, tmp_path / "model.pt")
    with pytest.raises(TrainingError, match=complaint):
        import_file(options(repository, file, labels), silent())
    assert repository.names() == []


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [({"mean": (0.1, 0.2)}, "--mean: 2 values for 3 channels"), ({"std": (1.0, 1.0)}, "--std")],
)
def test_options_that_do_not_go_together_are_refused(
    repository: Repository, tmp_path: Path, labels: Path, changes: dict[str, Any], complaint: str
) -> None:
    file = saved(Brightness(), tmp_path / "model.pt")
    with pytest.raises(TrainingError, match=complaint):
        import_file(options(repository, file, labels, **changes), silent())


def test_files_that_are_neither_are_refused(repository: Repository, tmp_path: Path, labels: Path) -> None:
    (tmp_path / "noise.pt").write_bytes(b"noise")
    with pytest.raises(TrainingError, match=r"--arch: .*noise\.pt is no TorchScript file"):
        import_file(options(repository, tmp_path / "noise.pt", labels), silent())
    with pytest.raises(TrainingError, match="is not a state dict"):
        import_file(options(repository, tmp_path / "noise.pt", labels, arch="squeezenet1_1"), silent())
    with pytest.raises(TrainingError, match=r"absent\.pt cannot be read"):
        import_file(options(repository, tmp_path / "absent.pt", labels), silent())


@pytest.mark.parametrize(
    ("content", "complaint"), [("one\n", "has 1 labels"), ("a\nb\na\n", "has 'a' twice"), (None, "cannot be read")]
)
def test_wrong_labels_are_refused(tmp_path: Path, content: str | None, complaint: str) -> None:
    if content is not None:
        (tmp_path / "labels.txt").write_text(content)
    with pytest.raises(TrainingError, match=complaint):
        read_labels(tmp_path / "labels.txt")


def test_an_architecture_of_torchvision_is_imported_without_weights(repository: Repository, labels: Path) -> None:
    given = TorchvisionOptions(
        name="zoo", models_dir=repository.root, arch="squeezenet1_1", weights="none", labels=labels
    )
    manifest = import_torchvision(given, silent()).manifest
    assert manifest.decode is not None
    assert (manifest.decode.size, manifest.decode.shorter_side) == ((224, 224), 256)


def test_photographs_come_back_as_what_they_show(repository: Repository, serve: Serve) -> None:
    import_imagenet(ImagenetOptions(models_dir=repository.root), silent())
    client = serve(max_batch_size=1).until_ready().client
    for photograph, label in (("flower", "daisy"), ("china", "palace")):
        content = (ROOT / f"docs/images/{photograph}.jpg").read_bytes()
        answer = client.post("/predict", content=content, headers={"Content-Type": "image/jpeg"}).json()
        assert (answer["model"], answer["predictions"][0]["label"]) == ("imagenet", label)
