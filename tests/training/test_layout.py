import errno
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.images import png
from tests.training.small_images import GREY, LABELS, SHADES, all_greys, greys, put
from training.datasets.image_files import load
from training.errors import DataInvalid, DataUnavailable


def test_folders_may_hold_folders(folders: Path) -> None:
    put(folders / "dark" / "more" / "deeper" / "a.png", png(100))
    dataset, _ = load(folders, GREY)
    assert 100 in all_greys(dataset)


def test_hidden_files_and_folders_are_ignored_quietly(folders: Path) -> None:
    put(folders / ".git" / "a.png", png(100))
    put(folders / "dark" / ".DS_Store", b"junk")
    put(folders / "dark" / ".thumbnails" / "a.png", png(100))
    put(folders / ".hidden.png", png(100))
    dataset, reading = load(folders, GREY)
    assert reading.lines() == ["80 examples read, 0 skipped"]
    assert 100 not in all_greys(dataset)


def test_part_folders_are_kept(part_folders: Path) -> None:
    dataset, reading = load(part_folders, GREY)
    assert greys(dataset.train) == [*range(10), *range(200, 210)]
    assert greys(dataset.validation) == [*range(10, 20), *range(210, 220)]
    assert greys(dataset.test) == [*range(20, 30), *range(220, 230)]
    assert reading.lines() == ["60 examples read, 0 skipped"]


def test_a_part_folder_that_is_not_there_is_made_out_of_train(part_folders: Path) -> None:
    shutil.rmtree(part_folders / "val")
    for label, shades in SHADES.items():
        for grey in shades[30:]:
            put(part_folders / "train" / label / f"{grey:03}.png", png(grey))
    dataset, _ = load(part_folders, GREY)
    assert greys(dataset.test) == [*range(20, 30), *range(220, 230)]
    assert len(dataset.validation) > 0
    train_validation = sorted([*greys(dataset.train), *greys(dataset.validation)])
    assert train_validation == [*range(10), *range(30, 40), *range(200, 210), *range(230, 240)]


def test_loose_files_beside_part_and_class_folders_are_told(part_folders: Path) -> None:
    put(part_folders / "labels.txt", b"")
    put(part_folders / "train" / "a.png", png(1))
    _, reading = load(part_folders, GREY)
    assert [skipped.where for skipped in reading.skipped] == ["labels.txt", "train/a.png"]


def test_part_folders_beside_others_stop(part_folders: Path) -> None:
    (part_folders / "annotations").mkdir()
    with pytest.raises(
        DataInvalid, match="holds Test, train, val, but other folders too: annotations; move those"
    ):
        load(part_folders, GREY)


def test_a_class_may_be_called_train(folders: Path) -> None:
    (folders / "dark").rename(folders / "train")
    assert load(folders, GREY)[0].labels == ("light", "train")


@pytest.mark.parametrize(
    ("names", "empty"),
    [
        (("Training", "Testing"), "validation"),
        (("training", "evaluation"), "validation"),
        (("Train", "eval"), "test"),
    ],
)
def test_parts_go_by_other_names_too(part_folders: Path, names: tuple[str, str], empty: str) -> None:
    for folder, name in zip(("train", "Test"), names, strict=True):
        (part_folders / folder).rename(part_folders / name)
    shutil.rmtree(part_folders / "val")
    dataset, _ = load(part_folders, GREY)
    assert dataset.labels == LABELS
    kept = dataset.validation if empty == "test" else dataset.test
    assert greys(kept) == [*range(20, 30), *range(220, 230)]


OTHER_NAMES = [
    ("seg_train", "seg_val", "seg_test"),
    ("training_set", "validation_set", "test_set"),
    ("train2017", "val1", "test 1"),
]


@pytest.mark.parametrize("names", OTHER_NAMES)
@pytest.mark.parametrize("wrapped", [False, True])
def test_parts_may_say_more_than_their_name_and_stand_in_a_folder_of_it(
    part_folders: Path, names: tuple[str, ...], wrapped: bool
) -> None:
    for folder, name in zip(("train", "val", "Test"), names, strict=True):
        inner = part_folders / name / name if wrapped else part_folders / name
        inner.parent.mkdir(exist_ok=True)
        (part_folders / folder).rename(inner)
    dataset, _ = load(part_folders, GREY)
    assert dataset.labels == LABELS
    assert greys(dataset.validation) == [*range(10, 20), *range(210, 220)]
    assert greys(dataset.test) == [*range(20, 30), *range(220, 230)]


def test_what_lies_beside_a_part_in_a_folder_of_its_name_is_told(part_folders: Path) -> None:
    (part_folders / "train").rename(part_folders / "inner")
    (part_folders / "train").mkdir()
    (part_folders / "inner").rename(part_folders / "train" / "train")
    put(part_folders / "train" / "notes.txt", b"")
    _, reading = load(part_folders, GREY)
    assert [skipped.where for skipped in reading.skipped] == ["train/notes.txt"]


def test_a_part_of_one_class_that_is_called_as_another_part_is_not_looked_through(part_folders: Path) -> None:
    for part in ("train", "val", "Test"):
        (part_folders / part / "dark").rename(part_folders / part / "train")
    shutil.rmtree(part_folders / "val" / "light")
    dataset, _ = load(part_folders, GREY)
    assert dataset.labels == ("light", "train")
    assert greys(dataset.validation) == [*range(10, 20)]


def test_flat_parts_without_classes_stop(part_folders: Path) -> None:
    for part in ("train", "Test"):
        for label in LABELS:
            for file in (part_folders / part / label).iterdir():
                file.rename(part_folders / part / f"{label}.{file.name}")
            (part_folders / part / label).rmdir()
    (part_folders / "Test").rename(part_folders / "test1")
    shutil.rmtree(part_folders / "val")
    with pytest.raises(DataInvalid, match=r"has no class; .*is in no class folder"):
        load(part_folders, GREY)


@pytest.mark.parametrize("name", ["test tube", "trained", "steam train", "images", "set 1"])
def test_a_class_is_no_part_for_a_word_of_its_name(folders: Path, name: str) -> None:
    (folders / "dark").rename(folders / name)
    (folders / "light").rename(folders / "rest")
    assert load(folders, GREY)[0].labels == tuple(sorted((name, "rest")))


def test_what_systems_leave_in_folders_is_no_example(folders: Path) -> None:
    put(folders / "__MACOSX" / "dark" / "a.png", png(100))
    put(folders / "dark" / "@eaDir" / "a.png", png(100))
    put(folders / "dark" / "Thumbs.db", b"junk")
    dataset, reading = load(folders, GREY)
    assert 100 not in all_greys(dataset)
    assert reading.lines() == ["80 examples read, 0 skipped"]


def test_parts_within_classes_stop(part_folders: Path) -> None:
    for part in ("train", "val", "Test"):
        for label in LABELS:
            target = part_folders / label / part
            target.parent.mkdir(exist_ok=True)
            (part_folders / part / label).rename(target)
        (part_folders / part).rmdir()
    with pytest.raises(DataInvalid, match="Test, train, val stand within the classes dark, light"):
        load(part_folders, GREY)


def test_what_was_dropped_is_told_when_a_class_is_left_with_nothing(part_folders: Path) -> None:
    shutil.rmtree(part_folders / "train")
    shutil.copytree(part_folders / "Test", part_folders / "train")
    with pytest.raises(DataInvalid, match=r"no train example of .*20 dropped: the same input is in test"):
        load(part_folders, GREY)


def test_folders_of_classes_called_train_beside_another_stop(part_folders: Path) -> None:
    shutil.rmtree(part_folders / "val")
    (part_folders / "Test").rename(part_folders / "holdout")
    with pytest.raises(DataInvalid, match="holds train, but other folders too: holdout; move those away"):
        load(part_folders, GREY)


def test_parts_without_one_to_train_on_stop(part_folders: Path) -> None:
    shutil.rmtree(part_folders / "train")
    with pytest.raises(DataInvalid, match="holds Test, val, but no folder train"):
        load(part_folders, GREY)


def test_two_folders_of_one_part_stop(part_folders: Path) -> None:
    (part_folders / "Test").rename(part_folders / "dev")
    with pytest.raises(DataInvalid, match="dev, val are all names of the validation part"):
        load(part_folders, GREY)


def test_parts_by_unknown_names_are_not_taken_for_classes(part_folders: Path) -> None:
    for folder, name in (("train", "fold 1"), ("val", "fold 2"), ("Test", "fold 3")):
        (part_folders / folder).rename(part_folders / name)
    with pytest.raises(
        DataInvalid, match=r"fold 1, fold 2, fold 3 look like parts, .* several hold dark, light; name"
    ):
        load(part_folders, GREY)


def test_classes_may_all_hold_a_folder_of_one_name(folders: Path) -> None:
    for label in LABELS:
        (folders / label).rename(folders / "images")
        (folders / label).mkdir()
        (folders / "images").rename(folders / label / "images")
    assert load(folders, GREY)[0].labels == LABELS


def test_a_class_folder_with_a_blank_name_stops(folders: Path) -> None:
    put(folders / "\u00a0" / "a.png", png(100))
    with pytest.raises(DataInvalid, match="has a blank name, which is no label; rename it"):
        load(folders, GREY)


def test_an_empty_class_folder_stops(folders: Path) -> None:
    put(folders / "empty" / ".hidden", b"")
    (folders / "void" / "inner").mkdir(parents=True)
    with pytest.raises(DataInvalid, match="no file for a class in empty, void; add images, or remove the folder"):
        load(folders, GREY)


def test_a_directory_that_is_not_there_stops(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable, match="nowhere is not there"):
        load(tmp_path / "nowhere", GREY)


def test_a_folder_that_cannot_be_listed_stops(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(folder: Path) -> Iterable[Path]:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(DataUnavailable, match="data cannot be listed: Permission denied"):
        load(folders, GREY)
