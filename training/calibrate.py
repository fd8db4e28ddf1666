"""Scores that say how often a model is right, fitted on the validation part. Axes: N examples, K labels."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import LBFGS

# A ceiling of 0.95: near 1, where most models end, and not so near that its gradient is gone.
INITIAL_CEILING_LOGIT = 3.0
LEAST_CEILING = 0.001
# More would make the last bits of another machine's sums count.
POWERS = (0.1, 10.0)


def fit_temperature(logits_NK: Tensor, labels_N: Tensor) -> float:
    """Return the likeliest temperature of held-out logits.

    Few examples tell little, and move it little: before any is seen it is taken to lie within a factor of e of 1,
    and of the answers one more is taken to be wrong, and one more right, than were.

    Args:
        logits_NK: Of the validation set; the test set would flatter the calibration reported on it.
        labels_N: Their labels.

    Returns:
        A temperature between 0.05 and 20; dividing logits by it never changes which is largest.

    Source: Guo et al., "On calibration of modern neural networks", arXiv:1706.04599, section 4.2; the counts of
    one more are those of Platt, "Probabilistic outputs for support vector machines", 1999, section 2.2.
    """
    logits_NK = logits_NK.double()
    N, K = logits_NK.shape
    # torch spreads it over all labels, the right one too.
    smoothing = K / ((K - 1) * (N + 2))
    log_temperature = torch.zeros((), dtype=torch.float64, device=logits_NK.device, requires_grad=True)

    def loss() -> Tensor:
        cooled_NK = logits_NK / log_temperature.exp()
        likelihood = F.cross_entropy(cooled_NK, labels_N, label_smoothing=min(smoothing, 1.0))
        return likelihood + log_temperature.square() / (2 * N)

    _minimise(loss, log_temperature)
    return float(log_temperature.detach().nan_to_num(0.0).exp().clamp(0.05, 20.0))


def fit_confidence(log_scores_N: Tensor, right_N: Tensor) -> tuple[float, float]:
    """Return power and ceiling, of which `ceiling * score**power` is likeliest to be the share of right answers.

    For answers that are not chosen among labels, such as texts: of these a model's scores say which is better, but
    not how many are right. A larger score stays the larger one, and few answers move little, as above.

    Args:
        log_scores_N: Logarithms of the model's scores of held-out answers, at most 0.
        right_N: Whether each was right, bool.

    Returns:
        A power between 0.1 and 10 and a ceiling between 0.001 and 1.

    Source: likelihood and targets are those of Platt, section 2.2.
    """
    N, log_scores_N = len(right_N), log_scores_N.double()
    right = int(right_N.sum())
    target_N = torch.where(right_N, (right + 1) / (right + 2), 1 / (N - right + 2)).double()
    log_power = torch.zeros((), dtype=torch.float64, requires_grad=True)
    ceiling_logit = torch.full((), INITIAL_CEILING_LOGIT, dtype=torch.float64, requires_grad=True)

    def loss() -> Tensor:
        # Within bounds also while it is sought: no power is too large for scores of exactly 1.
        power = log_power.clamp(*map(math.log, POWERS)).exp()
        log_right_N = F.logsigmoid(ceiling_logit) + power * log_scores_N
        return F.binary_cross_entropy(log_right_N.exp(), target_N) + log_power.square() / (2 * N)

    _minimise(loss, log_power, ceiling_logit)
    power, ceiling = log_power.detach().nan_to_num(0.0).exp(), ceiling_logit.detach().sigmoid().nan_to_num(1.0)
    return float(power.clamp(*POWERS)), float(ceiling.clamp(min=LEAST_CEILING))


def _minimise(loss_of: Callable[[], Tensor], *parameters: Tensor) -> None:
    optimizer = LBFGS(parameters, max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        return loss

    optimizer.step(closure)
