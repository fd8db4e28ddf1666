from pathlib import Path

import pytest
import torch

from tests.training.small_images import GREY, LABELS, greys, put, shade_rows, tabled
from training.datasets.image_files import load
from training.errors import DataInvalid


def test_a_table_gives_the_same_as_folders(folders: Path) -> None:
    from_folders, _ = load(folders, GREY)
    dataset, reading = load(tabled(folders, shade_rows()), GREY)
    assert dataset.labels == LABELS
    assert torch.equal(dataset.train.images_NCHW, from_folders.train.images_NCHW)
    assert torch.equal(dataset.test.labels_N, from_folders.test.labels_N)
    assert dataset.sha256 == from_folders.sha256
    assert reading.lines() == ["80 examples read, 0 skipped"]


def test_a_table_may_name_its_columns_and_give_the_parts(folders: Path) -> None:
    names = {0: "train", 1: "dev", 2: "test"}
    rows = [(*row, names[index % 3]) for index, row in enumerate(shade_rows())]
    table = tabled(folders, rows, ("file", "shade", "part"))
    dataset, _ = load(table, GREY, "file", "shade", "part")
    assert greys(dataset.train) == [int(path[-7:-4]) for path, _, part in rows if part == "train"]
    assert greys(dataset.test) == [int(path[-7:-4]) for path, _, part in rows if part == "test"]


def test_rows_that_name_no_image_are_told_with_path_and_line(folders: Path) -> None:
    wrong = [("dark/nowhere.png", "dark"), ("", "dark"), ("dark", "dark"), ("x" * 300, "dark")]
    put(folders / "notes.txt", b"no image")
    _, reading = load(tabled(folders, [*wrong, *shade_rows(), ("notes.txt", "light")]), GREY)
    told = {skipped.where: skipped.reason for skipped in reading.skipped}
    assert told == {
        "line 2: dark/nowhere.png": "is not there",
        "line 3": "'path' is empty",
        "line 4: dark": "is not a file",
        f"line 5: {'x' * 300}": "cannot be read: File name too long",
        "line 86: notes.txt": "the bytes are not a JPEG, PNG, WebP, BMP, GIF or TIFF image",
    }
    assert reading.rows == 85


def test_a_table_that_is_none_stops(folders: Path) -> None:
    with pytest.raises(
        DataInvalid, match=r"no column 'path'; its columns are 'paht', 'label'; did you mean 'paht'"
    ):
        load(tabled(folders, shade_rows(), ("paht", "label")), GREY)
    with pytest.raises(DataInvalid, match="unknown ending"):
        load(put(folders / "images.xlsx", b"PK"), GREY)
