from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from training import imagenet
from training.architectures.efficientnet_lite import (
    EfficientNetLite0,
    StochasticDepth,
    from_published,
    inverted_residuals,
    same_padding,
)
from training.architectures.prepared import Prepared
from training.classifier import Classifier
from training.export import Exported, script


@pytest.fixture(scope="module")
def published() -> Prepared:
    """The real weights, from their package."""
    return imagenet.efficientnet_lite0(max_pixels=1_000_000)


def waves(size: int) -> Tensor:
    """An image that is the same on every machine."""
    grid = torch.arange(size, dtype=torch.float64) / size
    channels = [torch.sin(grid[:, None] * (5 + c) + grid[None, :] * (9 - 2 * c)) for c in range(3)]
    return torch.stack(channels)[None].float()


# Measured once with the reference: the module of the package efficientnet-lite-pytorch 0.1.0, in evaluation mode.
REFERENCE_TOP = 644
REFERENCE_LOGITS = [0.21059, 0.65273, -0.00858, -0.06495, 0.80862, 1.12312]


def test_the_published_weights_give_the_logits_of_the_reference(published: Prepared) -> None:
    with torch.inference_mode():
        logits_K = published.network(waves(224))[0]
    assert logits_K.argmax().item() == REFERENCE_TOP
    assert torch.allclose(logits_K[:6], torch.tensor(REFERENCE_LOGITS), atol=1e-4)


def test_preprocessing_is_the_published_one(published: Prepared) -> None:
    assert torch.allclose(published.mean_C * 255, torch.full((3,), 127.0))
    assert torch.allclose(published.std_C * 255, torch.full((3,), 128.0))
    assert published.decoding.shape_CHW == (3, 224, 224)
    assert published.decoding.shorter_side == 256


def test_there_are_a_thousand_labels_no_two_the_same() -> None:
    labels = imagenet.labels()
    assert len(set(labels)) == len(labels) == 1000
    assert (labels[985], labels[698], labels[134], labels[517]) == ("daisy", "palace", "crane bird", "crane")


@pytest.mark.parametrize(("height", "width"), [(224, 224), (97, 65), (33, 64), (1, 1)])
def test_any_size_gives_one_logit_a_label(height: int, width: int) -> None:
    network = EfficientNetLite0(num_labels=7).eval()
    with torch.inference_mode():
        assert network(torch.rand(2, 3, height, width)).shape == (2, 7)


def test_it_has_the_published_number_of_parameters() -> None:
    assert sum(parameter.numel() for parameter in EfficientNetLite0().parameters()) == 4_652_008


def test_the_resolution_halves_five_times() -> None:
    network = EfficientNetLite0().eval()
    with torch.inference_mode():
        features_NCHW = network.stem(torch.rand(1, 3, 96, 160))
        assert features_NCHW.shape == (1, 32, 48, 80)
        assert network.blocks(features_NCHW).shape == (1, 320, 3, 5)


@pytest.mark.parametrize(
    ("size", "kernel_size", "stride", "expected"),
    [
        (224, 3, 2, (0, 1)),
        (112, 5, 2, (1, 2)),
        (7, 3, 2, (1, 1)),
        (7, 5, 2, (2, 2)),
        (9, 5, 1, (2, 2)),
        (1, 1, 2, (0, 0)),
    ],
)
def test_padding_is_that_of_tensorflow(
    size: int, kernel_size: int, stride: int, expected: tuple[int, int]
) -> None:
    assert same_padding(size, kernel_size, stride) == expected


def test_the_exported_graph_gives_the_eager_scores() -> None:
    torch.manual_seed(0)
    eager = Classifier(EfficientNetLite0(num_labels=5), torch.full((3,), 0.5), torch.full((3,), 0.5)).eval()
    images_NCHW = torch.randint(0, 256, (3, 3, 65, 96), dtype=torch.uint8)
    with torch.inference_mode():
        expected_NK = eager(images_NCHW)
    assert torch.equal(Exported(script(eager)).scores(images_NCHW), expected_NK)


def test_every_parameter_is_trained() -> None:
    network = EfficientNetLite0(num_labels=3, stochastic_depth=0.0)
    network(torch.rand(4, 3, 64, 64)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_stochastic_depth_keeps_the_mean_and_is_off_in_evaluation() -> None:
    torch.manual_seed(0)
    ones_NCHW = torch.ones(20_000, 1, 1, 1)
    dropped_NCHW = StochasticDepth(0.2)(ones_NCHW)
    assert sorted(dropped_NCHW.unique().tolist()) == [0.0, 1.25]
    assert dropped_NCHW.mean().item() == pytest.approx(1, abs=0.02)
    assert torch.equal(StochasticDepth(0.2).eval()(ones_NCHW), ones_NCHW)


def test_first_weights_spread_as_published_and_know_the_groups() -> None:
    torch.manual_seed(0)
    network = EfficientNetLite0()
    for convolve in (module for module in network.modules() if isinstance(module, nn.Conv2d)):
        fan_out = convolve.kernel_size[0] * convolve.kernel_size[1] * convolve.out_channels / convolve.groups
        assert convolve.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.15)


def test_blocks_are_skipped_the_more_the_later_they_come() -> None:
    kept = [block.skip.kept for block in inverted_residuals(0.2)]
    assert kept[0] == 1
    assert kept[-1] == pytest.approx(0.8)
    steps = [first - second for first, second in pairwise(kept)]
    assert steps == pytest.approx([0.2 / 15] * 15)


def test_a_name_that_was_not_published_is_refused() -> None:
    with pytest.raises(KeyError, match=r"fc\.weight"):
        from_published({"fc.weight": torch.zeros(1)})
