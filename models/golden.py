"""The golden check: a loaded model must give the scores that it gave when it was published."""

from collections.abc import Callable

import torch
from torch import Tensor

from models.bundle import Bundle
from models.errors import GoldenMismatch
from models.manifest import Backend
from models.preprocessing import decode_image


def check_golden(bundle: Bundle, backend: Backend, infer: Callable[[Tensor], Tensor]) -> None:
    """Run the bundle's raw golden inputs through decoding and `infer`, and compare the scores.

    Args:
        bundle: A verified bundle; its golden inputs are read from it.
        backend: The backend that `infer` runs; its tolerance applies.
        infer: uint8 images of shape NCHW -> float scores of shape NK.

    Raises:
        GoldenMismatch: A score lies further off than the backend's tolerance, or top-1 differs too often.
    """
    manifest = bundle.manifest
    examples = [decode_image(bundle.read(golden.file), manifest.decode) for golden in manifest.golden]
    expected_NK = torch.tensor([golden.scores for golden in manifest.golden])
    scores_NK = infer(torch.stack(examples)).float().cpu()
    if scores_NK.shape != expected_NK.shape:
        raise GoldenMismatch(f"the scores have shape {tuple(scores_NK.shape)}, not {tuple(expected_NK.shape)}")
    # Written so that a NaN, which compares false with everything, fails the check.
    distance = (scores_NK - expected_NK).abs().max().item()
    if not distance <= backend.tolerance.atol:
        raise GoldenMismatch(f"a golden score is off by {distance:.2g}; {backend.tolerance.atol:.2g} is allowed")
    agreement = same_top_label(scores_NK, expected_NK, backend.tolerance.atol).double().mean().item()
    if agreement < backend.tolerance.min_top1_agreement:
        raise GoldenMismatch(f"top-1 agrees with the golden scores on only {agreement:.1%}")


def same_top_label(scores_NK: Tensor, expected_NK: Tensor, atol: float) -> Tensor:
    """Return for each row whether its best label is the expected one, or ties with it within `atol`."""
    top_N1 = scores_NK.argmax(1, keepdim=True)
    return (expected_NK.gather(1, top_N1) >= expected_NK.max(1, keepdim=True).values - atol).squeeze(1)
