import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from training.architectures.residual import Residual, ResNet
from training.export import Exported, script


def network(channels: int = 1, num_labels: int = 5) -> ResNet:
    torch.manual_seed(0)
    return ResNet((channels, 12, 12), num_labels, width=4).eval()


default = network()
exported = Exported(script(network()))


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(8, 40), st.integers(8, 40), st.integers(1, 3), st.integers(2, 12))
def test_any_input_size_gives_one_logit_a_label(
    channels: int, height: int, width: int, N: int, num_labels: int
) -> None:
    resnet = ResNet((channels, height, width), num_labels, width=4).eval()
    assert resnet(torch.rand(N, channels, height, width)).shape == (N, num_labels)


@pytest.mark.parametrize("size", [(1, 7, 28), (3, 28, 7), (1, 1, 1)])
def test_an_image_too_small_to_be_halved_three_times_is_refused(size: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=f"input_size: {size[1]} x {size[2]} is too small"):
        ResNet(size, 10)


def test_each_stage_doubles_the_channels_and_halves_the_sides() -> None:
    features = ResNet((3, 32, 32), 10).eval().features[:-1]
    assert features(torch.rand(1, 3, 32, 32)).shape == (1, 256, 4, 4)


def test_a_residual_block_that_adds_nothing_is_the_identity() -> None:
    block = Residual(4).eval()
    features_NCHW = torch.randn(2, 4, 6, 6)
    assert block(features_NCHW).shape == features_NCHW.shape
    assert not torch.equal(block(features_NCHW), features_NCHW)
    for layer in block.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.zeros_(layer.weight)
    assert torch.equal(block(features_NCHW), features_NCHW)


def test_every_parameter_is_trained() -> None:
    resnet = network().train()
    cross_entropy(resnet(torch.rand(4, 1, 12, 12)), torch.tensor([0, 1, 2, 3])).backward()
    for name, parameter in resnet.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@settings(max_examples=20)
@given(st.integers(1, 6), st.integers(8, 30), st.integers(8, 30))
def test_the_exported_graph_gives_the_eager_logits(N: int, height: int, width: int) -> None:
    images_NCHW = torch.rand(N, 1, height, width, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected_NK = default(images_NCHW)
    assert torch.allclose(exported.scores(images_NCHW), expected_NK, atol=1e-5)


def test_neighbours_do_not_change_a_result() -> None:
    images_NCHW = torch.rand(3, 1, 12, 12)
    alone = [default(image_CHW[None]) for image_CHW in images_NCHW]
    assert torch.allclose(default(images_NCHW), torch.cat(alone), atol=1e-5)
