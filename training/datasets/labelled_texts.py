"""Texts and their labels, read from a user's own table."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from training.datasets.classes import check_classes, oddities
from training.datasets.division import divide
from training.datasets.keyed import Keyed, folded, key_of, plain, spaced
from training.datasets.reading import Reading, telling
from training.datasets.rows import read_filled
from training.datasets.splitting import TEST_FRACTION, VALIDATION_FRACTION, check_fractions


class LabelledText(NamedTuple):
    """A text as it stands in the file, and the index of its label."""

    text: str
    label: int


@dataclass(frozen=True)
class LabelledTexts:
    """A data set with its three parts, each in the file's order; `test` is never used for choosing weights."""

    labels: tuple[str, ...]
    train: list[LabelledText]
    validation: list[LabelledText]
    test: list[LabelledText]
    reading: Reading
    sha256: str


def load(
    file: Path,
    text_column: str,
    label_column: str,
    split_column: str | None = None,
    validation_fraction: float = VALIDATION_FRACTION,
    test_fraction: float = TEST_FRACTION,
) -> LabelledTexts:
    """Read labelled texts and split them; texts of the same words and signs, whatever their case, are the same.

    Args:
        file: A table, as `read_table` takes it.
        text_column: Name of the column of texts.
        label_column: Name of the column of labels; white space around a label does not count.
        split_column: Name of a column that says train, validation or test; a part that it never names is made
            out of train.
        validation_fraction: Share of the texts for the validation part, where that is not given.
        test_fraction: Share of the texts for the test part, where that is not given.

    Raises:
        DataUnavailable: The file cannot be read.
        DataInvalid: It is no such table, or has too little of a class to train or to test it.
    """
    check_fractions(validation_fraction, test_fraction)
    filled = read_filled(file, (text_column, label_column), split_column)
    texts = [
        Keyed(key_of(spaced(folded(text))), plain(label), given, text) for _, (text, label), given in filled.rows
    ]
    labels = tuple(sorted({text.answer for text in texts}))
    index_of = {label: index for index, label in enumerate(labels)}
    division = divide(texts, validation_fraction, test_fraction)
    parts = {
        part: [LabelledText(text.value, index_of[text.answer]) for text in texts_of_part]
        for part, texts_of_part in division.parts.items()
    }
    reading = division.reading(filled.skipped, oddities(labels))
    with telling(reading.skipped, reading.dropped()):
        check_classes(file, labels, {part: [text.label for text in texts] for part, texts in parts.items()})
    return LabelledTexts(labels, parts["train"], parts["validation"], parts["test"], reading, filled.sha256)
