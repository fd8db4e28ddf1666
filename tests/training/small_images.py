import csv
from collections.abc import Iterable
from pathlib import Path

from models.manifest import ImageDecoding
from training.datasets.images import ImageDataset, LabelledImages

GREY = ImageDecoding(color="L", size=(2, 2), max_pixels=10_000)
LABELS = ("dark", "light")
# Enough of each class that every part gets some; each image is another grey.
SHADES = {"dark": range(40), "light": range(200, 240)}


def put(file: Path, content: bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def greys(images: LabelledImages) -> list[int]:
    return images.images_NCHW[:, 0, 0, 0].tolist()


def all_greys(dataset: ImageDataset) -> list[int]:
    return [*greys(dataset.train), *greys(dataset.validation), *greys(dataset.test)]


def tabled(folder: Path, rows: Iterable[tuple[str, ...]], header: tuple[str, ...] = ("path", "label")) -> Path:
    file = folder / "images.csv"
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return file


def shade_rows() -> list[tuple[str, str]]:
    return [(f"{label}/{grey:03}.png", label) for label, greys in SHADES.items() for grey in greys]
