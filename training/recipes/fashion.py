"""Fashion-MNIST: which of ten kinds of clothing a small grey image shows."""

from collections.abc import Mapping

from models.manifest import ImageDecoding
from training.architectures.catalogue import image_network
from training.classifier import channel_statistics
from training.commands import FashionOptions
from training.datasets import fashion_mnist
from training.progress import Progress
from training.randomness import seed_here
from training.tasks.images import ImageClassification

MAX_PIXELS = 16_777_216
DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "convnet": {
        "epochs": 7,
        "learning_rate": 0.004,
        "weight_decay": 0.05,
        "label_smoothing": 0.1,
        "shift_pixels": 1,
        "ema_decay": 0.99,
    },
    "resnet": {
        "epochs": 30,
        "learning_rate": 0.003,
        "weight_decay": 0.05,
        "label_smoothing": 0.05,
        "shift_pixels": 2,
        "erase": 0.5,
        "ema_decay": 0.999,
    },
}


def prepare(options: FashionOptions, progress: Progress) -> tuple[ImageClassification, FashionOptions]:
    """Find and split the data, and build the network.

    Returns:
        The task, and the options with all that was not given filled in.
    """
    options = options.resolved(DEFAULTS.get(options.arch, {}))
    dataset = fashion_mnist.load(options.data, options.validation_fraction, options.seed, options.limit)
    progress.say(f"Fashion-MNIST: {len(dataset.train)} images to train on")
    decoding = ImageDecoding(color="L", size=fashion_mnist.SIZE, max_pixels=MAX_PIXELS)
    seed_here(options.seed, "weights")
    network = image_network(decoding.shape_CHW, len(dataset.labels), options)
    statistics = channel_statistics(dataset.train.images_NCHW)
    return ImageClassification(dataset, network, *statistics, decoding, options), options
