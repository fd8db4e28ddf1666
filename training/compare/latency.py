"""How long an exported file takes to answer, as the service runs it. Axes: N items, L tokens."""

import statistics
from collections.abc import Iterator
from itertools import count

import torch
from torch import Tensor

from models.tokenization import PAD
from training.clock import clock_s
from training.export import Exported

# A text's length is a new shape to the graph, and the first runs of a shape compile it.
WARM_RUNS = 10
LEAST_RUNS = 5
MOST_RUNS = 100
LONGEST_S = 2.0


def latency_ms(frozen: Exported, inputs: Tensor, batch_size: int, device: torch.device) -> float:
    """Return the median milliseconds of a batch, from raw inputs on the CPU to outputs on the device.

    Args:
        frozen: On the device, as the service runs it.
        inputs: Raw test examples, of shape N...; batches are cut from all of them in turn.
        batch_size: Items of a batch.
        device: Where the file runs.
    """
    batches = _batches(inputs, batch_size)
    for _ in range(WARM_RUNS):
        frozen.run(next(batches).to(device))
    times_s: list[float] = []
    while len(times_s) < LEAST_RUNS or (len(times_s) < MOST_RUNS and sum(times_s) < LONGEST_S):
        batch = next(batches)
        start_s = clock_s(device)
        frozen.run(batch.to(device))
        times_s.append(clock_s(device) - start_s)
    return 1000 * statistics.median(times_s)


def _batches(inputs: Tensor, batch_size: int) -> Iterator[Tensor]:
    for start in count(0, batch_size):
        indices_N = torch.arange(start, start + batch_size) % len(inputs)
        yield _trimmed(inputs[indices_N])


def _trimmed(batch: Tensor) -> Tensor:
    # Texts of all lengths were padded together; the service pads those of one batch.
    if batch.ndim != 2:
        return batch
    longest = int((batch != PAD).sum(1).max())
    return batch[:, :longest]
