"""Corrections are learned from, and what a version is measured on stays what it was."""

from pathlib import Path

import pytest
import torch

from models.errors import FeedbackUnavailable
from models.feedback import Correction, FeedbackStore
from models.manifest import ImageDecoding
from models.repository import InputKind
from tests.images import png
from tests.servers import ROOT
from training.commands import FashionOptions, PairTableOptions, TextTableOptions
from training.datasets import fashion_mnist
from training.datasets.feedback import corrected_texts, fold_images, fold_pairs, with_feedback
from training.datasets.images import ImageDataset, LabelledImages
from training.datasets.keyed import plain
from training.datasets.labelled_texts import LabelledText
from training.datasets.sequence_pairs import SequencePair
from training.progress import Progress

LABELS = ("dark", "light")
DECODING = ImageDecoding(color="L", size=(8, 8), max_pixels=10_000)


class Said(Progress):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "feedback.sqlite"


def store(file: Path, answer: str, content: bytes, model: str = "fashion") -> None:
    kind: InputKind = "image" if content.startswith(b"\x89PNG") else "text"
    FeedbackStore(file, 10**7).add(Correction("r", "", model, answer, kind, content))


def images(*greys: int, label: int = 0) -> LabelledImages:
    images_NCHW = torch.stack([torch.full((1, 8, 8), grey, dtype=torch.uint8) for grey in greys])
    return LabelledImages(images_NCHW, torch.full((len(greys),), label))


@pytest.fixture
def dataset() -> ImageDataset:
    return ImageDataset(LABELS, images(1, 2, 3), images(4), images(5), "0" * 64)


def fold(dataset: ImageDataset, file: Path) -> tuple[ImageDataset, list[str]]:
    said = Said()
    return fold_images(dataset, DECODING, FashionOptions(feedback=file), said), said.lines


def test_corrected_images_are_trained_on(dataset: ImageDataset, file: Path) -> None:
    store(file, "light", png(200))
    store(file, "light", png(2))
    folded, said = fold(dataset, file)
    greys = folded.train.images_NCHW[:, 0, 0, 0].tolist()
    assert list(zip(greys, folded.train.labels_N.tolist(), strict=True)) == [(1, 0), (3, 0), (200, 1), (2, 1)]
    assert (folded.validation, folded.test) == (dataset.validation, dataset.test)
    assert folded.sha256 != dataset.sha256
    assert said == ["feedback: 2 corrected examples are trained on"]


def test_the_image_that_the_documentation_corrects_is_learned(file: Path) -> None:
    options = FashionOptions(feedback=file).resolved({})
    dataset = fashion_mnist.load(None, options.validation_fraction, options.seed)
    store(file, "Pullover", (ROOT / "docs/images/sweater.png").read_bytes())
    said = Said()
    fold_images(dataset, ImageDecoding(color="L", size=fashion_mnist.SIZE, max_pixels=10_000), options, said)
    assert said.lines == ["feedback: 1 corrected examples are trained on"]


def test_what_cannot_be_learned_is_told_and_left_out(dataset: ImageDataset, file: Path) -> None:
    store(file, "light", png(5))
    store(file, "purple", png(9))
    store(file, "light", png(9)[:40])
    store(file, "light", png(200), model="another")
    folded, said = fold(dataset, file)
    assert folded is dataset
    assert said[0] == "feedback: 0 corrected examples are trained on"
    assert sorted(said[1:]) == [
        "feedback: 1 left out: the data have no label 'purple'",
        "feedback: 1 left out: the image cannot be decoded",
        "feedback: 1 left out: the same input is in test or validation",
    ]


def test_without_corrections_nothing_changes(dataset: ImageDataset, file: Path) -> None:
    assert fold_images(dataset, DECODING, FashionOptions(), Said()) is dataset
    store(file, "light", png(200), model="another")
    assert fold(dataset, file) == (
        dataset,
        ["feedback: feedback.sqlite has no correction of fashion with its input"],
    )
    assert with_feedback("0" * 64, FashionOptions(feedback=file)) == "0" * 64


@pytest.mark.parametrize("content", [None, b"no database" * 500])
def test_a_file_that_is_none_is_named(dataset: ImageDataset, file: Path, content: bytes | None) -> None:
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(FeedbackUnavailable, match=r"feedback\.sqlite"):
        fold(dataset, file)


def test_a_file_that_no_correction_reached_yet_is_empty(dataset: ImageDataset, file: Path) -> None:
    file.touch()
    folded, (line,) = fold(dataset, file)
    assert folded is dataset
    assert "has no correction" in line


def test_corrections_of_what_is_trained_otherwise_are_left_out(dataset: ImageDataset, file: Path) -> None:
    store(file, "light", b"a text")
    assert fold(dataset, file)[1][1:] == ["feedback: 1 left out: the input is no image"]
    store(file, "light", png(200), model="moods")
    said = Said()
    options = TextTableOptions(data=Path("x.csv"), name="moods", feedback=file)
    assert corrected_texts([LabelledText("a", 0)], [], LABELS, options, said) == ([0], [])
    assert said.lines[1:] == ["feedback: 1 left out: the input is no text"]


def test_corrected_texts_take_the_place_of_the_same_text(file: Path) -> None:
    store(file, "light", b"A good  film!", model="moods")
    store(file, "light", b"new", model="moods")
    store(file, "light", b"held out", model="moods")
    train = [LabelledText("a good film !", 0), LabelledText("another", 0)]
    options = TextTableOptions(data=Path("x.csv"), name="moods", feedback=file)
    said = Said()
    kept, added = corrected_texts(train, [LabelledText("Held out", 0)], LABELS, options, said)
    assert (kept, added) == ([1], [LabelledText("A good  film!", 1), LabelledText("new", 1)])
    assert said.lines[0] == "feedback: 2 corrected examples are trained on"


def test_corrected_pairs_take_the_place_of_the_same_source(file: Path) -> None:
    store(file, "K AE T", b"cat", model="spell")
    store(file, "D AO G", b"DOG", model="spell")
    store(file, "  HH  EH N \n", b"hen", model="spell")
    store(file, " ", b"pig", model="spell")
    train = [SequencePair("cat", ("S AE T", "K AH T")), SequencePair("hen", ("HH EH N",))]
    options = PairTableOptions(data=Path("x.csv"), name="spell", feedback=file)
    said = Said()
    folded = fold_pairs(train, [SequencePair("dog", ("D AA G",))], str.casefold, plain, options, said)
    assert folded == [SequencePair("cat", ("K AE T",)), SequencePair("hen", ("HH EH N",))]
    assert "feedback: 1 left out: the right text is empty" in said.lines
