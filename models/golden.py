"""The golden check: a loaded model gives what it gave when published. Axes: N, K labels, B texts, T tokens."""

from collections.abc import Callable

import torch
from torch import Tensor

from models.backend import Backend
from models.bundle import Bundle
from models.errors import GoldenMismatch
from models.manifest import Manifest, Writing
from models.preparation import preparation_of
from models.tokenization import Tokenizer

# Scores of shape NK; or what a model writes: tokens of shape NBT and scores of shape NB.
Outputs = Tensor | tuple[Tensor, Tensor]


def check_golden(bundle: Bundle, backend: Backend, infer: Callable[[Tensor], Outputs]) -> None:
    """Run the bundle's raw golden inputs through their preparation and `infer`, and compare what comes out.

    Args:
        bundle: A verified bundle; its golden inputs are read from it.
        backend: The backend that `infer` runs; its tolerance applies.
        infer: A batch, as the manifest's `inputs` say -> outputs, as its `outputs` say.

    Raises:
        GoldenMismatch: A score lies further off than the backend's tolerance, top-1 differs too often, or
            another text is written.
    """
    manifest = bundle.manifest
    preparation = preparation_of(manifest, bundle.read)
    examples = [preparation.prepare(bundle.read(golden.file)) for golden in manifest.golden]
    outputs = infer(preparation.collate(examples))
    if manifest.write is None:
        _check_scores(manifest, backend, outputs)
    else:
        _check_texts(manifest, backend, outputs, manifest.write, Tokenizer(bundle.read(manifest.write.file)))


def same_top_label(scores_NK: Tensor, expected_NK: Tensor, atol: float) -> Tensor:
    """Return for each row whether its best label is the expected one, or ties with it within `atol`."""
    top_N1 = scores_NK.argmax(1, keepdim=True)
    return (expected_NK.gather(1, top_N1) >= expected_NK.max(1, keepdim=True).values - atol).squeeze(1)


def _check_scores(manifest: Manifest, backend: Backend, outputs: Outputs) -> None:
    if not isinstance(outputs, Tensor):
        raise GoldenMismatch("the model does not give one tensor of scores")
    scores_NK = _compare(manifest, backend, outputs)
    expected_NK = _expected(manifest)
    agreement = same_top_label(scores_NK, expected_NK, backend.tolerance.atol).double().mean().item()
    if agreement < backend.tolerance.min_top1_agreement:
        raise GoldenMismatch(f"top-1 agrees with the golden scores on only {agreement:.1%}")


def _check_texts(
    manifest: Manifest, backend: Backend, outputs: Outputs, write: Writing, writer: Tokenizer
) -> None:
    if isinstance(outputs, Tensor):
        raise GoldenMismatch("the model does not give tokens and scores")
    tokens_NBT, scores_NB = outputs
    if tokens_NBT.ndim != 3 or tokens_NBT.shape[:2] != scores_NB.shape:
        shapes = f"{tuple(tokens_NBT.shape)} and {tuple(scores_NB.shape)}"
        raise GoldenMismatch(f"tokens and scores have shapes {shapes}, not N x B x T and N x B")
    count, length = tokens_NBT.shape[1:]
    if count != write.beams or length > write.max_tokens:
        raise GoldenMismatch(
            f"the model writes {count} texts of {length} tokens for an input, "
            f"not {write.beams} of at most {write.max_tokens}"
        )
    _compare(manifest, backend, scores_NB[:, :1])
    for golden, tokens_BT in zip(manifest.golden, tokens_NBT, strict=True):
        if (text := writer.decode(tokens_BT[0].tolist())) != golden.texts[0]:
            raise GoldenMismatch(f"for {golden.file} the model writes {text!r}, not {golden.texts[0]!r}")


def _compare(manifest: Manifest, backend: Backend, outputs_NK: Tensor) -> Tensor:
    scores_NK, expected_NK = outputs_NK.float().cpu(), _expected(manifest)
    if scores_NK.shape != expected_NK.shape:
        raise GoldenMismatch(f"the scores have shape {tuple(scores_NK.shape)}, not {tuple(expected_NK.shape)}")
    # Written so that a NaN, which compares false with everything, fails the check.
    distance = (scores_NK - expected_NK).abs().max().item()
    if not distance <= backend.tolerance.atol:
        raise GoldenMismatch(f"a golden score is off by {distance:.2g}; {backend.tolerance.atol:.2g} is allowed")
    return scores_NK


def _expected(manifest: Manifest) -> Tensor:
    return torch.tensor([golden.scores for golden in manifest.golden])
