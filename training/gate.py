"""What stands between an exported file and publication. Axes: N images, C, H, W, K labels.

parity    the exported file gives the eager model's scores, at several batch sizes
accuracy  the test metric, measured again through the file from encoded images, as serving will see them
golden    a fresh process loads the staged bundle and gets the recorded scores (`fresh_check`)
"""

from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.golden import same_top_label
from models.manifest import ImageDecoding
from models.preprocessing import decode_image
from training.classifier import Classifier
from training.datasets.images import ImageDataset
from training.errors import GateFailed
from training.evaluate import Evaluation, evaluate
from training.export import Exported
from training.train import logits_of

PARITY_SAMPLES = 256
PARITY_BATCH_SIZES = (1, 7, 64, 256)
# Batches of different sizes take different kernels, whose sums differ in the last bits (about 5e-6 was seen).
SCORE_ATOL = 1e-4


@dataclass(frozen=True)
class Judgement:
    """What the gate measured on the test set, before and after calibration; all scores are of shape NK."""

    parity: float
    uncalibrated: Evaluation
    calibrated: Evaluation
    uncalibrated_NK: Tensor
    calibrated_NK: Tensor


def judge(
    classifier: Classifier,
    exported: Exported,
    dataset: ImageDataset,
    decoding: ImageDecoding,
    least_accuracy: float,
) -> Judgement:
    """Measure the exported file on the test set, and refuse it if it is not good enough.

    Args:
        classifier: On the CPU, as it was exported.
        exported: The file, loaded again.
        dataset: Its test part is used here and nowhere before.
        decoding: As serving will decode.
        least_accuracy: Fraction of the test images that must be right.

    Raises:
        GateFailed: Naming the check, what it found and what it wants.
    """
    parity = check_parity(classifier, exported, dataset.test.images_NCHW)
    calibrated_NK = scores_as_served(exported, dataset.test.images_NCHW, decoding)
    uncalibrated_NK = logits_of(classifier, dataset.test.images_NCHW).softmax(1)
    calibrated = evaluate(calibrated_NK, dataset.test.labels_N, dataset.labels)
    if not calibrated.accuracy >= least_accuracy:
        raise GateFailed(
            f"accuracy: {calibrated.accuracy:.2%} on the test set, through the exported file; "
            f"--min-accuracy is {least_accuracy:.2%}"
        )
    uncalibrated = evaluate(uncalibrated_NK, dataset.test.labels_N, dataset.labels)
    return Judgement(parity, uncalibrated, calibrated, uncalibrated_NK, calibrated_NK)


def check_parity(classifier: Classifier, exported: Exported, images_NCHW: Tensor) -> float:
    """Return the largest distance between eager and exported scores, over several batch sizes.

    Args:
        classifier: On the CPU, as it was exported.
        exported: The file, loaded again.
        images_NCHW: uint8; repeated if fewer than the 256 that are compared.

    Raises:
        GateFailed: A score differs by more than 1e-4, or a top label differs.
    """
    repeats = -(-PARITY_SAMPLES // len(images_NCHW))
    sample_NCHW = images_NCHW.repeat(repeats, 1, 1, 1)[:PARITY_SAMPLES]
    with torch.inference_mode():
        eager_NK = classifier.eval()(sample_NCHW)
    worst = 0.0
    for batch_size in PARITY_BATCH_SIZES:
        scores_NK = exported.scores_in_batches(sample_NCHW, batch_size)
        distance = (scores_NK - eager_NK).abs().max().item()
        if not distance <= SCORE_ATOL:
            raise GateFailed(
                f"parity: at batch size {batch_size} an exported score differs from the eager one by "
                f"{distance:.2g}; at most {SCORE_ATOL} is allowed"
            )
        if not same_top_label(scores_NK, eager_NK, SCORE_ATOL).all():
            raise GateFailed(f"parity: at batch size {batch_size} the exported file gives another label")
        worst = max(worst, distance)
    return worst


def scores_as_served(exported: Exported, images_NCHW: Tensor, decoding: ImageDecoding) -> Tensor:
    """Return scores of shape NK from PNG bytes, through the decoding and the file that serving uses."""
    decoded = [decode_image(encode_png(image_CHW), decoding) for image_CHW in images_NCHW]
    return exported.scores_in_batches(torch.stack(decoded))


def encode_png(image_CHW: Tensor) -> bytes:
    """Return a uint8 image of one or three channels as the bytes of a PNG file."""
    pixels_HWC = image_CHW.permute(1, 2, 0).numpy().astype(np.uint8)
    buffer = BytesIO()
    Image.fromarray(pixels_HWC.squeeze(2) if pixels_HWC.shape[2] == 1 else pixels_HWC).save(buffer, "PNG")
    return buffer.getvalue()
