"""Fashion-MNIST: which of ten kinds of clothing a small grey image shows."""

from models.manifest import ImageDecoding
from training.architectures.catalogue import image_network
from training.classifier import channel_statistics
from training.commands import FashionOptions
from training.datasets import fashion_mnist
from training.datasets.feedback import fold_images
from training.progress import Progress
from training.randomness import seed_here
from training.recipes import defaults
from training.tasks.images import ImageClassification

MAX_PIXELS = 16_777_216


def prepare(options: FashionOptions, progress: Progress) -> tuple[ImageClassification, FashionOptions]:
    """Find and split the data, and build the network.

    Returns:
        The task, and the options with all that was not given filled in.
    """
    options = options.resolved(defaults.FASHION.get(options.arch, {}))
    dataset = fashion_mnist.load(options.data, options.validation_fraction, options.seed, options.limit)
    decoding = ImageDecoding(color="L", size=fashion_mnist.SIZE, max_pixels=MAX_PIXELS)
    dataset = fold_images(dataset, decoding, options, progress)
    progress.say(f"Fashion-MNIST: {len(dataset.train)} images to train on")
    seed_here(options.seed, "weights")
    network = image_network(decoding.shape_CHW, len(dataset.labels), options)
    statistics = channel_statistics(dataset.train.images_NCHW)
    return ImageClassification(dataset, network, *statistics, decoding, options), options
