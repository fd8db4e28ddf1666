"""Movie reviews: whether a sentence speaks well or ill of a film."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from training.architectures.catalogue import TEXTS, check_name
from training.commands import ReviewOptions
from training.datasets import movie_reviews
from training.datasets.labelled_texts import LabelledText
from training.datasets.movie_reviews import RatedText
from training.progress import Progress
from training.recipes import defaults, own_texts
from training.tasks.texts import TextClassification, TextDataset

# A word alone is less than a sentence.
WORD_WEIGHT = 0.3
RATING_SCALE = 0.2


def prepare(options: ReviewOptions, progress: Progress) -> tuple[TextClassification, ReviewOptions]:
    """Fetch and split the sentences, train the tokenizer, and build the network.

    Returns:
        The task, and the options with all that was not given filled in.
    """
    check_name(options.arch, TEXTS)
    options = options.resolved(defaults.TEXTS.get(options.arch, {}))
    reviews = movie_reviews.load(options.split)
    words = reviews.words if options.lexicon else []
    train = [*reviews.train, *words]
    weight_N = torch.cat([torch.ones(len(reviews.train)), torch.full((len(words),), WORD_WEIGHT)])
    dataset = TextDataset(
        movie_reviews.LABELS,
        labelled(train),
        labelled(reviews.validation),
        labelled(reviews.test),
        movie_reviews.SHA256,
        _targets(train, options.sharpness),
        weight_N,
    )
    task = own_texts.build(dataset, options, progress)
    _begin_with_ratings(task, words)
    return task, options


def labelled(texts: Sequence[RatedText]) -> list[LabelledText]:
    """Return rated texts by their label alone."""
    return [LabelledText(rated.text, rated.label) for rated in texts]


def _targets(texts: Sequence[RatedText], sharpness: float) -> Tensor:
    positive_N = torch.tensor(
        [rated.positive_share(sharpness) if sharpness else float(rated.label) for rated in texts]
    )
    return torch.stack([1 - positive_N, positive_N], dim=1)


def _begin_with_ratings(task: TextClassification, words: Sequence[RatedText]) -> None:
    """Let the first feature of a rated word begin as its rating, instead of being found in a few rows."""
    embeddings = [module for module in task.model.modules() if isinstance(module, nn.Embedding)]
    place_of = {token: place for place, token in enumerate(task.preparation.tokenizer.vocabulary)}
    rated = [(place_of[word.text], word.rating) for word in words if word.text in place_of]
    if not rated or not embeddings:
        return
    place_R, rating_R = (torch.tensor(column) for column in zip(*rated, strict=True))
    with torch.no_grad():
        embeddings[0].weight[place_R, 0] = RATING_SCALE * rating_R
