"""The examples by which a backend is made and judged."""

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
# Of fewer, not even a share of 98 % can be told from one of 90 %.
LEAST_JUDGED = 50


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

    def __post_init__(self) -> None:
        if len(self.judge) < LEAST_JUDGED:
            raise DataInvalid(
                f"there are {len(self.judge)} held-out examples to judge by; at least {LEAST_JUDGED} are wanted"
            )


def of_images(dataset: ImageDataset) -> Sample:
    """Quantize by images of the training part, judge by the test part."""
    return Sample(
        list(_some(dataset.train).images_NCHW), list(dataset.test.images_NCHW), dataset.test.labels_N.tolist()
    )


def of_texts(train: Sequence[LabelledText], test: Sequence[LabelledText], preparation: Preparation) -> Sample:
    """Quantize by texts of the training part, judge by the test part; without those that are too long."""
    order = permutation(len(train), 0, "quantize").tolist()
    quantize = _prepared((train[index] for index in order[:MOST_TO_QUANTIZE]), preparation)
    judge = _prepared(test, preparation)
    return Sample(
        [example for example, _ in quantize], [example for example, _ in judge], [label for _, label in judge]
    )


def _some(images: LabelledImages) -> LabelledImages:
    # Not the first so many: they may be sorted by label.
    return images.take(permutation(len(images), 0, "quantize")[:MOST_TO_QUANTIZE])


def _prepared(texts: Iterable[LabelledText], preparation: Preparation) -> list[tuple[Tensor, int]]:
    found = []
    for text in texts:
        try:
            found.append((preparation.prepare(text.text.encode()), text.label))
        except ExampleError:  # The service refuses it too.
            continue
    return found
