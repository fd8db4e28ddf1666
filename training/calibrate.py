"""Temperature scaling: one number that makes the confidence match the accuracy.

Source: Guo et al., "On calibration of modern neural networks", arXiv:1706.04599, section 4.2.
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import LBFGS


def fit_temperature(logits_NK: Tensor, labels_N: Tensor) -> float:
    """Return the temperature that minimises the negative log-likelihood on held-out logits.

    Args:
        logits_NK: Of the validation set; the test set would flatter the calibration reported on it.
        labels_N: Their labels.

    Returns:
        A temperature between 0.05 and 20; dividing logits by it never changes which is largest. 1 if nothing is
        wrong: then the likelihood only grows as scores are sharpened, and a few examples cannot tell how far.
    """
    if (logits_NK.argmax(1) == labels_N).all():
        return 1.0
    logits_NK = logits_NK.double()
    log_temperature = torch.zeros((), dtype=torch.float64, device=logits_NK.device, requires_grad=True)
    optimizer = LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(logits_NK / log_temperature.exp(), labels_N)
        loss.backward()
        return loss

    optimizer.step(closure)
    # Logits that carry nothing have no best temperature: it would run off to infinity.
    return float(log_temperature.detach().nan_to_num(0.0).exp().clamp(0.05, 20.0))
