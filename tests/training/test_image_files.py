import errno
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from models.manifest import ImageDecoding
from models.preprocessing import decode_image
from tests.images import encoded, png
from tests.training.small_images import GREY, LABELS, SHADES, all_greys, greys, put
from training.datasets import image_files, image_room
from training.datasets.image_files import load
from training.datasets.reading import Skipped
from training.errors import DataInvalid, DataUnavailable


def test_folders_named_by_class_become_labelled_images(folders: Path) -> None:
    dataset, reading = load(folders, GREY)
    assert dataset.labels == LABELS
    assert sorted(all_greys(dataset)) == [*range(40), *range(200, 240)]
    assert reading.lines() == ["80 examples read, 0 skipped"]
    for part in (dataset.train, dataset.validation, dataset.test):
        assert part.images_NCHW.dtype == torch.uint8
        assert part.images_NCHW.shape == (len(part), 1, 2, 2)
        assert part.labels_N.dtype == torch.int64
        assert part.labels_N.tolist() == [int(grey >= 200) for grey in greys(part)]
        assert greys(part) == sorted(greys(part)), "the order is not that of the paths"
        assert len(part) > 0


def test_images_are_decoded_as_in_serving(folders: Path) -> None:
    decoding = ImageDecoding(color="RGB", size=(6, 4), fit="crop", shorter_side=8, max_pixels=10_000)
    gradient = Image.radial_gradient("L").resize((40, 20))
    content = encoded(gradient, "JPEG")
    put(folders / "light" / "gradient.JPG", content)
    dataset, _ = load(folders, decoding)
    images_NCHW = torch.cat([part.images_NCHW for part in (dataset.train, dataset.validation, dataset.test)])
    assert images_NCHW.shape == (81, 3, 6, 4)
    assert any(torch.equal(image_CHW, decode_image(content, decoding)) for image_CHW in images_NCHW)


def test_more_images_than_a_chunk_keep_their_order(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = load(folders, GREY)
    monkeypatch.setattr(image_files, "CHUNK", 7)
    chunked, _ = load(folders, GREY)
    assert all_greys(chunked) == all_greys(whole)


def test_the_split_follows_the_bytes_not_the_names(folders: Path) -> None:
    before, _ = load(folders, GREY)
    for file in folders.rglob("*.png"):
        file.rename(file.with_name(f"{255 - int(file.stem):03}.x"))
    after, _ = load(folders, GREY)
    assert sorted(greys(after.test)) == greys(before.test)
    assert sorted(greys(after.validation)) == greys(before.validation)
    assert after.sha256 == before.sha256


def test_the_sha256_follows_bytes_and_labels(folders: Path) -> None:
    before, _ = load(folders, GREY)
    (folders / "dark" / "000.png").rename(folders / "light" / "000.png")
    moved, _ = load(folders, GREY)
    put(folders / "light" / "000.png", png(120))
    changed, _ = load(folders, GREY)
    assert len({before.sha256, moved.sha256, changed.sha256}) == 3


def test_the_sha256_follows_the_given_parts(part_folders: Path) -> None:
    before, _ = load(part_folders, GREY)
    (part_folders / "train" / "dark" / "000.png").rename(part_folders / "Test" / "dark" / "000.png")
    assert load(part_folders, GREY)[0].sha256 != before.sha256


@pytest.mark.parametrize("grey", [0, 9, 17, 25, 33])
def test_copies_are_dropped(folders: Path, grey: int) -> None:
    put(folders / "dark" / "z copy.png", png(grey))
    put(folders / "dark" / "zz copy.png", png(grey))
    dataset, reading = load(folders, GREY)
    assert sorted(all_greys(dataset)) == [*range(40), *range(200, 240)]
    assert (reading.rows, reading.duplicates, reading.conflicting) == (82, 2, 0)


@pytest.mark.parametrize("grey", [0, 9, 17, 25, 33])
def test_other_bytes_of_the_same_pixels_are_a_copy(folders: Path, grey: int) -> None:
    put(folders / "dark" / "a copy.bmp", encoded(Image.new("L", (30, 20), grey), "BMP"))
    put(folders / "light" / "a copy.png", png(grey, (9, 9)))
    dataset, reading = load(folders, GREY)
    parts = [greys(part) for part in (dataset.train, dataset.validation, dataset.test)]
    assert [part.count(grey) for part in parts].count(0) == 2
    assert all_greys(dataset).count(grey) == 2
    assert (reading.duplicates, reading.conflicting) == (1, 1)


def test_other_bytes_of_the_same_pixels_leave_train_for_test(part_folders: Path) -> None:
    put(part_folders / "train" / "dark" / "copy.bmp", encoded(Image.new("L", (30, 20), 20), "BMP"))
    dataset, reading = load(part_folders, GREY)
    assert all_greys(dataset).count(20) == greys(dataset.test).count(20) == 1
    assert reading.straddling == 1
    assert dataset.train.labels_N.tolist() == [int(grey >= 200) for grey in greys(dataset.train)]


@pytest.mark.parametrize("first", range(0, 30, 5))
def test_ten_images_of_each_class_are_enough(tmp_path: Path, first: int) -> None:
    for label, shades in SHADES.items():
        for grey in shades[first : first + 10]:
            put(tmp_path / label / f"{grey:03}.png", png(grey))
    dataset, _ = load(tmp_path, GREY)
    assert set(dataset.train.labels_N.tolist()) == set(dataset.test.labels_N.tolist()) == {0, 1}
    assert len(dataset.validation) > 0
    for part in (dataset.train, dataset.validation, dataset.test):
        assert part.labels_N.tolist() == [int(grey >= 200) for grey in greys(part)]


@pytest.mark.parametrize("grey", [0, 9, 17, 25, 33])
def test_a_copy_under_another_label_stays_in_the_same_part(folders: Path, grey: int) -> None:
    put(folders / "light" / "copy.png", png(grey))
    dataset, reading = load(folders, GREY)
    assert (reading.duplicates, reading.conflicting) == (0, 1)
    parts = [greys(part) for part in (dataset.train, dataset.validation, dataset.test)]
    assert [part.count(grey) for part in parts].count(0) == 2
    assert all_greys(dataset).count(grey) == 2


def test_what_is_no_whole_image_is_skipped_and_told(folders: Path) -> None:
    put(folders / "dark" / "notes.txt", b"no image")
    put(folders / "dark" / "empty.png", b"")
    put(folders / "light" / "empty.png", b"")
    put(folders / "dark" / "large.png", png(0, (101, 100)))
    put(folders / "README.md", b"# Shades")
    dataset, reading = load(folders, GREY)
    known = "JPEG, PNG, WebP, BMP, GIF or TIFF"
    assert set(reading.skipped) == {
        Skipped("README.md", "is in no class folder"),
        Skipped("dark/notes.txt", f"the bytes are not a {known} image"),
        Skipped("dark/empty.png", f"the bytes are not a {known} image"),
        Skipped("light/empty.png", f"the bytes are not a {known} image"),
        Skipped("dark/large.png", "has more than 10000 pixels"),
    }
    assert (reading.rows, reading.duplicates, reading.conflicting) == (85, 0, 0)
    assert sorted(all_greys(dataset)) == [*range(40), *range(200, 240)]


def test_an_image_that_is_cut_short_is_skipped_and_told(folders: Path) -> None:
    put(folders / "dark" / "cut.png", encoded(Image.radial_gradient("L").resize((90, 90)), "PNG")[:-500])
    _, reading = load(folders, GREY)
    assert reading.skipped == (Skipped("dark/cut.png", "the PNG image is cut short or damaged"),)


def test_what_is_no_file_is_skipped_and_told(folders: Path, tmp_path: Path) -> None:
    os.mkfifo(folders / "dark" / "pipe.png")
    (folders / "dark" / "circle").symlink_to(folders)
    (folders / "dark" / "broken.png").symlink_to(tmp_path / "nowhere")
    (folders / "dark" / "linked.png").symlink_to(put(tmp_path / "linked.png", png(100)))
    dataset, reading = load(folders, GREY)
    assert set(reading.skipped) == {
        Skipped("dark/pipe.png", "is not a file"),
        Skipped("dark/circle", "is not a file"),
        Skipped("dark/broken.png", "is not there"),
    }
    assert all_greys(dataset).count(100) == 1


def test_a_file_too_large_to_be_an_image_is_skipped_unread(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folders / "dark" / "video.mp4", b"\0" * (2**20 + 1))
    monkeypatch.setattr(image_files, "LARGEST_FILE_BYTES", 2**20)
    _, reading = load(folders, GREY)
    assert reading.skipped == (Skipped("dark/video.mp4", "is larger than 1 MiB"),)


def test_a_file_that_goes_away_meanwhile_is_skipped_and_told(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def going(file: Path) -> bytes:
        if file.name == "007.png":
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        with file.open("rb") as stream:
            return stream.read()

    monkeypatch.setattr(Path, "read_bytes", going)
    dataset, reading = load(folders, GREY)
    assert reading.skipped == (Skipped("dark/007.png", "cannot be read: No such file or directory"),)
    assert 7 not in all_greys(dataset)


def test_a_file_name_that_is_not_utf8_is_told_in_print(folders: Path) -> None:
    file = os.fsencode(folders / "dark") + b"/\xff.txt"
    with open(file, "wb") as stream:  # noqa: PTH123 (a path of bytes)
        stream.write(b"no image")
    _, reading = load(folders, GREY)
    assert reading.skipped[0].where == "dark/\ufffd.txt"
    folder = os.fsencode(folders) + b"/\xff"
    os.mkdir(folder)  # noqa: PTH102 (likewise)
    with pytest.raises(DataInvalid, match=r"name of the folder .*\\xff' is not UTF-8; rename it"):
        load(folders, GREY)


def test_what_is_in_test_is_dropped_from_train(part_folders: Path) -> None:
    put(part_folders / "train" / "dark" / "copy.png", png(20))
    put(part_folders / "val" / "light" / "copy.png", png(20))
    dataset, reading = load(part_folders, GREY)
    assert all_greys(dataset).count(20) == 1
    assert 20 in greys(dataset.test)
    assert (reading.straddling, reading.duplicates, reading.conflicting) == (2, 0, 1)


def test_labels_that_may_not_be_meant_so_are_told(folders: Path) -> None:
    for number in range(6):
        put(folders / "Dark" / f"{number}.png", png(100 + number))
        put(folders / "None" / f"{number}.png", png(110 + number))
    dataset, reading = load(folders, GREY)
    assert dataset.labels == ("Dark", "None", "dark", "light")
    assert reading.lines()[-2:] == [
        "labels differ only in case: 'Dark', 'dark'",
        "label 'None' looks like a missing value",
    ]


def test_a_class_that_cannot_be_read_at_all_stops(folders: Path) -> None:
    put(folders / "damaged" / "a.png", b"no image")
    put(folders / "damaged" / "b.png", b"no image")
    put(folders / "missing" / "a.png", b"no image").unlink()
    (folders / "missing" / "a.png").symlink_to("nowhere")
    with pytest.raises(
        DataInvalid, match=r"not one image of 'damaged', 'missing' can be read; damaged/a\.png: the bytes are not"
    ):
        load(folders, GREY)


def test_fewer_than_two_classes_stop(tmp_path: Path) -> None:
    put(tmp_path / "loose.png", png(1))
    with pytest.raises(DataInvalid, match="has no class; a classifier needs two or more"):
        load(tmp_path, GREY)
    put(tmp_path / "only" / "a.png", png(1))
    with pytest.raises(
        DataInvalid, match=r"has one class, 'only'.*; 1 skipped: is in no class folder \(loose\.png\)"
    ):
        load(tmp_path, GREY)


def test_a_class_without_a_test_image_stops(part_folders: Path) -> None:
    put(part_folders / "train" / "rare" / "a.png", png(100))
    with pytest.raises(DataInvalid, match=r"no test example of 'rare' \(1 in all\)"):
        load(part_folders, GREY)


@pytest.fixture
def little_ram(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every room for images is over the limit; returns where temporary files go."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(image_room, "MOST_IN_RAM_BYTES", 100)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    return temporary


def test_many_images_live_in_a_file_without_a_name(folders: Path, little_ram: Path) -> None:
    dataset, _ = load(folders, GREY)
    assert sorted(all_greys(dataset)) == [*range(40), *range(200, 240)]
    assert list(little_ram.iterdir()) == []
    assert str(little_ram) in Path("/proc/self/maps").read_text()


def test_few_images_live_in_ram(folders: Path, little_ram: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_room, "MOST_IN_RAM_BYTES", 80 * 4)
    dataset, _ = load(folders, GREY)
    assert len(dataset.train) > 0
    assert str(little_ram) not in Path("/proc/self/maps").read_text()


def test_a_disk_without_room_stops_before_anything_is_decoded(
    folders: Path, little_ram: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int, offset: int, size_bytes: int) -> None:
        assert (offset, size_bytes) == (0, 80 * 4)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(image_files, "decode_image", lambda *_: pytest.fail("decoded"))
    with pytest.raises(DataUnavailable, match=r"temporary has no room \(No space left on device\); set TMPDIR"):
        load(folders, GREY)
