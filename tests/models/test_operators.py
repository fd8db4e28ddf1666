"""The list of operators: what honest models come to is on it, and nothing that reaches out. Axes: NCHW, L, D."""

import io
import math
import warnings
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from models.operators import OPERATORS, QUANTIZED_CLASSES, parse_operators
from models.torchscript_scan import check_operators
from tests.archives import saved


def test_every_name_on_the_list_is_an_operator_of_torch() -> None:
    assert torchvision.extension._has_ops()  # Its own are registered once it is imported.
    assert [name for name in sorted(OPERATORS) if not torch._C._jit_get_schemas_for_operator(name)] == []


def test_no_operator_on_the_list_is_told_a_file_or_gives_a_thread() -> None:
    for name in OPERATORS:
        for schema in torch._C._jit_get_schemas_for_operator(name):
            texts = {each.name for each in schema.arguments if "str" in str(each.type)}
            assert not texts & {"file", "filename", "path", "url"}, name
            assert not [each for each in schema.returns if "Future" in str(each.type)], name


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", set()),
        ("aten::save", {"aten::save"}),
        (" prim::fork, aten::wait ,", {"prim::fork", "aten::wait"}),
        ("classes::quantized.LinearPackedParamsBase", {"classes::quantized.LinearPackedParamsBase"}),
    ],
)
def test_operators_are_read_with_commas_between(text: str, names: set[str]) -> None:
    assert parse_operators(text) == names


@pytest.mark.parametrize("text", ["*", "aten::*", "save", "torch.save", "aten::", "::save", "aten::a;", "a b::c"])
def test_what_names_no_single_operator_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no operator's name, as aten::save is"):
        parse_operators(text)


IMAGE_NCHW = torch.rand(1, 3, 64, 64)


def of_torchvision(name: str) -> nn.Module:
    network: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=3).eval()
    return network


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "efficientnet_b0", "swin_t", "regnet_y_400mf"]
)
def test_a_classifier_of_torchvision_passes(name: str) -> None:
    check_operators(saved(of_torchvision(name)))


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small"])
def test_a_traced_classifier_passes(name: str) -> None:
    check_operators(saved(torch.jit.trace(of_torchvision(name), IMAGE_NCHW)))


def test_a_detector_passes() -> None:
    detector = torchvision.models.detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    check_operators(saved(detector.eval()))


def test_a_frozen_model_passes() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Hardswish(), nn.Flatten())
    check_operators(saved(torch.jit.freeze(torch.jit.script(layers.eval()))))


class Sequences(nn.Module):
    """What reads sequences, and the shortcuts that torch takes in them."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.embedding = nn.Embedding(10, 8)
        self.encoder = nn.TransformerEncoder(layer, 1)
        self.lstm = nn.LSTM(8, 8, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(16, 8, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.cell = nn.LSTMCell(8, 8)

    def forward(self, tokens_NL: Tensor) -> Tensor:
        padding_NL = tokens_NL == 0
        encoded_NLD = self.encoder(self.embedding(tokens_NL), src_key_padding_mask=padding_NL)
        lengths_N = (~padding_NL).sum(1).cpu()
        packed = pack_padded_sequence(encoded_NLD, lengths_N, batch_first=True, enforce_sorted=False)
        read_NLD, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        read_NLD, _ = self.gru(read_NLD)
        read_NLD, _ = self.attention(read_NLD, read_NLD, read_NLD)
        state_ND, _ = self.cell(read_NLD[:, 0])
        return F.log_softmax(state_ND, dim=1)


def test_layers_that_read_sequences_pass() -> None:
    check_operators(saved(Sequences().eval()))
    check_operators(saved(Sequences().train()))


class Kind(Enum):
    ROUND = 1
    SQUARE = 2


class Found(NamedTuple):
    scores: Tensor
    total: int


class Language(nn.Module):
    """What Python's own words come to."""

    names: dict[str, int]

    def __init__(self) -> None:
        super().__init__()
        self.kind = Kind.ROUND
        self.names = {"a": 1}
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.numbers = [1.0, float("inf")]
        self.greeting = "h\u00e9llo # type: ignore"

    def forward(self, x: Tensor, n: int = 3, name: str = "a") -> tuple[Tensor, str]:
        assert x.dim() > 0, f"{name} has no axis"
        if n > 100:
            raise ValueError(f"{n} is too much")
        counts: dict[str, int] = {}
        for key, value in self.names.items():
            counts[key] = value + len(key)
        if name in counts:
            counts.pop(name)
        squares = [i * i for i in range(n)]
        squares.sort(reverse=True)
        i = 0
        while i < n:
            i += 1
            if i == 2:
                continue
            x = x / math.sqrt(2.0) + squares[-1] // 2 % 3
        for layer in self.layers:
            x = layer(x)
        with torch.no_grad():
            x = x.to(torch.float32).contiguous() + torch.zeros_like(x)
        x[0] = 1.0
        x = x[:, None, ..., :2].squeeze(1)
        x = torch.where(x > 0, x, -x) ** 2
        if self.kind == Kind.ROUND and bool(x.sum() > 0):
            x = x * Kind.SQUARE.value
        found = Found(x, int(x.sum()))
        listed: list[float] = found.scores.flatten().tolist()
        print(listed, name.upper().split(","), found.total)  # noqa: T201 (models do)
        warnings.warn("an honest word", stacklevel=2)
        return found.scores + self.numbers[0], f"{n} {name}" + self.greeting


class Images(nn.Module):
    """What prepares images, and Fourier's own."""

    def forward(self, images_NCHW: Tensor) -> Tensor:
        small = F.interpolate(images_NCHW, size=[8, 8], mode="bicubic", antialias=True).clamp(0, 1)
        padded = F.pad(small, [1, 1, 1, 1], mode="reflect").flip(3).roll(1, 2)
        normalized = (padded - padded.mean((2, 3), keepdim=True)) / padded.std()
        spectrum = torch.fft.rfft2(normalized).abs()
        order = spectrum.flatten(1).topk(3)[1].sort(descending=True)[0]
        energy_N = torch.einsum("nk,nk->n", [order.float(), order.float()])
        return energy_N + F.dropout(torch.rand(1), 0.5, self.training)


@pytest.mark.parametrize("make", [Language, Images])
def test_what_an_honest_program_does_passes(make: Callable[[], nn.Module]) -> None:
    content = saved(make())
    check_operators(content)
    torch.jit.load(io.BytesIO(content))


def test_classes_of_c_are_not_on_the_list() -> None:
    assert not QUANTIZED_CLASSES & OPERATORS
    assert not [name for name in OPERATORS if name.startswith("classes::")]
