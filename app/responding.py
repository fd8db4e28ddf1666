"""Scores -> labels, tokens -> texts: the best, and the best few. Axes: K labels, B texts, T tokens."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from app.batching import Output
from app.errors import InferenceFailed
from app.inference import LoadedModel
from app.schemas import Prediction, ScoredLabel, ScoredText, WrittenText
from models.tokenization import Tokenizer

logger = logging.getLogger(__name__)

DEFAULT_TOP_K = 5
DECIMALS = 6


def to_answer(output: Output, loaded: LoadedModel, top_k: int) -> Prediction | WrittenText:
    """Say what a model's output for one item means.

    Args:
        output: As `loaded.infer` gave it.
        loaded: The model that gave it.
        top_k: How many labels or texts to give; more than there are gives them all.

    Raises:
        InferenceFailed: A score is not a number between 0 and 1.
    """
    if isinstance(output, Tensor):
        return to_prediction(output, loaded.bundle.manifest.labels, top_k)
    assert loaded.writer is not None, "the loader's own check: what gives tokens has it"  # noqa: S101
    return to_text(*output, loaded.writer, top_k)


def to_text(tokens_BT: Tensor, scores_B: Tensor, writer: Tokenizer, top_k: int) -> WrittenText:
    """Decode what a model wrote.

    Args:
        tokens_BT: int64, best first, on the CPU.
        scores_B: 0 to 1.
        writer: The model's own, for what it writes.
        top_k: How many texts to give.

    Raises:
        InferenceFailed: A score is not a number between 0 and 1.
    """
    _check_probabilities(scores_B)
    score_by_text: dict[str, float] = {}
    for tokens, score in zip(tokens_BT.tolist(), scores_B.tolist(), strict=True):
        # Where there are fewer texts than beams the rest is filler, of no probability.
        if score > 0 or not score_by_text:
            score_by_text.setdefault(writer.decode(tokens), round(score, DECIMALS))
    top = [ScoredText(text=text, score=score) for text, score in list(score_by_text.items())[:top_k]]
    return WrittenText(text=top[0].text, score=top[0].score, top=top)


def to_prediction(scores_K: Tensor, labels: Sequence[str], top_k: int) -> Prediction:
    """Name the labels of the largest scores.

    Args:
        scores_K: Calibrated probabilities, on the CPU.
        labels: The K names.
        top_k: How many to name; more than there are names them all.

    Raises:
        InferenceFailed: A score is not a number between 0 and 1.
    """
    _check_probabilities(scores_K)
    best = torch.topk(scores_K, min(top_k, len(labels)))
    top = [
        ScoredLabel(label=labels[index], score=round(score, DECIMALS))
        for score, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]
    return Prediction(label=top[0].label, score=top[0].score, top=top)


def _check_probabilities(scores_K: Tensor) -> None:
    # Written so that a NaN fails too.
    if not bool(((scores_K >= 0) & (scores_K <= 1)).all()):
        logger.error("the model gave scores that are no probabilities: %s", scores_K.tolist()[:10])
        raise InferenceFailed("the model gave scores that are no probabilities")
