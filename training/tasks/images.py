"""Image classification. Axes: N images, C channels, H height, W width, K labels."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from models.manifest import ImageDecoding, Postprocess, TensorSpec
from models.preparation import ImagePreparation
from training.architectures.heads import head_name
from training.augment import erase, flip_and_shift, mix
from training.classifier import Classifier
from training.config import ImageOptions
from training.datasets.images import ImageDataset
from training.optimizing.sample import Sample, of_images
from training.tasks.classification import ClassificationTask, description_of
from training.tasks.task import Phase, all_at_once

EVALUATED_AT_ONCE_PIXELS = 1000 * 28 * 28
# With pretrained weights, the share of the learning rate that the first layer takes.
FIRST_LAYER_RATE = 0.05


class ImageClassification(ClassificationTask):
    """Images with one label each, all of them in memory.

    Args:
        dataset: The images, as `decoding` gives them.
        network: Normalised float images of shape NCHW -> logits of shape NK.
        mean_C: What is subtracted, of images scaled to 0..1.
        std_C: What they are then divided by.
        decoding: How an image file becomes an example.
        options: The run's.
        head_epochs: Passes that train the last layer alone, before all are trained, the early ones slowly; for
            a network that has learned before. 0: everything is trained from the start.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        network: nn.Module,
        mean_C: Tensor,
        std_C: Tensor,
        decoding: ImageDecoding,
        options: ImageOptions,
        head_epochs: int = 0,
    ) -> None:
        self.dataset = dataset
        self.data_sha256 = dataset.sha256
        self.labels = dataset.labels
        self.model: nn.Module = Classifier(network, mean_C, std_C)
        self.preparation = ImagePreparation(decoding)
        self.least_accuracy = options.min_accuracy
        self.train_size = len(dataset.train)
        self._train, self._validation = dataset.train, dataset.validation
        self._decoding = decoding
        self._options = options
        self._head = head_name(network) if head_epochs else ""
        self._head_epochs = head_epochs
        self._head_only = False
        self._device = torch.device("cpu")

    def phases(self) -> Sequence[Phase]:
        """With pretrained weights, the head first: its random gradients would spoil what the others know."""
        if not self._head_epochs:
            return all_at_once()
        return (
            Phase("head", lambda: self._train_only_the_head(True), self._head_epochs),
            Phase("all", lambda: self._train_only_the_head(False)),
        )

    def rate(self, parameter: str) -> float:
        """With pretrained weights, the earlier a layer the slower it learns.

        Source: Howard and Ruder, "Universal language model fine-tuning", arXiv:1801.06146, section 3.2.
        """
        if not self._head_epochs or parameter.startswith(f"network.{self._head}."):
            return 1.0
        names = [name for name, _ in self.model.named_parameters()]
        share: float = FIRST_LAYER_RATE ** (1 - names.index(parameter) / len(names))
        return share

    def _train_only_the_head(self, only: bool) -> None:
        self._head_only = only
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(not only or name.startswith(f"network.{self._head}."))

    def to(self, device: torch.device) -> None:
        """Move the model there, and the images if they fit; otherwise they follow batch by batch."""
        self.model.to(device)
        self._device = device
        train, validation = self.dataset.train, self.dataset.validation
        if _fit(device, train.images_NCHW.nbytes + validation.images_NCHW.nbytes):
            train, validation = train.to(device), validation.to(device)
        self._train, self._validation = train, validation

    def batches(self, order_N: Tensor, batch_size: int) -> Sequence[Tensor]:
        """Cut the order as it is."""
        batches: Sequence[Tensor] = order_N.split(batch_size)
        return batches

    def loss(self, model: nn.Module, indices_N: Tensor, *, augment: bool) -> tuple[Tensor, Tensor]:
        """Return summed cross entropy and the number of right answers."""
        options = self._options
        batch = self._train.take(indices_N.to(self._train.labels_N.device)).to(self._device)
        images_NCHW, targets = batch.images_NCHW, batch.labels_N
        if augment:
            images_NCHW = flip_and_shift(images_NCHW, options.shift_pixels, flip=options.flip)
            if options.erase:
                images_NCHW = erase(images_NCHW, options.erase)
            if options.mixup or options.cutmix:
                K = len(self.labels)
                images_NCHW, targets = mix(images_NCHW.float(), targets, K, options.mixup, options.cutmix)
        assert isinstance(model, Classifier)  # noqa: S101 (the loop passes this task's own model, or a copy)
        if self._head_only:
            model.eval()  # The statistics of the layers before are to stay as they were learned.
        logits_NK = model.logits(images_NCHW)
        loss = F.cross_entropy(logits_NK, targets, label_smoothing=options.label_smoothing, reduction="sum")
        return loss, (logits_NK.detach().argmax(1) == batch.labels_N).sum()

    def validation_logits(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """Return the validation part's logits NK, and its labels N."""
        assert isinstance(model, Classifier)  # noqa: S101 (likewise)
        images_NCHW = self._validation.images_NCHW
        at_once = max(1, EVALUATED_AT_ONCE_PIXELS // (images_NCHW.shape[2] * images_NCHW.shape[3]))
        logits = [model.logits(batch_NCHW.to(self._device)) for batch_NCHW in images_NCHW.split(at_once)]
        return torch.cat(logits), self._validation.labels_N.to(self._device)

    def test_content(self, index: int) -> bytes:
        """Return a test image as the bytes of a PNG file: without loss."""
        return encode_png(self.dataset.test.images_NCHW[index])

    def test_labels(self) -> Tensor:
        """Return the test part's labels, int64 of shape N."""
        return self.dataset.test.labels_N

    def golden_name(self, index: int) -> str:
        """Return the file name of a golden input."""
        return f"{index}.png"

    def description(self) -> Mapping[str, Any]:
        """Return the manifest's fields that say what the model takes and gives."""
        return description_of(
            TensorSpec(name="images", dtype="uint8", shape=("N", *self._decoding.shape_CHW)),
            self.score_spec(),
            task="image-classification",
            decode=self._decoding,
            labels=self.labels,
            postprocess=Postprocess(temperature=self.temperature.item()),
        )

    def files(self) -> Mapping[str, bytes]:
        """Nothing: all that it needs is in the graph and the manifest."""
        return {}

    def sizes(self) -> Mapping[str, int]:
        """Return the number of images of each part."""
        dataset = self.dataset
        return {"train": len(dataset.train), "validation": len(dataset.validation), "test": len(dataset.test)}

    def sample(self) -> Sample:
        """Return images of the training part, and the test part."""
        return of_images(self.dataset)


def _fit(device: torch.device, size: int) -> bool:
    # The other half is for the network's own work.
    return device.type != "cuda" or size < torch.cuda.mem_get_info(device)[0] / 2


def encode_png(image_CHW: Tensor) -> bytes:
    """Return a uint8 image of one or three channels as the bytes of a PNG file."""
    pixels_HWC = image_CHW.permute(1, 2, 0).numpy().astype(np.uint8)
    buffer = BytesIO()
    Image.fromarray(pixels_HWC.squeeze(2) if pixels_HWC.shape[2] == 1 else pixels_HWC).save(buffer, "PNG")
    return buffer.getvalue()
