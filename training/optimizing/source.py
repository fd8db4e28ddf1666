"""The sample of a published model: from the data that it was made from, or from pictures of a user's own."""

from pathlib import Path
from typing import Any

from models.bundle import Bundle
from models.manifest import Manifest
from models.preparation import preparation_of
from training.datasets import fashion_mnist, image_files, labelled_texts, movie_reviews
from training.datasets.images import ImageDataset
from training.datasets.labelled_texts import LabelledTexts
from training.errors import DataInvalid, OptionInvalid
from training.optimizing.pictures import of_pictures
from training.optimizing.sample import Sample, of_images, of_texts
from training.progress import Progress
from training.recipes.reviews import labelled

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
            "test part cannot be told from what it learned from; what learned from corrections too gets its other "
            "forms from the --optimize of its training"
        )
