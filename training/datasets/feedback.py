"""Corrections that a service stored, folded into what is trained on. Axes: N images, C, H, W, K labels.

They go to the training part alone: what a version is measured on stays what it was, so that versions compare. An
input that is measured on is left out, for it would be measured on what it was taught.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from models.errors import ImageTooLarge, UndecodableImage
from models.feedback import Correction, corrections
from models.manifest import ImageDecoding
from models.preprocessing import decode_image
from models.repository import InputKind
from training.config import TrainingOptions
from training.datasets.images import ImageDataset, LabelledImages
from training.datasets.keyed import folded, key_of, spaced
from training.datasets.labelled_texts import LabelledText
from training.datasets.sequence_pairs import SequencePair
from training.progress import Progress

MEASURED_ON = "the same input is in test or validation"


def fold_images(
    dataset: ImageDataset, decoding: ImageDecoding, options: TrainingOptions, progress: Progress
) -> ImageDataset:
    """Add corrected images; one that is there already under another label takes its place.

    Raises:
        FeedbackUnavailable: The file cannot be read.
    """
    found = _read(options)
    index_of = {label: index for index, label in enumerate(dataset.labels)}
    left_out: Counter[str] = Counter()
    measured = {
        _pixels(image_CHW) for part in (dataset.validation, dataset.test) for image_CHW in part.images_NCHW
    }
    added: dict[bytes, tuple[Tensor, int]] = {}
    for each in found:
        image_CHW = _decode(each, decoding)
        reason = _why_not(each, "image", index_of) or (image_CHW if isinstance(image_CHW, str) else None)
        if reason is None and isinstance(image_CHW, Tensor):
            reason = MEASURED_ON if _pixels(image_CHW) in measured else None
            added |= {} if reason else {_pixels(image_CHW): (image_CHW, index_of[each.answer])}
        left_out.update([reason] if reason else [])
    _tell(len(added), left_out, options, progress)
    if not added:
        return dataset
    kept = torch.tensor([_pixels(image_CHW) not in added for image_CHW in dataset.train.images_NCHW])
    images, labels = zip(*added.values(), strict=True)
    train = LabelledImages(
        torch.cat([dataset.train.images_NCHW[kept], torch.stack(images)]),
        torch.cat([dataset.train.labels_N[kept], torch.tensor(labels)]),
    )
    return replace(dataset, train=train, sha256=_sha256(dataset.sha256, found))


def corrected_texts(
    train: Sequence[LabelledText],
    measured: Sequence[LabelledText],
    labels: Sequence[str],
    options: TrainingOptions,
    progress: Progress,
) -> tuple[list[int], list[LabelledText]]:
    """Say which of the training texts stay, and what is added to them.

    Args:
        train: What is trained on without.
        measured: What is validated and tested on.
        labels: Of the data.
        options: Name the file and the model.
        progress: Told what became of the corrections.

    Raises:
        FeedbackUnavailable: The file cannot be read.
    """
    index_of = {label: index for index, label in enumerate(labels)}
    held_out = {_words(text.text) for text in measured}
    added: dict[bytes, LabelledText] = {}
    left_out: Counter[str] = Counter()
    for each in _read(options):
        text = _text(each)
        reason = _why_not(each, "text", index_of) or (MEASURED_ON if _words(text) in held_out else None)
        added |= {} if reason else {_words(text): LabelledText(text, index_of[each.answer])}
        left_out.update([reason] if reason else [])
    _tell(len(added), left_out, options, progress)
    kept = [index for index, text in enumerate(train) if not added or _words(text.text) not in added]
    return kept, list(added.values())


def fold_pairs(
    train: Sequence[SequencePair],
    measured: Sequence[SequencePair],
    seen_as: Callable[[str], str],
    written_as: Callable[[str], str],
    options: TrainingOptions,
    progress: Progress,
) -> list[SequencePair]:
    """Add corrected pairs; one whose source is there already takes its place.

    Args:
        train: What is trained on without.
        measured: What is validated and tested on.
        seen_as: What the model will see of a source: two that it cannot tell apart are the same.
        written_as: What the model can write of a target.
        options: Name the file and the model.
        progress: Told what became of the corrections.

    Raises:
        FeedbackUnavailable: The file cannot be read.
    """
    held_out = {seen_as(pair.source) for pair in measured}
    added: dict[str, SequencePair] = {}
    left_out: Counter[str] = Counter()
    for each in _read(options):
        source, target = _text(each), written_as(each.answer)
        reason = _why_not(each, "text") or (MEASURED_ON if seen_as(source) in held_out else None)
        reason = reason or (None if target else "the right text is empty")
        added |= {} if reason else {seen_as(source): SequencePair(source, (target,))}
        left_out.update([reason] if reason else [])
    _tell(len(added), left_out, options, progress)
    return [*(pair for pair in train if seen_as(pair.source) not in added), *added.values()]


def with_feedback(data_sha256: str, options: TrainingOptions) -> str:
    """Return the sha256 of data and the corrections that were folded into them."""
    found = _read(options)
    return _sha256(data_sha256, found) if found else data_sha256


def _read(options: TrainingOptions) -> Sequence[Correction]:
    return () if options.feedback is None else _read_once(options.feedback, options.name)


@cache
def _read_once(file: Path, model: str) -> Sequence[Correction]:
    # Once a run: a service may write on, and what is recorded of the data must be what is trained on.
    return corrections(file, model)


def _why_not(correction: Correction, kind: InputKind, index_of: Mapping[str, int] | None = None) -> str | None:
    if correction.kind != kind:
        return f"the input is no {kind}"
    known = index_of is None or correction.answer in index_of
    return None if known else f"the data have no label {correction.answer!r}"


def _decode(correction: Correction, decoding: ImageDecoding) -> Tensor | str:
    try:
        return decode_image(correction.content or b"", decoding)
    except (ImageTooLarge, UndecodableImage):
        return "the image cannot be decoded"


def _tell(added: int, left_out: Counter[str], options: TrainingOptions, progress: Progress) -> None:
    if added or left_out:
        progress.say(f"feedback: {added} corrected examples are trained on")
    elif options.feedback is not None:
        progress.say(f"feedback: {options.feedback.name} has no correction of {options.name} with its input")
    for reason, count in left_out.items():
        progress.say(f"feedback: {count} left out: {reason}")


def _text(correction: Correction) -> str:
    return (correction.content or b"").decode("utf-8", "replace")


def _words(text: str) -> bytes:
    return key_of(spaced(folded(text)))


def _pixels(image_CHW: Tensor) -> bytes:
    return hashlib.sha256(image_CHW.numpy().tobytes()).digest()


def _sha256(data_sha256: str, found: Sequence[Correction]) -> str:
    digest = hashlib.sha256(data_sha256.encode())
    for each in found:
        digest.update(hashlib.sha256(each.content or b"").digest() + each.answer.encode() + b"\n")
    return digest.hexdigest()
