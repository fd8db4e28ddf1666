"""Every architecture by name, and how it is sized by the options."""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import torch
from torch import nn

from models.tokenization import Tokenizer
from training.architectures.bag import Bag
from training.architectures.character_bag import CharacterBag
from training.architectures.committee import Committee
from training.architectures.convolutional import ConvNet
from training.architectures.efficientnet_lite import EfficientNetLite0
from training.architectures.naive_bayes import NaiveBayes
from training.architectures.recurrent import Recurrent
from training.architectures.residual import ResNet
from training.architectures.seq2seq import Seq2Seq
from training.architectures.transformer import TransformerClassifier
from training.config import ImageOptions, Seq2SeqOptions, TextOptions
from training.errors import OptionInvalid

CHARACTER_DIM = 8
# The table of counts has an entry for each pair's bucket and label.
MOST_COUNTS = 1_000_000
LEAST_BUCKETS = 10_000

IMAGES: Mapping[str, str] = {
    "convnet": "convolution blocks, pooling, a fully connected head",
    "resnet": "a small residual network, for images of a few dozen pixels",
    "efficientnet_lite0": "EfficientNet-Lite0, for photographs; --pretrained brings ImageNet's weights",
}
TEXTS: Mapping[str, str] = {
    "bag": "a bag of n-gram embeddings, the baseline",
    "lstm": "a bidirectional LSTM, pooled over the text",
    "gru": "a bidirectional GRU, pooled over the text",
    "transformer": "a pre-norm Transformer encoder, pooled over the text",
    "committee": "an LSTM, a bag of character n-grams and naive Bayes over word pairs, summed",
}
SEQUENCES: Mapping[str, str] = {
    "seq2seq": "an encoder-decoder Transformer, with its greedy and beam search in the graph",
}
# Options that size a network -> the architectures that take them.
SIZED_BY: Mapping[str, Collection[str]] = {
    "hidden_size": ("convnet", "lstm", "gru", "committee", *SEQUENCES),
    "dropout": (*TEXTS, *SEQUENCES),
    "dim": (*TEXTS, *SEQUENCES),
    "layers": ("lstm", "gru", "transformer", "committee", *SEQUENCES),
    "heads": ("transformer", *SEQUENCES),
}


def unused(arch: str, given: Collection[str]) -> Sequence[str]:
    """Return those of the given options that size other architectures, and not this one."""
    return [option for option, takers in SIZED_BY.items() if option in given and arch not in takers]


def image_network(input_size: tuple[int, int, int], num_labels: int, options: ImageOptions) -> nn.Module:
    """Build the network that the options name.

    Args:
        input_size: (channels, height, width) of the images.
        num_labels: Number of labels.
        options: Name the architecture.

    Raises:
        OptionInvalid: There is none of that name, or it does not take such images.
    """
    network = _image_network(input_size, num_labels, options)
    _try(network, input_size, options.arch)
    return network


def check_name(arch: str, known: Collection[str]) -> None:
    """Refuse a name that stands for nothing; before the data are read, for that may take long.

    Raises:
        OptionInvalid: Naming what there is.
    """
    if arch not in known:
        raise OptionInvalid(f"--arch: no {arch!r}; there are {', '.join(known)}")


def _image_network(input_size: tuple[int, int, int], num_labels: int, options: ImageOptions) -> nn.Module:
    try:
        match options.arch:
            case "convnet":
                return ConvNet(input_size, options.hidden_size, num_labels)
            case "resnet":
                return ResNet(input_size, num_labels)
            case "efficientnet_lite0":
                _check_colour(input_size, options.arch)
                return EfficientNetLite0(num_labels)
    except ValueError as error:
        raise OptionInvalid(f"--arch {options.arch}: {error}") from error
    # Imported when asked for: torchvision's models take seconds to import.
    from training.architectures import zoo

    check_name(options.arch, [*IMAGES, *zoo.names()])
    _check_colour(input_size, options.arch)
    return zoo.build(options.arch, num_labels, "none", max_pixels=1, size=input_size[1]).network


def _try(network: nn.Module, input_size: tuple[int, int, int], arch: str) -> None:
    """Refuse a network that fails on images of that size, as many do on small ones, each in a layer of its own."""
    try:
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            network.eval()(torch.zeros(2, *input_size))
    except Exception as error:  # The layers raise what they please.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        _, H, W = input_size
        raise OptionInvalid(f"--size {H}: {arch} cannot take images of {H} x {W} pixels: {reason}") from error
    network.train()


def text_network(rules: Tokenizer, num_labels: int, options: TextOptions) -> nn.Module:
    """Build the network that the options name.

    Args:
        rules: The tokenizer whose tokens it reads.
        num_labels: Number of labels.
        options: Name the architecture.

    Raises:
        OptionInvalid: There is none of that name, or its sizes do not go together.
    """
    check_name(options.arch, TEXTS)
    vocabulary, dim, layers, dropout = rules.size, options.dim, options.layers, options.dropout
    try:
        match options.arch:
            case "bag":
                return Bag(vocabulary, num_labels, dim=dim, dropout=dropout)
            case "lstm" | "gru" as cell:
                return _recurrent(cell, vocabulary, num_labels, options)
            case "committee":
                return Committee(
                    _recurrent("lstm", vocabulary, num_labels, options),
                    CharacterBag(rules.vocabulary, num_labels, dim=CHARACTER_DIM, dropout=dropout),
                    NaiveBayes(vocabulary, num_labels, buckets=max(MOST_COUNTS // num_labels, LEAST_BUCKETS)),
                )
            case "transformer":
                return TransformerClassifier(
                    vocabulary, num_labels, dim=dim, heads=options.heads, layers=layers, dropout=dropout
                )
    except ValueError as error:
        raise OptionInvalid(f"--arch {options.arch}: {error}") from error
    raise AssertionError(f"{options.arch} is in the table, and is not built")


def _recurrent(cell: Literal["lstm", "gru"], vocabulary: int, num_labels: int, options: TextOptions) -> Recurrent:
    return Recurrent(
        cell,
        vocabulary,
        num_labels,
        dim=options.dim,
        hidden_size=options.hidden_size,
        layers=options.layers,
        dropout=options.dropout,
    )


def sequence_network(source_vocabulary: int, target_vocabulary: int, options: Seq2SeqOptions) -> Seq2Seq:
    """Build the network that the options name.

    Raises:
        OptionInvalid: There is none of that name, or its sizes do not go together.
    """
    check_name(options.arch, SEQUENCES)
    try:
        return Seq2Seq(
            source_vocabulary,
            target_vocabulary,
            dim=options.dim,
            heads=options.heads,
            layers=options.layers,
            hidden=options.hidden_size,
            dropout=options.dropout,
            max_steps=options.max_steps,
            beams=options.beams,
            length_power=options.length_power,
        )
    except ValueError as error:
        raise OptionInvalid(f"--arch {options.arch}: {error}") from error


def _check_colour(input_size: tuple[int, int, int], arch: str) -> None:
    if input_size[0] != 3:
        raise OptionInvalid(f"--arch {arch}: it takes images in colour, and these are grey")
