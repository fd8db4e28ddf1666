"""The sample of a published model: from the data that it was made from, or from pictures of a user's own."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from models.bundle import Bundle
from models.errors import ExampleError
from models.manifest import ImageDecoding, Manifest
from models.preparation import preparation_of
from models.preprocessing import decode_image
from training.datasets import fashion_mnist, image_files, labelled_texts, movie_reviews
from training.datasets.image_files import LARGEST_FILE_BYTES
from training.datasets.images import ImageDataset
from training.datasets.keyed import plain
from training.datasets.labelled_texts import LabelledTexts
from training.datasets.layout import folders, visible
from training.datasets.reading import listed
from training.errors import DataInvalid, DataUnavailable, OptionInvalid
from training.optimizing.sample import MOST_TO_QUANTIZE, Sample, of_images, of_texts
from training.progress import Progress
from training.randomness import derived_seed
from training.recipes.reviews import labelled

# More pictures say little more, and all are held in memory.
MOST_PICTURES = 3000
NO_LABEL = -1
OF_TABLES = ("label_column", "split_column", "validation_fraction", "test_fraction")


def sample_of(bundle: Bundle, data: Path | None, progress: Progress) -> Sample:
    """Return what other forms of a published model are made and judged by.

    Args:
        bundle: The model's.
        data: What it was trained on, where that is not a package's; of an imported model, pictures.
        progress: Told of what cannot be read.

    Raises:
        OptionInvalid: Data are wanted and none were given, or the model has no other form.
        DataUnavailable, DataInvalid: They cannot be read, or are not those that it was trained on.
    """
    manifest = bundle.manifest
    if manifest.task == "text-to-text":
        raise OptionInvalid(f"{manifest.name} writes texts; other forms are made of models that give labels only")
    recipe = manifest.source.config.get("recipe")
    if recipe == "reviews" and data is not None:
        raise OptionInvalid(f"--data: {manifest.name} is judged by the reviews of its package; leave it out")
    match recipe:
        case "fashion":
            images = fashion_mnist.load(data, **_chosen(manifest, "validation_fraction", "seed", "limit"))
            _check_same(images.sha256, manifest)
            return of_images(images)
        case "image":
            images = _own_images(_given(data, manifest), manifest)
            _check_same(images.sha256, manifest)
            return of_images(images)
        case "reviews":
            reviews = movie_reviews.load(**_chosen(manifest, "split"))
            return of_texts(labelled(reviews.train), labelled(reviews.test), preparation_of(manifest, bundle.read))
        case "text":
            texts = _own_texts(_given(data, manifest), manifest)
            _check_same(texts.sha256, manifest)
            return of_texts(texts.train, texts.test, preparation_of(manifest, bundle.read))
    # What was trained here before recipes were recorded could be judged by what it learned from.
    if manifest.decode is None or "epochs" in manifest.source.config:
        raise OptionInvalid(
            f"{manifest.name} does not say what it was trained on; train it again, with --optimize"
        )
    return of_pictures(_given(data, manifest), manifest.decode, manifest.labels, progress)


def of_pictures(folder: Path, decoding: ImageDecoding, labels: tuple[str, ...], progress: Progress) -> Sample:
    """Return the pictures below a folder, of which a half, or 300, are to quantize by, and the others to judge by.

    What a picture is for follows from the pictures' names alone; copies of one count once.

    Args:
        folder: Of pictures, or of folders named by label.
        decoding: The model's.
        labels: The model's.
        progress: Told of what cannot be read.

    Raises:
        DataUnavailable: It is not there.
        DataInvalid: It has folders that are no labels, or too few pictures.
    """
    if not folder.is_dir():
        raise DataUnavailable(f"{folder} is not a folder")
    index_of = _indices(folder, labels)
    quantize: list[Tensor] = []
    judge: list[tuple[Tensor, int]] = []
    seen: set[bytes] = set()
    for file in _some_files(folder):
        try:
            digest, example = _read(file, decoding)
        except (ExampleError, OSError) as error:
            progress.say(f"skipped: {file}: {error}")
            continue
        if digest in seen:
            continue
        seen.add(digest)
        if len(seen) % 2 and len(quantize) < MOST_TO_QUANTIZE:
            quantize.append(example)
        else:
            judge.append((example, index_of.get(file.relative_to(folder).parts[0], NO_LABEL)))
    known = [index for _, index in judge] if index_of else None
    return Sample(quantize, [example for example, _ in judge], known)


def _indices(folder: Path, labels: Sequence[str]) -> Mapping[str, int]:
    """Return the label of each folder in a folder, as an index; nothing if there are only pictures."""
    index_of = {label: index for index, label in enumerate(labels)}
    found = {each.name: index_of.get(plain(each.name), NO_LABEL) for each in folders(folder)}
    if strange := [name for name, index in found.items() if index == NO_LABEL]:
        raise DataInvalid(
            f"{folder}: {listed(strange)} are none of the model's labels; put pictures whose label is not known "
            "into the folder itself"
        )
    if found and any(path.is_file() for path in visible(folder)):
        raise DataInvalid(f"{folder} has pictures in folders named by label and others beside them; move either")
    return found


def _some_files(folder: Path) -> list[Path]:
    """Return the files below a folder, or so many of them as are wanted, in an order that their names decide."""
    files = [file for each in (folder, *folders(folder)) for file in _files_of(each, deep=each != folder)]
    return sorted(files, key=lambda file: derived_seed(file.relative_to(folder).as_posix()))[:MOST_PICTURES]


def _files_of(folder: Path, *, deep: bool) -> Iterator[Path]:
    for path in visible(folder):
        if path.is_file():
            yield path
        # A link to a folder may lead in a circle.
        elif deep and path.is_dir() and not path.is_symlink():
            yield from _files_of(path, deep=True)


def _read(file: Path, decoding: ImageDecoding) -> tuple[bytes, Tensor]:
    """Return the sha256 of a picture's pixels, and these."""
    if file.stat().st_size > LARGEST_FILE_BYTES:
        raise OSError(f"is larger than {LARGEST_FILE_BYTES >> 20} MiB")
    example_CHW = decode_image(file.read_bytes(), decoding)
    return hashlib.sha256(example_CHW.numpy().tobytes()).digest(), example_CHW


def _given(data: Path | None, manifest: Manifest) -> Path:
    if data is not None:
        return data
    wanted = (
        "what it was trained on" if "recipe" in manifest.source.config else "pictures like those it will be asked"
    )
    raise OptionInvalid(f"--data: give {wanted}: {manifest.name} is to be judged by it")


def _own_images(data: Path, manifest: Manifest) -> ImageDataset:
    assert manifest.decode is not None, "the manifest's own check: it takes images"  # noqa: S101
    columns = _chosen(manifest, "path_column", *OF_TABLES)
    return image_files.load(data, manifest.decode, **columns)[0]


def _own_texts(data: Path, manifest: Manifest) -> LabelledTexts:
    return labelled_texts.load(data, **_chosen(manifest, "text_column", *OF_TABLES))


def _chosen(manifest: Manifest, *options: str) -> dict[str, Any]:
    return {option: manifest.source.config[option] for option in options}


def _check_same(sha256: str, manifest: Manifest) -> None:
    if sha256 != manifest.source.data_sha256:
        raise DataInvalid(
            f"--data: these are not the data that {manifest.name} {manifest.version} was trained on, so that its "
            "test part cannot be told from what it learned from"
        )
