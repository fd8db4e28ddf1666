"""Scores that say how often a model is right, fitted on the validation part. Axes: N examples, K labels."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import LBFGS

# More would make the last bits of another machine's sums count.
SCALES = (0.1, 10.0)
LARGEST_OFFSET = 50.0
# A score of exactly 1 has no log-odds; this one is as good as certain.
MOST_CERTAIN = 1 - 1e-6


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
    """Return scale and offset of the log-odds of scores, with which they likeliest are the share of right answers.

    For answers that are not chosen among labels, such as texts: of these a model's scores say which is better, but
    not how many are right. A larger score stays the larger one, and few answers move little, as above.

    Args:
        log_scores_N: Logarithms of the model's scores of held-out answers, at most 0.
        right_N: Whether each was right, bool.

    Returns:
        A scale between 0.1 and 10 and an offset between -50 and 50, for `confidence`.

    Source: Platt, "Probabilistic outputs for support vector machines", 1999, section 2.2, with the log-odds of the
    score for the machine's output; that the two-parameter form fits scores is Kull et al., "Beta calibration",
    2017, section 3.
    """
    N, right = len(right_N), int(right_N.sum())
    target_N = torch.where(right_N, (right + 1) / (right + 2), 1 / (N - right + 2)).double()
    log_odds_N = log_odds(log_scores_N.double())
    log_scale, offset = (torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in range(2))

    def loss() -> Tensor:
        # Within bounds also while it is sought.
        scale = log_scale.clamp(*map(math.log, SCALES)).exp()
        likelihood = F.binary_cross_entropy_with_logits(scale * log_odds_N + offset, target_N)
        return likelihood + log_scale.square() / (2 * N)

    _minimise(loss, log_scale, offset)
    scale = log_scale.detach().nan_to_num(0.0).exp().clamp(*SCALES)
    return float(scale), float(offset.detach().nan_to_num(0.0).clamp(-LARGEST_OFFSET, LARGEST_OFFSET))


def log_odds(log_scores: Tensor) -> Tensor:
    """Return the logarithms of score / (1 - score), of any shape; a score of 1 counts as just below."""
    return log_scores - torch.log1p(-log_scores.exp().clamp(max=MOST_CERTAIN))


def _minimise(loss_of: Callable[[], Tensor], *parameters: Tensor) -> None:
    optimizer = LBFGS(parameters, max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        return loss

    optimizer.step(closure)
