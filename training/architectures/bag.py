"""A bag of n-gram embeddings, the honest baseline. Axes: N rows, L tokens, D features, K labels."""

from typing import Final

import torch
from torch import Tensor, nn

from models.tokenization import PAD

# Any odd number with well-mixed bits does; this is the 32-bit FNV prime.
MULTIPLIER = 16_777_619


class Bag(nn.Module):
    """Classifies by the summed embeddings of a row's tokens and of their n-grams, over the root of their number.

    Args:
        vocabulary: Number of tokens; 0 is padding.
        num_labels: Number of labels.
        dim: Features of a token or n-gram.
        dropout: Share of the features dropped in training.
        longest: Tokens of the longest n-gram.
        buckets: Rows of the table that n-grams share by hash.

    Source: Joulin et al., "Bag of tricks for efficient text classification", arXiv:1607.01759.
    """

    PAD: Final[int] = PAD  # TorchScript reads constants of a class, not of a file
    MULTIPLIER: Final[int] = MULTIPLIER

    def __init__(
        self,
        vocabulary: int,
        num_labels: int,
        *,
        dim: int,
        dropout: float,
        longest: int = 3,
        buckets: int = 200_000,
    ) -> None:
        super().__init__()
        self.longest = longest
        self.buckets = buckets
        self.tokens = nn.Embedding(vocabulary, dim, padding_idx=PAD)
        self.grams = nn.Embedding(buckets + 1, dim, padding_idx=0)
        for table in (self.tokens, self.grams):
            nn.init.normal_(table.weight, std=0.01)
            nn.init.zeros_(table.weight[0])
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(dim, num_labels)

    def forward(self, tokens_NL: Tensor) -> Tensor:
        """Classify rows of tokens.

        Args:
            tokens_NL: int64, padded with 0.

        Returns:
            float logits of shape NK.
        """
        total_ND = self.tokens(tokens_NL).sum(1)
        count_N = (tokens_NL != self.PAD).sum(1)
        hash_NL = tokens_NL
        for length in range(2, self.longest + 1):
            # The hash of an n-gram is that of its first n - 1 tokens, mixed with the last.
            last_NL = tokens_NL[:, length - 1 :]
            hash_NL = hash_NL[:, : last_NL.shape[1]] * self.MULTIPLIER + last_NL
            bucket_NL = torch.remainder(hash_NL, self.buckets) + 1
            # Padding stands at the end only, so an n-gram is whole if its last token is none.
            bucket_NL = bucket_NL.masked_fill(last_NL == self.PAD, 0)
            total_ND = total_ND + self.grams(bucket_NL).sum(1)
            count_N = count_N + (bucket_NL != 0).sum(1)
        scaled_ND = total_ND / count_N.clamp(min=1)[:, None].sqrt()
        logits_NK: Tensor = self.head(self.drop(scaled_ND))
        return logits_NK
