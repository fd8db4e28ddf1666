"""The networks by name: built for the images they get, or refused in one line before anything is read."""

from pathlib import Path

import pytest
import torch
from torch import nn

from models.tokenization import Tokenizer
from training.architectures.catalogue import SIZED_BY, TEXTS, check_name, image_network, text_network, unused
from training.architectures.convolutional import ConvNet
from training.commands import ImageFolderOptions, TextTableOptions
from training.errors import OptionInvalid
from training.tokenizing import train_tokenizer


def options(arch: str) -> ImageFolderOptions:
    return ImageFolderOptions(name="own", data=Path("nowhere"), arch=arch)


@pytest.mark.parametrize(("arch", "size"), [("vit_b_32", 64), ("resnet18", 40), ("efficientnet_lite0", 24)])
def test_a_network_takes_images_of_the_size_that_was_asked_for(arch: str, size: int) -> None:
    network = image_network((3, size, size), 3, options(arch))
    assert network.training
    assert network.eval()(torch.rand(2, 3, size, size)).shape == (2, 3)


@pytest.mark.parametrize(
    ("arch", "size", "reason"),
    [
        ("alexnet", 32, "cannot take images of 32 x 32 pixels: .*too small"),
        ("inception_v3", 64, "cannot take images of 64 x 64 pixels: .*Kernel size"),
        ("maxvit_t", 64, "not divisible by partition size"),
        ("vit_b_32", 65, "indivisible by patch size"),
    ],
)
def test_images_of_a_size_that_a_network_cannot_take_are_refused(arch: str, size: int, reason: str) -> None:
    with pytest.raises(OptionInvalid, match=f"--size {size}: {arch} .*{reason}") as stopped:
        image_network((3, size, size), 3, options(arch))
    assert "\n" not in str(stopped.value)


def test_what_sizes_other_networks_is_named() -> None:
    given = {"hidden_size", "dropout", "heads", "layers", "epochs"}
    assert unused("transformer", given) == ["hidden_size"]
    assert unused("convnet", given) == ["dropout", "layers", "heads"]
    assert unused("seq2seq", given) == []
    assert unused("resnet18", {"epochs", "dim"}) == ["dim"]


@pytest.mark.parametrize(("arch", "option"), [(arch, option) for option in SIZED_BY for arch in TEXTS])
def test_every_option_that_sizes_a_network_changes_it(arch: str, option: str) -> None:
    rules = Tokenizer(train_tokenizer(["a few words of a text"], "words", 100, lowercase=True))
    other = {"hidden_size": 12, "dropout": 0.4, "dim": 12, "layers": 3, "heads": 1}[option]
    sizes = {"hidden_size": 8, "dropout": 0.1, "dim": 8, "layers": 2, "heads": 2}
    networks = [
        repr(
            _state(text_network(rules, 2, TextTableOptions(name="own", data=Path("nowhere"), arch=arch, **given)))
        )
        for given in (sizes, sizes | {option: other})
    ]
    assert (networks[0] != networks[1]) == (not unused(arch, {option}))


def _state(network: nn.Module) -> list[object]:
    """What a network is, but for its weights: shapes, and every plain number of its parts."""
    shapes = [(name, tuple(tensor.shape)) for name, tensor in network.state_dict().items()]
    numbers = [
        (name, field, value)
        for name, part in network.named_modules()
        for field, value in vars(part).items()
        if isinstance(value, int | float)
    ]
    return [*shapes, *numbers]


def test_trying_a_network_changes_neither_its_weights_nor_what_is_drawn_next() -> None:
    torch.manual_seed(0)
    plain = ConvNet((1, 12, 12), 128, 3)
    drawn = torch.rand(3)
    torch.manual_seed(0)
    network = image_network((1, 12, 12), 3, options("convnet"))
    assert torch.equal(torch.rand(3), drawn)
    state = network.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in plain.state_dict().items())


@pytest.mark.parametrize("arch", ["resnet18", "efficientnet_lite0"])
def test_grey_images_for_a_network_of_colour_are_refused(arch: str) -> None:
    with pytest.raises(OptionInvalid, match=f"--arch {arch}: it takes images in colour, and these are grey$"):
        image_network((1, 64, 64), 3, options(arch))


def test_a_name_that_stands_for_nothing_is_refused_with_those_there_are() -> None:
    with pytest.raises(OptionInvalid, match=r"--arch: no 'convent'; there are convnet, resnet, .*vit_b_16"):
        image_network((3, 64, 64), 3, options("convent"))
    with pytest.raises(OptionInvalid, match="--arch: no 'bagg'; there are bag, lstm"):
        check_name("bagg", TEXTS)
