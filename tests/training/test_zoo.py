import argparse
import re
from collections import OrderedDict
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import ResNet18_Weights

from training.architectures import zoo
from training.architectures.convolutional import ConvNet
from training.architectures.heads import head_name, replace_head
from training.architectures.prepared import Prepared
from training.architectures.weights import load_weights, plain_names, read_weights
from training.classifier import Classifier
from training.errors import OptionInvalid, UnknownArchitecture, WeightsUnavailable, WeightsUnfit
from training.export import Exported, script

MAX_PIXELS = 1_000_000
LABELS = 7


def build(arch: str, weights: zoo.Weights = "none", num_labels: int = LABELS) -> Prepared:
    return zoo.build(arch, num_labels, weights, MAX_PIXELS)


@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v3_small", "squeezenet1_1"])
def test_the_exported_graph_gives_the_eager_scores(arch: str) -> None:
    torch.manual_seed(0)
    prepared = build(arch)
    eager = Classifier(prepared.network, prepared.mean_C, prepared.std_C).eval()
    images_NCHW = torch.randint(0, 256, (2, *prepared.decoding.shape_CHW), dtype=torch.uint8)
    with torch.inference_mode():
        expected_NK = eager(images_NCHW)
    assert expected_NK.shape == (2, LABELS)
    assert torch.equal(Exported(script(eager)).scores(images_NCHW), expected_NK)


@pytest.mark.parametrize("arch", ["googlenet", "inception_v3"])
def test_inception_gives_logits_alone_scripted_or_not(arch: str) -> None:
    torch.manual_seed(0)
    network = zoo._network(arch, LABELS, init_weights=False)
    eager = Classifier(network, torch.zeros(3), torch.ones(3)).eval()
    images_NCHW = torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8)
    with torch.inference_mode():
        expected_NK = eager(images_NCHW)
    assert expected_NK.shape == (1, LABELS)
    assert torch.equal(Exported(script(eager)).scores(images_NCHW), expected_NK)


FAMILIES = (
    *("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "maxvit_t"),
    *("mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_1"),
    *("swin_t", "swin_v2_t", "vgg11", "vit_b_32"),
)


@pytest.mark.parametrize("arch", FAMILIES)
def test_every_family_gets_a_new_head(arch: str) -> None:
    # Without memory: only the shapes matter, and the weights would take gigabytes.
    with torch.device("meta"):
        network = zoo._network(arch, 1000, init_weights=False).eval()
        replace_head(network, LABELS)
        size = models.get_model_weights(arch).DEFAULT.transforms().crop_size[0]
        assert network(torch.rand(1, 3, size, size)).shape == (1, LABELS)


def test_regnet_gets_a_new_head_too() -> None:
    # On its own: it reads its widths from tensors, which must have memory.
    network = build("regnet_x_400mf", num_labels=1000).network.eval()
    replace_head(network, LABELS)
    assert network(torch.rand(1, 3, 64, 64)).shape == (1, LABELS)


def test_our_own_network_gets_a_new_head_too() -> None:
    network = ConvNet((1, 8, 8), 16, 10)
    assert head_name(network) == "head.3"
    replace_head(network, 3)
    assert network.eval()(torch.rand(2, 1, 8, 8)).shape == (2, 3)


def test_a_network_without_a_known_head_is_refused() -> None:
    with pytest.raises(ValueError, match="Sequential has no last layer in fc, classifier"):
        replace_head(nn.Sequential(nn.Linear(2, 2)), 3)


def test_preprocessing_is_that_of_the_published_weights() -> None:
    prepared = build("efficientnet_b0")
    assert prepared.mean_C.tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert prepared.std_C.tolist() == pytest.approx([0.229, 0.224, 0.225])
    decoding = prepared.decoding
    assert (decoding.shape_CHW, decoding.fit, decoding.shorter_side) == ((3, 224, 224), "crop", 256)
    assert (decoding.interpolation, decoding.max_pixels) == ("bicubic", MAX_PIXELS)


def test_preprocessing_of_another_size_cuts_the_same_share_out() -> None:
    decoding = zoo.build("resnet18", LABELS, "none", MAX_PIXELS, size=64).decoding
    assert (decoding.size, decoding.fit, decoding.shorter_side) == ((64, 64), "crop", 73)


@pytest.mark.parametrize(("arch", "size"), [("vit_b_32", 64), ("maxvit_t", 448)])
def test_position_embeddings_are_for_the_size_that_was_asked_for(arch: str, size: int) -> None:
    with torch.device("meta"):
        network = zoo._network(arch, LABELS, init_weights=False, size=size).eval()
        assert network(torch.rand(1, 3, size, size)).shape == (1, LABELS)
    with pytest.raises(OptionInvalid, match=f"--size {size + 1}: {arch} takes none such"):
        build_of_size(arch, size + 1)


def build_of_size(arch: str, size: int) -> Prepared:
    return zoo.build(arch, LABELS, "none", MAX_PIXELS, size)


def test_an_unknown_architecture_is_refused_by_name() -> None:
    with pytest.raises(UnknownArchitecture, match=r"no classifier 'resnet19'; it has alexnet, .*resnet18"):
        build("resnet19")


def saved(folder: Path, content: object) -> Path:
    torch.save(content, folder / "weights.pth")
    return folder / "weights.pth"


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(1)
    network = build("squeezenet1_1").network
    return dict(network.state_dict())


def same(network: nn.Module, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state_dict"])
def test_a_state_dict_is_loaded_however_it_was_saved(
    tmp_path: Path, state: dict[str, Tensor], prefix: str, wrapper: str | None
) -> None:
    renamed = OrderedDict((prefix + name, tensor) for name, tensor in state.items())
    checkpoint: object = renamed if wrapper is None else {"epoch": 3, wrapper: renamed}
    assert same(build("squeezenet1_1", saved(tmp_path, checkpoint)).network, state)


def test_a_checkpoint_of_torchvisions_own_script_is_loaded(tmp_path: Path, state: dict[str, Tensor]) -> None:
    checkpoint = {"model": state, "epoch": 3, "args": argparse.Namespace(lr=0.1, data_path="/data", amp=False)}
    assert same(build("squeezenet1_1", saved(tmp_path, checkpoint)).network, state)


@pytest.mark.parametrize("prefix", ["backbone.", "model.net.", "module.encoder."])
def test_what_stands_before_every_name_is_left_out(tmp_path: Path, state: dict[str, Tensor], prefix: str) -> None:
    renamed = {prefix + name: tensor for name, tensor in state.items()}
    assert same(build("squeezenet1_1", saved(tmp_path, renamed)).network, state)
    with pytest.raises(WeightsUnfit, match=r"its head .* is for 7 labels, and there are 9"):
        build("squeezenet1_1", saved(tmp_path, renamed), num_labels=9)


def test_a_part_that_was_wrapped_by_itself_is_loaded(tmp_path: Path, state: dict[str, Tensor]) -> None:
    renamed = {name.replace("features.", "features.module."): tensor for name, tensor in state.items()}
    assert same(build("squeezenet1_1", saved(tmp_path, renamed)).network, state)


def test_names_that_have_nothing_in_common_with_the_networks_are_told(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    changed = {f"a.{name}.b": tensor for name, tensor in state.items()} | {"c": torch.zeros(1)}
    with pytest.raises(WeightsUnfit, match=r"missing features.* and \d+ more; unexpected a\.features"):
        build("squeezenet1_1", saved(tmp_path, changed))


SMALL_NETWORKS = {
    "densenet": lambda: models.DenseNet(4, (1, 2), 8, num_classes=LABELS),
    "mnasnet": lambda: models.MNASNet(0.5, LABELS),
    "vit": lambda: models.VisionTransformer(32, 16, 1, 2, 8, 16, num_classes=LABELS),
}


@pytest.mark.parametrize("family", SMALL_NETWORKS)
def test_names_of_older_versions_are_known(family: str) -> None:
    network, other = SMALL_NETWORKS[family](), SMALL_NETWORKS[family]()
    older = {older_name(name): tensor for name, tensor in other.state_dict().items()}
    uncounted = {name: tensor for name, tensor in older.items() if not name.endswith("num_batches_tracked")}
    load_weights(network, plain_names(uncounted), "an older file")
    assert same(network, other.state_dict())


def older_name(name: str) -> str:
    if "denselayer" in name:
        return re.sub(r"\.(norm|conv)([12])\.", r".\1.\2.", name)
    return name.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2.")


def test_auxiliary_classifiers_are_left_out(tmp_path: Path) -> None:
    network = models.googlenet(num_classes=LABELS, aux_logits=True, init_weights=False)
    assert any(name.startswith("aux1.") for name in network.state_dict())
    loaded = build("googlenet", saved(tmp_path, network.state_dict())).network
    assert same(loaded, dict(network.state_dict()))


def test_a_head_for_other_labels_is_named(tmp_path: Path, state: dict[str, Tensor]) -> None:
    with pytest.raises(WeightsUnfit, match=r"its head classifier\.1 is for 7 labels, and there are 9"):
        build("squeezenet1_1", saved(tmp_path, state), num_labels=9)


def test_missing_and_unexpected_tensors_are_named(tmp_path: Path, state: dict[str, Tensor]) -> None:
    changed = {name: tensor for name, tensor in state.items() if not name.startswith("features.0.")}
    changed["surplus"] = torch.zeros(1)
    wanted = r"does not fit SqueezeNet: missing features\.0\.weight, features\.0\.bias; unexpected surplus"
    with pytest.raises(WeightsUnfit, match=wanted):
        build("squeezenet1_1", saved(tmp_path, changed))


def test_tensors_of_another_shape_are_named(tmp_path: Path, state: dict[str, Tensor]) -> None:
    changed = state | {"features.0.weight": torch.zeros(64, 1, 3, 3)}
    with pytest.raises(WeightsUnfit, match=r"features\.0\.weight is 64 x 1 x 3 x 3, not 64 x 3 x 3 x 3"):
        build("squeezenet1_1", saved(tmp_path, changed))


def test_weights_of_another_architecture_name_a_few(tmp_path: Path, state: dict[str, Tensor]) -> None:
    with pytest.raises(
        WeightsUnfit, match=r"does not fit ResNet: missing conv1\.weight, .* and \d+ more; unexpected"
    ):
        build("resnet18", saved(tmp_path, state))


@pytest.mark.parametrize("content", [{}, [1, 2], {"epoch": 3, "lr": 0.1}, {"state_dict": {"a": 1}}])
def test_a_file_without_a_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(WeightsUnfit, match="state dict"):
        read_weights(saved(tmp_path, content))


def test_a_pickled_module_is_refused_unread(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnfit, match="not a state dict of tensors alone"):
        read_weights(saved(tmp_path, nn.Linear(1, 1)))


@pytest.mark.parametrize("content", [b"", b"neither a zip nor a pickle"])
def test_a_file_of_anything_else_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(WeightsUnfit, match="not a state dict"):
        read_weights(tmp_path / "weights.pth")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailable, match="No such file"):
        build("resnet18", tmp_path / "none.pth")


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Stands in for what torchvision would download for ResNet-18."""
    torch.manual_seed(2)
    weights: dict[str, Tensor] = models.resnet18().state_dict()
    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", lambda *_, **__: weights)
    return weights


def test_default_weights_keep_their_head_for_as_many_labels(published: dict[str, Tensor]) -> None:
    assert same(build("resnet18", "DEFAULT", num_labels=1000).network, published)


def test_default_weights_get_a_new_head_for_other_labels(published: dict[str, Tensor]) -> None:
    network = build("resnet18", "DEFAULT").network
    assert network.state_dict()["fc.weight"].shape == (LABELS, 512)
    assert torch.equal(network.state_dict()["conv1.weight"], published["conv1.weight"])


def test_weights_that_cannot_be_downloaded_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise URLError("the network is unreachable")

    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", unreachable)
    with pytest.raises(WeightsUnavailable, match=r"ResNet18_Weights.* cannot be downloaded: .*unreachable"):
        build("resnet18", "DEFAULT")
