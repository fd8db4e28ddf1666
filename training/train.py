"""The training loop. Axes: N images, C channels, H height, W width, K labels."""

import copy
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.augment import flip_and_shift
from training.classifier import Classifier
from training.clock import clock_s
from training.config import TrainingConfig
from training.datasets.images import ImageDataset, LabelledImages
from training.optimizers import adamw, cosine_with_warmup
from training.progress import Progress

TIMED_STEPS = 5
WARM_STEPS = 2
EVALUATION_BATCH_SIZE = 1000


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training images came to; accuracies are fractions."""

    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    elapsed_s: float


@dataclass(frozen=True)
class Trained:
    """How the classifier came to its weights; `best_epoch` counts from 0."""

    history: tuple[Epoch, ...]
    best_epoch: int
    precision: str

    def summary(self) -> dict[str, object]:
        """The history as plain values, for the report."""
        return asdict(self)


def train(classifier: Classifier, dataset: ImageDataset, config: TrainingConfig, progress: Progress) -> Trained:
    """Train the classifier in place and leave it with the weights of the epoch that validated best.

    Args:
        classifier: On the device to train on.
        dataset: Its test part is not looked at.
        config: The run's configuration.
        progress: Told of every step and epoch.
    """
    start_s = clock_s(classifier.device)
    training_images = dataset.train.to(classifier.device)
    validation_images = dataset.validation.to(classifier.device)
    precision: str = config.precision
    if precision == "auto":
        precision = fastest_precision(classifier, training_images, config)
    steps = Steps(classifier, training_images, config, precision)
    history: list[Epoch] = []
    best_epoch, best_score, best_state = 0, (-1.0, 0.0), classifier.state_dict()
    for epoch in range(config.epochs):
        loss, accuracy = _run_epoch(steps, epoch, progress)
        with steps.autocast:
            logits_NK = logits_of(classifier, validation_images.images_NCHW)
        validation_loss = F.cross_entropy(logits_NK, validation_images.labels_N).item()
        validation_accuracy = accuracy_of(logits_NK, validation_images.labels_N)
        elapsed_s = clock_s(classifier.device) - start_s
        history.append(Epoch(loss, accuracy, validation_loss, validation_accuracy, elapsed_s))
        progress.end_epoch(validation_loss, validation_accuracy)
        if (score := (validation_accuracy, -validation_loss)) > best_score:
            best_epoch, best_score, best_state = epoch, score, copy.deepcopy(classifier.state_dict())
    classifier.load_state_dict(best_state)
    return Trained(tuple(history), best_epoch, precision)


class Steps:
    """One optimizer step after another over shuffled, augmented batches."""

    def __init__(
        self, classifier: Classifier, images: LabelledImages, config: TrainingConfig, precision: str
    ) -> None:
        self.classifier = classifier
        self.images = images
        self.config = config
        self.autocast = torch.autocast(classifier.device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
        self.generator = torch.Generator().manual_seed(config.seed)
        self.optimizer = adamw(classifier.network, config.learning_rate, config.weight_decay)
        self.schedule = cosine_with_warmup(
            self.optimizer, config.epochs * self.steps_per_epoch, config.warmup_fraction
        )

    @property
    def steps_per_epoch(self) -> int:
        """Number of whole batches; the rest of an epoch's order is left out, another rest each time."""
        return max(1, len(self.images) // self.config.batch_size)

    def epoch(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Take the steps of one epoch, yielding each one's loss and accuracy, still on the device."""
        self.classifier.network.train()
        order_N = torch.randperm(len(self.images), generator=self.generator).to(self.images.labels_N.device)
        for indices_N in order_N.split(self.config.batch_size)[: self.steps_per_epoch]:
            yield self.step(self.images.take(indices_N))
            self.schedule.step()

    def step(self, batch: LabelledImages) -> tuple[Tensor, Tensor]:
        """Augment a batch, and move the weights against its gradient."""
        images_NCHW = flip_and_shift(batch.images_NCHW, self.config.shift_pixels, self.generator)
        with self.autocast:
            logits_NK = self.classifier.logits(images_NCHW)
            loss = F.cross_entropy(logits_NK, batch.labels_N, label_smoothing=self.config.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach(), (logits_NK.detach().argmax(1) == batch.labels_N).float().mean()


def fastest_precision(classifier: Classifier, images: LabelledImages, config: TrainingConfig) -> str:
    """Time a few steps in fp32 and in bf16 on a copy of the classifier, and name the faster."""
    batch = images.take(torch.arange(min(config.batch_size, len(images))))
    median_s = {}
    for precision in ("fp32", "bf16"):
        steps = Steps(copy.deepcopy(classifier), images, config, precision)
        steps.classifier.network.train()
        times_s = [_timed(steps, batch) for _ in range(WARM_STEPS + TIMED_STEPS)]
        median_s[precision] = statistics.median(times_s[WARM_STEPS:])
    return min(median_s, key=lambda precision: median_s[precision])


def logits_of(classifier: Classifier, images_NCHW: Tensor) -> Tensor:
    """Return logits of shape NK for all images, in evaluation mode and without augmentation."""
    classifier.network.eval()
    with torch.inference_mode():
        batches = [classifier.logits(batch_NCHW) for batch_NCHW in images_NCHW.split(EVALUATION_BATCH_SIZE)]
    return torch.cat(batches)


def accuracy_of(scores_NK: Tensor, labels_N: Tensor) -> float:
    """Return the fraction of rows whose largest entry is the label's."""
    return (scores_NK.argmax(1) == labels_N).double().mean().item()


def _run_epoch(steps: Steps, epoch: int, progress: Progress) -> tuple[float, float]:
    progress.begin_epoch(epoch, steps.steps_per_epoch)
    losses, accuracies = [], []
    for loss, accuracy in steps.epoch():
        losses.append(loss)
        accuracies.append(accuracy)
        progress.step(loss, accuracy)
    return torch.stack(losses).mean().item(), torch.stack(accuracies).mean().item()


def _timed(steps: Steps, batch: LabelledImages) -> float:
    start_s = clock_s(steps.classifier.device)
    steps.step(batch)
    return clock_s(steps.classifier.device) - start_s


def count_parameters(network: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
