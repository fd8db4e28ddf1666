"""Scores -> labels: the best, and the best few. Axes: K labels."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from app.errors import InferenceFailed
from app.schemas import Prediction, ScoredLabel

logger = logging.getLogger(__name__)

DEFAULT_TOP_K = 5
DECIMALS = 6


def to_prediction(scores_K: Tensor, labels: Sequence[str], top_k: int) -> Prediction:
    """Name the labels of the largest scores.

    Args:
        scores_K: Calibrated probabilities, on the CPU.
        labels: The K names.
        top_k: How many to name; more than there are names them all.

    Raises:
        InferenceFailed: A score is not a number between 0 and 1.
    """
    if len(scores_K) != len(labels) or not bool(((scores_K >= 0) & (scores_K <= 1)).all()):
        logger.error("the model gave scores that are no probabilities: %s", scores_K.tolist()[:10])
        raise InferenceFailed("the model gave scores that are no probabilities")
    best = torch.topk(scores_K, min(top_k, len(labels)))
    top = [
        ScoredLabel(label=labels[index], score=round(score, DECIMALS))
        for score, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]
    return Prediction(label=top[0].label, score=top[0].score, top=top)
