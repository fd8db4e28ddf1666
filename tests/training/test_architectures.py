import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.architectures.convolutional import ConvNet
from training.classifier import Classifier, channel_statistics
from training.export import Exported, script


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(4, 70), st.integers(4, 70), st.integers(1, 40), st.integers(2, 12))
def test_any_input_size_gives_one_logit_a_label(
    channels: int, height: int, width: int, hidden_size: int, num_labels: int
) -> None:
    network = ConvNet((channels, height, width), hidden_size, num_labels, widths=(4, 6, 8)).eval()
    assert network(torch.rand(3, channels, height, width)).shape == (3, num_labels)


@pytest.mark.parametrize("size", [(1, 3, 28), (1, 28, 1)])
def test_an_image_too_small_to_be_halved_twice_is_refused(size: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="input_size"):
        ConvNet(size, 8, 10)


def test_every_parameter_is_trained() -> None:
    network = ConvNet((1, 28, 28), 16, 10)
    network(torch.rand(4, 1, 28, 28)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_hidden_size_sizes_the_head() -> None:
    head = ConvNet((1, 28, 28), 77, 10).head
    assert [tuple(layer.weight.shape) for layer in head if isinstance(layer, torch.nn.Linear)] == [
        (77, 1152),
        (10, 77),
    ]


def classifier(channels: int = 1) -> Classifier:
    torch.manual_seed(0)
    network = ConvNet((channels, 12, 12), 8, 5, widths=(4, 6, 8))
    return Classifier(network, torch.full((channels,), 0.3), torch.full((channels,), 0.2)).eval()


@pytest.mark.parametrize("channels", [1, 3])
def test_the_exported_graph_gives_the_eager_scores(channels: int) -> None:
    eager = classifier(channels)
    eager.temperature.fill_(2.5)
    images_NCHW = torch.randint(0, 256, (9, channels, 12, 12), dtype=torch.uint8)
    with torch.inference_mode():
        expected_NK = eager(images_NCHW)
    scores_NK = Exported(script(eager)).scores(images_NCHW)
    assert torch.equal(scores_NK, expected_NK)
    assert torch.allclose(scores_NK.sum(1), torch.ones(9))


def test_normalisation_and_temperature_are_in_the_graph() -> None:
    eager = classifier()
    images_NCHW = torch.randint(0, 256, (4, 1, 12, 12), dtype=torch.uint8)
    with torch.inference_mode():
        before_NK = eager(images_NCHW)
        assert torch.allclose(before_NK, eager.logits(images_NCHW).softmax(1))
        eager.temperature.fill_(3.0)
        assert torch.allclose(eager(images_NCHW), (eager.logits(images_NCHW) / 3).softmax(1))
        eager.mean_C11.fill_(0.9)
        assert not torch.allclose(eager(images_NCHW), before_NK)


@pytest.mark.parametrize("at_once", [1024, 7])
def test_channel_statistics_are_those_of_the_pixels(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.classifier.IMAGES_AT_ONCE", at_once)
    images_NCHW = torch.randint(0, 256, (50, 3, 6, 6), dtype=torch.uint8)
    mean_C, std_C = channel_statistics(images_NCHW)
    pixels = images_NCHW.double() / 255
    assert torch.allclose(mean_C.double(), pixels.mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(std_C.double(), pixels.std((0, 2, 3), correction=0), atol=1e-6)


def test_a_channel_without_contrast_does_not_divide_by_zero() -> None:
    _, std_C = channel_statistics(torch.full((4, 1, 3, 3), 7, dtype=torch.uint8))
    assert std_C.item() > 0
