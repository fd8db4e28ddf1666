"""Movie reviews: whether a sentence speaks well or ill of a film."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from training.commands import ReviewOptions
from training.datasets import movie_reviews
from training.datasets.labelled_texts import LabelledText
from training.datasets.movie_reviews import RatedText
from training.progress import Progress
from training.recipes import own_texts
from training.tasks.texts import TextClassification, TextDataset

# Sentences of other kinds speak otherwise, and the words of the lexicon are no sentences.
OTHERS_WEIGHT = 0.3
DEFAULTS: Mapping[str, Mapping[str, object]] = own_texts.DEFAULTS


def prepare(options: ReviewOptions, progress: Progress) -> tuple[TextClassification, ReviewOptions]:
    """Fetch and split the sentences, train the tokenizer, and build the network.

    Returns:
        The task, and the options with all that was not given filled in.
    """
    options = options.resolved(DEFAULTS.get(options.arch, {}))
    reviews = movie_reviews.load()
    others = reviews.others if options.others else []
    train = [*reviews.train, *others]
    weight_N = torch.cat([torch.ones(len(reviews.train)), torch.full((len(others),), OTHERS_WEIGHT)])
    dataset = TextDataset(
        movie_reviews.LABELS,
        _labelled(train),
        _labelled(reviews.validation),
        _labelled(reviews.test),
        movie_reviews.SHA256,
        _targets(train, options.sharpness),
        weight_N,
    )
    return own_texts.build(dataset, options, progress), options


def _labelled(texts: Sequence[RatedText]) -> list[LabelledText]:
    return [LabelledText(rated.text, rated.label) for rated in texts]


def _targets(texts: Sequence[RatedText], sharpness: float) -> Tensor:
    positive_N = torch.tensor(
        [rated.positive_share(sharpness) if sharpness else float(rated.label) for rated in texts]
    )
    return torch.stack([1 - positive_N, positive_N], dim=1)
