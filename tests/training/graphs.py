"""What every network over rows of tokens has to hold, whatever it computes. Axes: N rows, L tokens, K labels."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

Scores = Callable[[Tensor], Tensor]


def assert_rows_stand_alone(
    network: Scores, tokens_NL: Tensor, lengths: Sequence[int], padding: int, atol: float
) -> None:
    """Neither padding nor neighbours change a row's result."""
    together_NK = network(pad(tokens_NL, [0, padding]))
    alone = [network(tokens_L[None, :length]) for tokens_L, length in zip(tokens_NL, lengths, strict=True)]
    assert torch.allclose(together_NK, torch.cat(alone), atol=atol)


def assert_gives_the_eager_logits(graph: Scores, eager: nn.Module, tokens_NL: Tensor, atol: float) -> None:
    with torch.inference_mode():
        expected_NK = eager(tokens_NL)
    assert torch.allclose(graph(tokens_NL), expected_NK, atol=atol)


def assert_everything_learned(network: nn.Module) -> None:
    """Every parameter has a gradient that moves it."""
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
