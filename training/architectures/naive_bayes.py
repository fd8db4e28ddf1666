"""Naive Bayes over word pairs, counted and not trained. Axes: N rows, L tokens, F features, K labels."""

from typing import Final

import torch
from torch import Tensor, nn

from models.tokenization import PAD
from training.datasets.ragged import Ragged

# The 32-bit FNV prime: any odd number with well-mixed bits does.
MULTIPLIER = 16_777_619
COUNTED_AT_ONCE = 1024


class NaiveBayes(nn.Module):
    """Sums each token's and token pair's log-probability ratios between a label and the others.

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

    def count(self, rows: Ragged, targets_NK: Tensor, weight_N: Tensor) -> None:
        """Learn from rows of tokens and the share of each label in them, each row counting by its weight."""
        count_FK = torch.full_like(self.ratio_FK, self.smoothing)
        for part_N in torch.arange(len(rows)).split(COUNTED_AT_ONCE):
            features_NX = self.features(rows.padded(part_N)).sort(1).values
            # Each feature of a row once: a sorted row has its repetitions side by side.
            features_NX[:, 1:][features_NX[:, 1:] == features_NX[:, :-1]] = PAD
            X = features_NX.shape[1]
            shares_NK = targets_NK[part_N] * weight_N[part_N, None]
            count_FK.index_add_(0, features_NX.flatten(), shares_NK.repeat_interleave(X, dim=0))
        count_FK[PAD] = self.smoothing
        unseen_F1 = (count_FK == self.smoothing).all(1, keepdim=True)
        share_FK = count_FK / count_FK.sum(0, keepdim=True)
        others_FK = (count_FK.sum(1, keepdim=True) - count_FK) / (count_FK.sum() - count_FK.sum(0, keepdim=True))
        self.ratio_FK.copy_((share_FK / others_FK).log().masked_fill(unseen_F1, 0.0))
        self.ratio_FK[PAD] = 0.0

    def features(self, tokens_NL: Tensor) -> Tensor:
        """Return a row's tokens and token pairs as rows of the table; padding is 0."""
        first_NL, second_NL = tokens_NL[:, :-1], tokens_NL[:, 1:]
        pair_NL = torch.remainder(first_NL * self.MULTIPLIER + second_NL, self.buckets) + self.vocabulary
        return torch.cat([tokens_NL, pair_NL.masked_fill(second_NL == self.PAD, self.PAD)], dim=1)

    def forward(self, tokens_NL: Tensor) -> Tensor:
        """Classify rows of tokens.

        Args:
            tokens_NL: int64, padded with 0.

        Returns:
            float logits of shape NK.
        """
        return self.ratio_FK[self.features(tokens_NL)].sum(1) / 2
