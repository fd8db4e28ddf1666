"""Naive Bayes over word pairs, counted and not trained.

Axes: N rows, L tokens, X tokens and pairs of a row, F features, R of them at once, K labels.
"""

from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.tokenization import PAD
from training.datasets.ragged import Ragged

# The 32-bit FNV prime: any odd number with well-mixed bits does.
MULTIPLIER = 16_777_619
# Besides its table, counting works on so many tokens or entries at once, however long the rows, many the labels.
COUNTED_AT_ONCE = 2**20


class NaiveBayes(nn.Module):
    """Sums the log-probability ratios, between a label and the others, of the tokens and pairs that are in a row.

    Each counts once a row, however often it occurs, in counting and in classifying alike.

    Args:
        vocabulary: Number of tokens; 0 is padding.
        num_labels: Number of labels.
        smoothing: Added to every count.
        buckets: Rows that pairs share by hash.

    Source: Wang and Manning, "Baselines and bigrams", ACL 2012: presence instead of counts.
    """

    PAD: Final[int] = PAD  # TorchScript reads constants of a class, not of a file
    MULTIPLIER: Final[int] = MULTIPLIER

    ratio_FK: Tensor

    def __init__(
        self, vocabulary: int, num_labels: int, *, smoothing: float = 0.5, buckets: int = 500_000
    ) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.buckets = buckets
        self.smoothing = smoothing
        self.register_buffer("ratio_FK", torch.zeros(vocabulary + buckets, num_labels))

    def count(self, rows: Ragged, targets: Tensor, weight_N: Tensor) -> None:
        """Learn from rows of tokens; what was learned before is forgotten.

        Args:
            rows: At least one.
            targets: Their labels, int64 of shape N; or the share of each label in them, float of shape NK.
            weight_N: How much each row counts.
        """
        # Counted in the table itself: of many labels, a second one would take gigabytes.
        self.ratio_FK.fill_(self.smoothing)
        K = self.ratio_FK.shape[1]
        rows_at_once = max(1, COUNTED_AT_ONCE // int(rows.length_N.max()))
        for part_N in torch.arange(len(rows)).split(rows_at_once):
            features_NX = self.features(rows.padded(part_N))
            for label_N, share_N in _labels(targets[part_N], weight_N[part_N]):
                place_NX = features_NX * K + label_N[:, None]
                share_NX = share_N[:, None].expand_as(place_NX)
                self.ratio_FK.view(-1).index_add_(0, place_NX.flatten(), share_NX.flatten())
        self.ratio_FK[PAD] = self.smoothing
        self._compare_labels()

    def _compare_labels(self) -> None:
        """Turn the counts in the table into log-probability ratios."""
        total_K = self.ratio_FK.sum(0)
        total = total_K.sum()
        for count_RK in self.ratio_FK.split(max(1, COUNTED_AT_ONCE // len(total_K))):
            unseen_R1 = (count_RK == self.smoothing).all(1, keepdim=True)
            share_RK = count_RK / total_K
            others_RK = (count_RK.sum(1, keepdim=True) - count_RK) / (total - total_K)
            count_RK.copy_((share_RK / others_RK).log().masked_fill(unseen_R1, 0.0))

    def features(self, tokens_NL: Tensor) -> Tensor:
        """Return the rows of the table that stand for a row's tokens and pairs, each once; the rest is 0."""
        first_NL, second_NL = tokens_NL[:, :-1], tokens_NL[:, 1:]
        pair_NL = torch.remainder(first_NL * self.MULTIPLIER + second_NL, self.buckets) + self.vocabulary
        pair_NL = pair_NL.masked_fill(second_NL == self.PAD, self.PAD)
        sorted_NX, _ = torch.sort(torch.cat([tokens_NL, pair_NL], dim=1), dim=1)
        # Sorted, a feature's repetitions stand side by side.
        repeated_NX = sorted_NX[:, 1:] == sorted_NX[:, :-1]
        return torch.cat([sorted_NX[:, :1], sorted_NX[:, 1:].masked_fill(repeated_NX, self.PAD)], dim=1)

    def forward(self, tokens_NL: Tensor) -> Tensor:
        """Classify rows of tokens.

        Args:
            tokens_NL: int64, padded with 0.

        Returns:
            float logits of shape NK.
        """
        # Summed as it is read: the ratios of all features at once would take K times the room.
        features_NX = self.features(tokens_NL)
        return F.embedding_bag(features_NX, self.ratio_FK, mode="sum", padding_idx=self.PAD) / 2


def _labels(targets: Tensor, weight_N: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Give a label of each row and what it counts, until all labels are told; both of shape N."""
    if targets.ndim == 1:
        yield targets, weight_N
        return
    for label, share_N in enumerate(targets.unbind(1)):
        yield torch.full_like(share_N, label, dtype=torch.int64), share_N * weight_N
