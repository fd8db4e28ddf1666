"""What stands between an exported file and publication. Axes: N items, K labels, B beams, T tokens.

parity    the exported file gives what the eager model gives, at several batch sizes
metric    the test metric, measured again through the file from raw inputs, as serving will see them (the task's)
golden    a fresh process loads and freezes the staged bundle, as serving will, and gets the recorded answers
          (`fresh_check`)
"""

import torch
from torch import Tensor, nn

from models.golden import Outputs, same_top_label
from training.errors import GateFailed
from training.export import Exported

PARITY_BATCH_SIZES = (1, 7, 64, 256)
# Row by row, all of them would take long; so many batches of a size are compared.
MOST_BATCHES = 32
# Batches of different sizes take different kernels, whose sums differ in the last bits (about 5e-6 was seen).
SCORE_ATOL = 1e-4


def check_parity(model: nn.Module, exported: Exported, batch: Tensor) -> float:
    """Return the largest distance between eager and exported scores, over several batch sizes.

    Args:
        model: On the CPU, as it was exported.
        exported: The file, loaded again.
        batch: Raw inputs, as the model takes them.

    Raises:
        GateFailed: A score differs by more than 1e-4, or a top label or the best text differs.
    """
    worst = 0.0
    for batch_size in PARITY_BATCH_SIZES:
        for rows in batch.split(batch_size)[:MOST_BATCHES]:
            with torch.inference_mode():
                wanted: Outputs = model.eval()(rows)
            worst = max(worst, _compare(wanted, exported.run(rows), batch_size))
    return worst


def _compare(wanted: Outputs, found: Outputs, batch_size: int) -> float:
    if isinstance(wanted, Tensor) != isinstance(found, Tensor):
        raise GateFailed("parity: the exported file gives another kind of output than the eager model")
    if isinstance(wanted, Tensor) and isinstance(found, Tensor):
        distance = _distance(wanted, found, batch_size)
        if not same_top_label(found, wanted, SCORE_ATOL).all():
            raise GateFailed(f"parity: at batch size {batch_size} the exported file gives another label")
        return distance
    if not torch.equal(wanted[0], found[0]):
        raise GateFailed(f"parity: at batch size {batch_size} the exported file writes other tokens")
    return _distance(wanted[1], found[1], batch_size)


def _distance(wanted: Tensor, found: Tensor, batch_size: int) -> float:
    distance = (wanted - found).abs().max().item()
    if not distance <= SCORE_ATOL:
        raise GateFailed(
            f"parity: at batch size {batch_size} an exported score differs from the eager one by "
            f"{distance:.2g}; at most {SCORE_ATOL} is allowed"
        )
    return distance
