"""A training run: its calls, in execution order."""

import torch

from models.bundle import Bundle
from models.device import choose_device
from models.manifest import ImageDecoding
from models.repository import Repository
from training.architectures.convolutional import ConvNet
from training.calibrate import fit_temperature
from training.classifier import Classifier, channel_statistics
from training.config import TrainingConfig
from training.datasets import fashion_mnist
from training.export import Exported, script
from training.gate import judge
from training.progress import Progress
from training.publish import Candidate, publish
from training.report import format_table, summarise
from training.train import logits_of, train

MAX_PIXELS = 16_777_216


def run(config: TrainingConfig, progress: Progress) -> Bundle:
    """Train, calibrate, export, judge and publish.

    Raises:
        TrainingError: With what is missing, or which check the exported file did not pass.
        ModelsError, OSError: The bundle cannot be published.
    """
    repository = Repository(config.models_dir)
    repository.check_writable(config.name)
    if config.default:
        repository.defaults()  # A table that cannot be read is better known before the training than after.
    torch.manual_seed(config.seed)
    device = choose_device(config.device)
    dataset = fashion_mnist.load(config.data, config.validation_fraction, config.seed, config.limit)
    decoding = ImageDecoding(color="L", size=fashion_mnist.SIZE, max_pixels=MAX_PIXELS)
    network = ConvNet(decoding.shape_CHW, config.hidden_size, len(dataset.labels))
    classifier = Classifier(network, *channel_statistics(dataset.train.images_NCHW)).to(device)
    progress.say(f"training on {len(dataset.train)} images, {device}")

    trained = train(classifier, dataset, config, progress)
    classifier.cpu()
    validation_logits_NK = logits_of(classifier, dataset.validation.images_NCHW)
    classifier.temperature.fill_(fit_temperature(validation_logits_NK, dataset.validation.labels_N))
    content = script(classifier)
    judgement = judge(classifier, Exported(content), dataset, decoding, config.min_accuracy)
    progress.say(format_table(judgement.calibrated))
    progress.say(summarise(trained, judgement))
    candidate = Candidate(content, classifier, trained, judgement, dataset, decoding, str(device))
    return publish(candidate, config)
