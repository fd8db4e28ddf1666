"""Images of your own."""

from collections.abc import Collection
from dataclasses import replace

from models.manifest import ImageDecoding
from training.architectures.catalogue import IMAGES, image_network
from training.architectures.heads import replace_head
from training.classifier import channel_statistics
from training.commands import ImageFolderOptions
from training.datasets import image_files
from training.datasets.classes import check_left
from training.datasets.feedback import fold_images
from training.datasets.images import ImageDataset, LabelledImages
from training.datasets.reading import listed
from training.errors import OptionInvalid
from training.progress import Progress
from training.randomness import permutation, seed_here
from training.recipes import defaults
from training.recipes.sizing import sized
from training.tasks.images import ImageClassification

IMAGENET_LABELS = 1000
# What goes with pretrained weights, as they were trained so.
OF_THE_WEIGHTS = ("size", "color", "fit")
LEAST_STEPS = 300
LEAST_STEPS_PRETRAINED = 60


def prepare(options: ImageFolderOptions, progress: Progress) -> tuple[ImageClassification, ImageFolderOptions]:
    """Read and split the images, and build the network.

    Returns:
        The task, and the options with all that was not given filled in.

    Raises:
        OptionInvalid: One does not go with another, or the architecture takes no such images.
    """
    given = options.model_fields_set  # Before the recipe's own count as given too.
    if options.pretrained and (decided := [field for field in OF_THE_WEIGHTS if field in given]):
        raise OptionInvalid(f"--{decided[0]}: with --pretrained, the weights decide it")
    kind = defaults.PRETRAINED if options.pretrained else options.arch
    options = options.resolved(defaults.OWN_IMAGES.get(kind, defaults.OWN_IMAGES[defaults.ANY]))
    if options.flip and "flip" not in given:
        progress.say("half of the training images are mirrored; --no-flip where left and right make a difference")
    if options.pretrained:
        return _pretrained(options, given, progress)
    decoding = ImageDecoding(
        color=options.color,
        size=(options.size, options.size),
        fit=options.fit,
        shorter_side=options.size if options.fit == "crop" else None,
        max_pixels=options.max_pixels,
    )
    # What cannot be is better known before thousands of files are decoded; it does not hang on the labels.
    image_network(decoding.shape_CHW, 2, options)
    dataset = _load(options, decoding, progress)
    options = sized(options, given, len(dataset.train), LEAST_STEPS, progress)
    seed_here(options.seed, "weights")
    network = image_network(decoding.shape_CHW, len(dataset.labels), options)
    statistics = channel_statistics(dataset.train.images_NCHW)
    return ImageClassification(dataset, network, *statistics, decoding, options), options


def _pretrained(
    options: ImageFolderOptions, given: Collection[str], progress: Progress
) -> tuple[ImageClassification, ImageFolderOptions]:
    """Begin with weights that were learned on ImageNet, and the preprocessing that goes with them."""
    if options.arch == "efficientnet_lite0":
        from training import imagenet

        prepared = imagenet.efficientnet_lite0(options.max_pixels)
    elif options.arch in IMAGES:
        raise OptionInvalid(
            f"--pretrained: nobody has trained {options.arch} on ImageNet; "
            "give --arch efficientnet_lite0 or a torchvision name"
        )
    else:
        from training.architectures import zoo

        prepared = zoo.build(options.arch, IMAGENET_LABELS, "DEFAULT", options.max_pixels)
    dataset = _load(options, prepared.decoding, progress)
    options = sized(options, given, len(dataset.train), LEAST_STEPS_PRETRAINED, progress)
    seed_here(options.seed, "weights")
    replace_head(prepared.network, len(dataset.labels))
    task = ImageClassification(
        dataset,
        prepared.network,
        prepared.mean_C,
        prepared.std_C,
        prepared.decoding,
        options,
        options.head_epochs,
    )
    return task, options


def _load(options: ImageFolderOptions, decoding: ImageDecoding, progress: Progress) -> ImageDataset:
    dataset, reading = image_files.load(
        options.data,
        decoding,
        options.path_column,
        options.label_column,
        options.split_column,
        options.validation_fraction,
        options.test_fraction,
    )
    for line in reading.lines():
        progress.say(line)
    progress.say(f"{len(dataset.labels)} labels: {listed(dataset.labels)}")
    if options.limit is not None:
        dataset = _limited(dataset, options.limit, options.seed)
    return fold_images(dataset, decoding, options, progress)


def _limited(dataset: ImageDataset, limit: int, seed: int) -> ImageDataset:
    train, test = _some(dataset.train, limit, seed), _some(dataset.test, limit, seed)
    of_train, of_test = train.labels_N.tolist(), test.labels_N.tolist()
    check_left(f"--limit {limit}", "raise it", dataset.labels, {"train": of_train, "test": of_test})
    return replace(dataset, train=train, test=test)


def _some(images: LabelledImages, limit: int, seed: int) -> LabelledImages:
    # Not the first so many: they are in the order of their paths.
    return images.take(permutation(len(images), seed, "limit")[:limit])
