import copy
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from tests.training.small import options
from training.architectures.convolutional import ConvNet
from training.muon import orthogonal
from training.optimizers import build_optimizer

STEPS = 5


def moved(network: nn.Module, steps: int, **given: Any) -> nn.Module:
    """Return the network after so many steps on gradients that are drawn once for all."""
    optimizer = build_optimizer(network, options(optimizer="muon", learning_rate=0.01, weight_decay=0.5, **given))
    for step in range(steps):
        take(network, step, optimizer)
    return network


def take(network: nn.Module, number: int, optimizer: torch.optim.Optimizer) -> None:
    drawn = torch.Generator().manual_seed(number)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=drawn).to(parameter.data)
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


def test_orthogonal_rows_or_columns_come_out() -> None:
    for shape in ((5, 40), (40, 5), (7, 7)):
        values = torch.linalg.svdvals(
            orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(1))).float()
        )
        assert values.max() < 1.3
        assert values.median() > 0.6


def test_a_gradient_of_nothing_moves_nothing() -> None:
    assert not orthogonal(torch.zeros(3, 4)).any()


def test_what_looks_up_and_what_answers_is_left_to_adamw() -> None:
    def orthogonal_of(network: nn.Module) -> set[str]:
        groups = build_optimizer(network, options(optimizer="muon")).param_groups
        found = {id(one) for group in groups if group["orthogonal"] for one in group["params"]}
        return {name for name, parameter in network.named_parameters() if id(parameter) in found}

    of_images = orthogonal_of(ConvNet((1, 8, 8), 4, 2, widths=(2, 2, 2)))
    assert of_images == {*(f"features.{place}.weight" for place in (4, 7, 11, 14)), "head.1.weight"}
    of_texts = orthogonal_of(nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 2)))
    assert of_texts == {"1.weight"}


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
