"""Rows of different lengths, end to end in one tensor. Axes: N rows, L tokens of the longest."""

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from models.tokenization import PAD


class Ragged:
    """Rows of token ids, of any lengths; a million short ones take little more room than their tokens.

    Args:
        rows: Token ids.
    """

    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        self.length_N = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        self._start_N = self.length_N.cumsum(0) - self.length_N
        self._tokens = torch.tensor(list(chain.from_iterable(rows)), dtype=torch.int32)

    def __len__(self) -> int:
        return len(self.length_N)

    def padded(self, indices_N: Tensor) -> Tensor:
        """Return rows as int64 of shape NL, filled up with 0."""
        length_N1 = self.length_N[indices_N][:, None]
        place_1L = torch.arange(int(length_N1.max()))[None]
        inside_NL = place_1L < length_N1
        index_NL = (self._start_N[indices_N][:, None] + place_1L).where(inside_NL, 0)
        return self._tokens[index_NL].long().where(inside_NL, PAD)


def batches_by_length(
    order_N: Tensor, length_N: Tensor, batch_size: int, batches_a_chunk: int = 50
) -> list[Tensor]:
    """Cut a random order into batches of rows of like length, in a random order again.

    Padding is computed for nothing; sorting a few thousand rows at a time keeps it small, and the batches mixed.
    """
    chunks = order_N.split(batch_size * batches_a_chunk)
    sorted_chunks = [chunk_N[length_N[chunk_N].argsort(stable=True)] for chunk_N in chunks]
    batches = [batch_N for chunk_N in sorted_chunks for batch_N in chunk_N.split(batch_size)]
    # The order is random, so as many of it as there are batches come in an order that says nothing of lengths.
    return [batches[place] for place in order_N[: len(batches)].argsort().tolist()]
