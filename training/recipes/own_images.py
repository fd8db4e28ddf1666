"""Images of your own."""

from collections.abc import Mapping

from models.manifest import ImageDecoding
from training.architectures.catalogue import image_network
from training.classifier import channel_statistics
from training.commands import ImageFolderOptions
from training.datasets import image_files
from training.progress import Progress
from training.randomness import seed_here
from training.tasks.images import ImageClassification

DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "convnet": {"epochs": 20, "weight_decay": 0.05, "label_smoothing": 0.05, "shift_pixels": 2, "batch_size": 64},
    "resnet": {
        "epochs": 30,
        "weight_decay": 0.05,
        "label_smoothing": 0.05,
        "shift_pixels": 4,
        "erase": 0.25,
        "batch_size": 64,
    },
}


def prepare(options: ImageFolderOptions, progress: Progress) -> tuple[ImageClassification, ImageFolderOptions]:
    """Read and split the images, and build the network.

    Returns:
        The task, and the options with all that was not given filled in.
    """
    options = options.resolved(DEFAULTS.get(options.arch, DEFAULTS["resnet"]))
    decoding = ImageDecoding(
        color=options.color,
        size=(options.size, options.size),
        fit=options.fit,
        shorter_side=options.size if options.fit == "crop" else None,
        max_pixels=options.max_pixels,
    )
    dataset, reading = image_files.load(
        options.data, decoding, options.path_column, options.label_column, options.split_column
    )
    for line in reading.lines():
        progress.say(line)
    seed_here(options.seed, "weights")
    network = image_network(decoding.shape_CHW, len(dataset.labels), options)
    statistics = channel_statistics(dataset.train.images_NCHW)
    return ImageClassification(dataset, network, *statistics, decoding, options), options
