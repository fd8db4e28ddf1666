"""Scores -> labels, tokens -> texts: the best, and the best few. Axes: N items, K labels, B texts, T tokens.

Answers are plain dictionaries, of the shapes that `app.schemas` documents: they are made for each item, and only
ever written as JSON.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from app.errors import InferenceFailed
from app.inference import LoadedModel
from models.golden import Outputs
from models.tokenization import Tokenizer

logger = logging.getLogger(__name__)

DEFAULT_TOP_K = 5
DECIMALS = 6

# A schemas.Prediction or schemas.WrittenText.
Prediction = Mapping[str, Any]


class Raw(NamedTuple):
    """An item's part of each output, in their order: scores K; or tokens BT, scores B and the B texts."""

    parts: tuple[NDArray[np.generic] | list[bytes], ...]


def answer(
    loaded: LoadedModel, examples: Sequence[Tensor], top_ks: Sequence[int | None], threads: int
) -> list[Prediction | Raw | InferenceFailed]:
    """Run a batch, and say what comes out of it; as `respond` does.

    Raises:
        ValueError: The model gave something of another shape.
    """
    return respond(loaded.infer(examples, threads), loaded, top_ks)


def respond(
    outputs: Outputs, loaded: LoadedModel, top_ks: Sequence[int | None]
) -> list[Prediction | Raw | InferenceFailed]:
    """Say what a model's outputs for a batch mean, item by item.

    Args:
        outputs: As `loaded.infer` gave them.
        loaded: The model that gave them.
        top_ks: How many labels or texts to give of each; more than there are gives them all. None wants the
            outputs themselves.

    Returns:
        An answer each, or an error where a score is not a number between 0 and 1.
    """
    if isinstance(outputs, Tensor):
        return to_predictions(outputs, loaded.bundle.manifest.labels, top_ks)
    assert loaded.writer is not None, "the loader's own check: what gives tokens has it"  # noqa: S101
    tokens_NBT, scores_NB = outputs
    return [
        to_text(tokens_BT, scores_B, loaded.writer, top_k)
        for tokens_BT, scores_B, top_k in zip(tokens_NBT, scores_NB, top_ks, strict=True)
    ]


def to_text(
    tokens_BT: Tensor, scores_B: Tensor, writer: Tokenizer, top_k: int | None
) -> Prediction | Raw | InferenceFailed:
    """Decode what a model wrote.

    Args:
        tokens_BT: int64, best first, on the CPU.
        scores_B: 0 to 1.
        writer: The model's own, for what it writes.
        top_k: How many texts to give; None wants them all, and the tokens.
    """
    if not _are_probabilities(scores_B):
        return _no_probabilities(scores_B)
    if top_k is None:
        texts = [writer.decode(tokens).encode() for tokens in tokens_BT.tolist()]
        return Raw((tokens_BT.numpy(), scores_B.numpy(), texts))
    score_by_text: dict[str, float] = {}
    for tokens, score in zip(tokens_BT.tolist(), scores_B.tolist(), strict=True):
        # Where there are fewer texts than beams the rest is filler, of no probability.
        if score > 0 or not score_by_text:
            score_by_text.setdefault(writer.decode(tokens), round(score, DECIMALS))
    top = [{"text": text, "score": score} for text, score in list(score_by_text.items())[:top_k]]
    return {**top[0], "top": top}


def to_predictions(
    scores_NK: Tensor, labels: Sequence[str], top_ks: Sequence[int | None]
) -> list[Prediction | Raw | InferenceFailed]:
    """Name the labels of the largest scores.

    Args:
        scores_NK: Calibrated probabilities, on the CPU.
        labels: The K names.
        top_ks: How many to name for each item; more than there are names them all, and None wants the scores.
    """
    if not _are_probabilities(scores_NK):
        # One item's fault is not its neighbours'.
        return [
            to_predictions(scores_NK[n : n + 1], labels, top_ks[n : n + 1])[0]
            if _are_probabilities(scores_NK[n])
            else _no_probabilities(scores_NK[n])
            for n in range(len(top_ks))
        ]
    return [
        Raw((scores_K,)) if top_k is None else _name(scores_K, labels, top_k)
        for scores_K, top_k in zip(scores_NK.numpy(), top_ks, strict=True)
    ]


def _name(scores_K: NDArray[np.float32], labels: Sequence[str], top_k: int) -> Prediction:
    # By numpy: each of torch's operations gives up the interpreter's lock, and has to wait for it again.
    least = np.partition(scores_K, -top_k)[-top_k] if top_k < len(labels) else 0.0
    # Of equal scores the earlier label comes first, also of those of which not all are named.
    places = np.flatnonzero(scores_K >= least)
    best = places[(-scores_K[places]).argsort(kind="stable")][:top_k].tolist()
    top = [{"label": labels[place], "score": round(float(scores_K[place]), DECIMALS)} for place in best]
    return {**top[0], "top": top}


def _are_probabilities(scores: Tensor) -> bool:
    found = scores.numpy()
    # Written so that a NaN, which both become if there is one, fails too.
    return bool(found.min() >= 0 and found.max() <= 1)


def _no_probabilities(scores_K: Tensor) -> InferenceFailed:
    logger.error("the model gave scores that are no probabilities: %s", scores_K.tolist()[:10])
    return InferenceFailed("the model gave scores that are no probabilities")
