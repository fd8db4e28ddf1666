"""Muon: momentum, made orthogonal. Axes of a matrix: R rows, one an output; C columns."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

NEWTON_SCHULZ_STEPS = 5
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
LEAST_NORM = 1e-7
# The usual size of AdamW's updates: at this one the two take learning rates and decays of one order.
ADAMW_RMS = 0.2


class Muon(AdamW):
    """Muon for the groups that are marked `orthogonal`, AdamW for the others.

    A convolution's kernel counts as a matrix with a row for each output channel. torch has Muon for matrices only,
    and leaves the other parameters to a second optimizer; this is one, so it has one schedule and one state.

    Args:
        groups: As torch's optimizers take them, each with a bool `orthogonal`.
        lr: Learning rate; of AdamW's order, or a few times as large.
        momentum: Nesterov's, of the orthogonal groups.
        bf16: Make momentum orthogonal in bfloat16: the faster way where the processor has instructions for it, and
            many times slower where it has not.

    Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; the step's length from
    Liu et al., "Muon is scalable for LLM training", arXiv:2502.16982, equation 4.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, momentum: float, *, bf16: bool) -> None:
        super().__init__([{**group, "momentum": momentum, "bf16": bf16} for group in groups], lr=lr, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # noqa: ANN401 (torch's own)
        """Take a step; the gradients of the orthogonal groups are gone after it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["orthogonal"]:
                for parameter in group["params"]:
                    self._step_one(parameter, group)
        super().step()
        return loss

    def _step_one(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        gradient = parameter.grad
        if gradient is None:
            return
        state = self.state[parameter]
        if not state:
            # AdamW looks for its count in every state that it loads.
            state["step"] = torch.zeros(())
            state["momentum_buffer"] = torch.zeros_like(gradient)
        mean = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(mean, group["momentum"])
        update_RC = orthogonal(ahead.flatten(1), torch.bfloat16 if group["bf16"] else torch.float32)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update_RC.view_as(ahead), alpha=-group["lr"] * ADAMW_RMS * max(update_RC.shape) ** 0.5)
        parameter.grad = None  # Nothing is left to AdamW.


def orthogonal(matrix_RC: Tensor, dtype: torch.dtype) -> Tensor:
    """Return nearly the nearest matrix whose rows, or whose columns if those are fewer, are orthonormal.

    The iteration stops where all singular values lie between about 0.7 and 1.2, which is as good for this use.

    Returns:
        Of that type and the same shape.

    Source: Newton-Schulz iteration, with the coefficients of Jordan et al.
    """
    a, b, c = NEWTON_SCHULZ
    wide = matrix_RC.to(dtype)
    is_tall = matrix_RC.shape[0] > matrix_RC.shape[1]
    if is_tall:
        wide = wide.T
    wide = wide / wide.norm().clamp(min=LEAST_NORM)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.T if is_tall else wide
