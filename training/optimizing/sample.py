"""The examples by which a backend is made and judged."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from models.errors import ExampleError
from models.preparation import Preparation
from training.datasets.images import ImageDataset, LabelledImages
from training.datasets.labelled_texts import LabelledText
from training.errors import DataInvalid
from training.randomness import permutation

# Enough for the ranges of activations; more changes them little, and takes longer.
MOST_TO_QUANTIZE = 300
# Of fewer, one example more or less is more than a point.
LEAST_JUDGED = 100
# More tell little more, and each form runs all of them.
MOST_JUDGED = 10_000


@dataclass(frozen=True)
class Sample:
    """Examples as the model takes them.

    Attributes:
        quantize: The ranges of numbers are taken from these; nothing is judged on them.
        judge: Held out: the model did not learn from them.
        labels: What is right of each that is judged, as an index into the model's labels; None if nobody knows.
    """

    quantize: Sequence[Tensor]
    judge: Sequence[Tensor]
    labels: Sequence[int] | None

    @property
    def sha256(self) -> str:
        """Of the examples that are judged by."""
        digest = hashlib.sha256()
        for example in self.judge:
            digest.update(example.numpy().tobytes())
        return digest.hexdigest()

    def __post_init__(self) -> None:
        if len(self.judge) < LEAST_JUDGED:
            raise DataInvalid(
                f"there are {len(self.judge)} held-out examples to judge by; at least {LEAST_JUDGED} are wanted"
            )


def of_images(dataset: ImageDataset) -> Sample:
    """Quantize by images of the training part, judge by the test part."""
    quantize, judge = _some(dataset.train, MOST_TO_QUANTIZE), _some(dataset.test, MOST_JUDGED)
    return Sample(list(quantize.images_NCHW), list(judge.images_NCHW), judge.labels_N.tolist())


def of_texts(train: Sequence[LabelledText], test: Sequence[LabelledText], preparation: Preparation) -> Sample:
    """Quantize by texts of the training part, judge by the test part; without those that are too long."""
    quantize = _prepared(_some_texts(train, MOST_TO_QUANTIZE), preparation)
    judge = _prepared(_some_texts(test, MOST_JUDGED), preparation)
    return Sample(
        [example for example, _ in quantize], [example for example, _ in judge], [label for _, label in judge]
    )


def _some(images: LabelledImages, most: int) -> LabelledImages:
    # Not the first so many: they may be sorted by label.
    return images.take(permutation(len(images), 0, "sample")[:most])


def _some_texts(texts: Sequence[LabelledText], most: int) -> Sequence[LabelledText]:
    return [texts[index] for index in permutation(len(texts), 0, "sample")[:most].tolist()]


def _prepared(texts: Iterable[LabelledText], preparation: Preparation) -> list[tuple[Tensor, int]]:
    found = []
    for text in texts:
        try:
            found.append((preparation.prepare(text.text.encode()), text.label))
        except ExampleError:  # The service refuses it too.
            continue
    return found
