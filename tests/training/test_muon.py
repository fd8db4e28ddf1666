import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from models.tokenization import Tokenizer
from tests.training.small import options
from training.architectures import zoo
from training.architectures.catalogue import text_network
from training.architectures.convolutional import ConvNet
from training.architectures.matrices import hidden_weights
from training.config import TextOptions
from training.muon import orthogonal
from training.optimizers import build_optimizer
from training.tokenizing import train_tokenizer

STEPS = 5


def moved(network: nn.Module, steps: int, **given: Any) -> nn.Module:
    """Return the network after so many steps on gradients that are drawn once for all."""
    fields = {"optimizer": "muon", "learning_rate": 0.01, "weight_decay": 0.5, "precision": "bf16"} | given
    optimizer = build_optimizer(network, options(**fields))
    for step in range(steps):
        take(network, step, optimizer)
    return network


def take(network: nn.Module, number: int, optimizer: torch.optim.Optimizer) -> None:
    drawn = torch.Generator().manual_seed(number)
    for parameter in network.parameters():
        drawn_of_its_shape = torch.randn(parameter.shape, generator=drawn)
        # In the order in memory that backward gives it: the weight's own.
        parameter.grad = torch.empty_like(parameter).copy_(drawn_of_its_shape)
    optimizer.step()


def perceptron() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 4), nn.ReLU(), nn.Linear(4, 3))


def test_hidden_matrices_move_as_torchs_muon_moves_them_and_the_rest_as_adamw() -> None:
    expected = perceptron()
    of = dict(expected.named_parameters())
    muon = torch.optim.Muon(
        [of["0.weight"], of["2.weight"]],
        lr=0.01,
        weight_decay=0.5,
        momentum=0.8,
        adjust_lr_fn="match_rms_adamw",
    )
    vectors = [of["0.bias"], of["2.bias"], of["4.bias"]]
    adamw = torch.optim.AdamW(
        [{"params": [of["4.weight"]], "weight_decay": 0.5}, {"params": vectors, "weight_decay": 0}], lr=0.01
    )
    for number in range(STEPS):
        take(expected, number, muon)
        adamw.step()
    for ours, theirs in zip(
        moved(perceptron(), STEPS, momentum=0.8).parameters(), expected.parameters(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_kernel_moves_as_the_matrix_of_its_rows() -> None:
    torch.manual_seed(0)
    kernels = nn.Sequential(nn.Conv2d(4, 6, 3, bias=False), nn.Conv2d(6, 2, 1, bias=False))
    rows = nn.Sequential(nn.Linear(36, 6, bias=False), nn.Linear(6, 2, bias=False))
    with torch.no_grad():
        for kernel, matrix in zip(kernels.parameters(), rows.parameters(), strict=True):
            matrix.copy_(kernel.flatten(1))
    moved(kernels.to(memory_format=torch.channels_last), STEPS)
    moved(rows, STEPS)
    # The sums are taken in another order, in bf16.
    torch.testing.assert_close(
        next(kernels.parameters()).flatten(1), next(rows.parameters()), rtol=0.02, atol=0.002
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_orthogonal_rows_or_columns_come_out(dtype: torch.dtype) -> None:
    for shape in ((5, 40), (40, 5), (7, 7)):
        found = orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(1)), dtype)
        assert found.dtype == dtype
        values = torch.linalg.svdvals(found.float())
        assert values.max() < 1.3
        assert values.median() > 0.6


def test_a_gradient_of_nothing_moves_nothing() -> None:
    assert not orthogonal(torch.zeros(3, 4), torch.float32).any()


@pytest.mark.parametrize(("precision", "expected"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_it_computes_in_the_precision_of_the_run(
    monkeypatch: pytest.MonkeyPatch, precision: str, expected: torch.dtype
) -> None:
    seen = set()

    def note(matrix_RC: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        seen.add(dtype)
        return orthogonal(matrix_RC, dtype)

    monkeypatch.setattr("training.muon.orthogonal", note)
    moved(perceptron(), 1, precision=precision)
    assert seen == {expected}


def test_the_schedule_and_the_share_of_a_layer_set_the_length_of_its_step() -> None:
    def distances(factor: float, first: float = 0.1) -> dict[str, float]:
        network, before = perceptron(), dict(perceptron().named_parameters())
        given = options(optimizer="muon", learning_rate=0.01, weight_decay=0)
        optimizer = build_optimizer(network, given, lambda name: first if name.startswith("0.") else 1.0)
        LambdaLR(optimizer, lambda _: factor)
        take(network, 0, optimizer)
        return {name: (each - before[name]).norm().item() for name, each in network.named_parameters()}

    whole, half, alike = distances(1.0), distances(0.5), distances(1.0, first=1.0)
    for name in whole:
        assert half[name] == pytest.approx(whole[name] / 2, rel=1e-3)
        share = 0.1 if name.startswith("0.") else 1.0
        assert whole[name] == pytest.approx(alike[name] * share, rel=1e-3)


def test_what_looks_up_what_answers_and_what_reads_apart_is_left_to_adamw() -> None:
    assert hidden_weights(ConvNet((1, 8, 8), 4, 2, widths=(2, 2, 2))) == {
        *(f"features.{place}.weight" for place in (4, 7, 11, 14)),
        "head.1.weight",
    }
    assert hidden_weights(nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 2))) == {"1.weight"}
    grouped = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, groups=2), nn.Linear(4, 2))
    assert hidden_weights(grouped) == {"0.weight"}


def test_every_member_of_a_committee_answers() -> None:
    rules = Tokenizer(train_tokenizer(["a few words"], "words", 100, lowercase=True))
    network = text_network(rules, 2, TextOptions(name="own", arch="committee", dim=8, hidden_size=8))
    # Both directions of the LSTM; neither its head nor that of the bag.
    assert hidden_weights(network) == {
        f"recurrent.network.weight_{of}_l0{direction}" for of in ("ih", "hh") for direction in ("", "_reverse")
    }


@pytest.mark.parametrize("arch", ["vit_b_32", "swin_t", "convnext_tiny"])
def test_tables_and_scales_of_torchvisions_networks_are_no_matrices(arch: str) -> None:
    with torch.device("meta"):
        network = zoo._network(arch, 10, init_weights=False)
    found = hidden_weights(network)
    assert found
    for name in found:
        assert "position" not in name
        assert "pos_embedding" not in name
        assert "scale" not in name
    muon = build_optimizer(network, options(optimizer="muon", weight_decay=0.5))
    decayed = {id(one) for group in muon.param_groups if group["weight_decay"] for one in group["params"]}
    assert not any("scale" in name for name, each in network.named_parameters() if id(each) in decayed)


def test_a_copy_goes_on_alike() -> None:
    network = perceptron()
    optimizer = build_optimizer(network, options(optimizer="muon", momentum=0.7))
    other, other_optimizer = copy.deepcopy((network, optimizer))
    take(network, 0, optimizer)
    take(other, 0, other_optimizer)
    for one, two in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_it_goes_on_from_its_saved_state_and_with_a_schedule() -> None:
    network = perceptron()
    optimizer = build_optimizer(network, options(optimizer="muon"))
    schedule = LambdaLR(optimizer, lambda step: 1 / (1 + step))
    take(network, 0, optimizer)
    schedule.step()
    other = copy.deepcopy(network)
    again = build_optimizer(other, options(optimizer="muon"))
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    take(network, 1, optimizer)
    take(other, 1, again)
    for one, two in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
