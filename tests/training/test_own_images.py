"""Images of a user's own, from files to a task."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.images import encoded, png
from tests.training.small import silent
from training.commands import ImageFolderOptions
from training.datasets import image_files
from training.datasets.images import LabelledImages
from training.errors import DataInvalid, DataUnavailable, OptionInvalid, UnknownArchitecture
from training.recipes.own_images import prepare

SHADES: Mapping[str, range] = {"dark": range(100), "light": range(150, 250)}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for label, greys in SHADES.items():
        (tmp_path / label).mkdir()
        for grey in greys:
            (tmp_path / label / f"{grey:03}.png").write_bytes(png(grey))
    return tmp_path


def options(data: Path, **changes: Any) -> ImageFolderOptions:
    return ImageFolderOptions(**{"name": "own", "data": data, "size": 8, "color": "L"} | changes)


def greys(images: LabelledImages) -> list[int]:
    return images.images_NCHW[:, 0, 0, 0].tolist()


def test_the_fractions_are_the_users(data: Path) -> None:
    small, _ = prepare(options(data, test_fraction=0.1, validation_fraction=0.1), silent())
    large, _ = prepare(options(data, test_fraction=0.5, validation_fraction=0.1), silent())
    assert set(greys(small.dataset.test)) < set(greys(large.dataset.test))
    with pytest.raises(DataInvalid, match=r"--validation-fraction 0\.5 and --test-fraction 0\.5 leave nothing"):
        prepare(options(data, test_fraction=0.5, validation_fraction=0.5), silent())


def test_a_limit_takes_some_of_all_and_not_the_first(data: Path) -> None:
    whole, _ = prepare(options(data), silent())
    some, _ = prepare(options(data, limit=64), silent())
    again, _ = prepare(options(data, limit=64), silent())
    assert (some.train_size, len(some.dataset.test)) == (64, min(64, len(whole.dataset.test)))
    assert set(greys(some.dataset.train)) < set(greys(whole.dataset.train))
    assert set(some.dataset.train.labels_N.tolist()) == {0, 1}
    assert torch.equal(some.dataset.validation.images_NCHW, whole.dataset.validation.images_NCHW)
    assert torch.equal(some.dataset.train.images_NCHW, again.dataset.train.images_NCHW)


def test_a_limit_that_leaves_nothing_of_a_class_stops(data: Path) -> None:
    for shade in range(80):
        folder = data / f"shade {shade}"
        folder.mkdir()
        for number in range(3):
            (folder / f"{number}.png").write_bytes(two_greys(shade, 100 + number))
    with pytest.raises(
        DataInvalid, match=r"--limit 64 leaves no train example of .*'shade \d+' .* more; raise it"
    ):
        prepare(options(data, limit=64), silent())


def two_greys(left: int, right: int) -> bytes:
    image = Image.new("L", (8, 8), left)
    image.paste(right, (4, 0, 8, 8))
    return encoded(image, "PNG")


def test_what_cannot_be_is_told_before_the_data_are_read(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "decode_image", lambda *_: pytest.fail("decoded"))
    with pytest.raises(OptionInvalid, match="--arch: no 'convent'"):
        prepare(options(data, arch="convent"), silent())
    with pytest.raises(OptionInvalid, match="it takes images in colour, and these are grey"):
        prepare(options(data, arch="resnet18"), silent())
    with pytest.raises(OptionInvalid, match="--size 32: alexnet cannot take"):
        prepare(options(data, arch="alexnet", size=32, color="RGB"), silent())
    with pytest.raises(OptionInvalid, match="--pretrained: nobody has trained resnet on ImageNet"):
        prepare(ImageFolderOptions(name="own", data=data, pretrained=True, arch="resnet"), silent())
    with pytest.raises(UnknownArchitecture, match="torchvision has no classifier 'resnet17'"):
        prepare(ImageFolderOptions(name="own", data=data, pretrained=True, arch="resnet17"), silent())


def test_pretrained_weights_are_those_that_a_package_carries_unless_others_are_named(data: Path) -> None:
    given = ImageFolderOptions(name="own", data=data, pretrained=True, learning_rate=0.5)
    task, resolved = prepare(given, silent())
    assert (resolved.arch, resolved.learning_rate, resolved.batch_size) == ("efficientnet_lite0", 0.5, 17)
    assert [phase.name for phase in task.phases()] == ["head", "all"]
    assert task.dataset.train.images_NCHW.shape[1:] == (3, 224, 224)


@pytest.mark.parametrize("given", [{"size": 64}, {"color": "RGB"}, {"fit": "crop"}])
def test_what_pretrained_weights_decide_cannot_be_given(data: Path, given: dict[str, Any]) -> None:
    [option] = given
    with pytest.raises(OptionInvalid, match=f"--{option}: with --pretrained, the weights decide it"):
        prepare(ImageFolderOptions(name="own", data=data, pretrained=True, **given), silent())


def test_data_that_are_not_there_stop(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable, match="nowhere is not there"):
        prepare(options(tmp_path / "nowhere"), silent())
