"""A bag of character n-grams: what is in a word, for words seen too seldom to be learned whole.

Axes: N rows, L tokens, M n-grams of the longest word, V tokens, D features, K labels.
"""

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.tokenization import PAD, SPECIAL_TOKENS

LENGTHS = range(3, 7)
# A word of nine letters has 31 n-grams, itself included.
MOST_GRAMS = 32


class CharacterBag(nn.Module):
    """Classifies by the summed embeddings of a row's words and of their n-grams of three to six characters.

    Of a word of ten letters or more only the first 32 count: the word itself, then the shorter n-grams before the
    longer ones, so it is the longest that are left out.

    The graph holds a table from token to its n-grams, so it takes the same tokens as the other networks.

    Args:
        vocabulary: The tokens, in the order of their ids.
        num_labels: Number of labels.
        dim: Features of an n-gram.
        dropout: Share of the features dropped in training.
        buckets: Rows of the table that n-grams share by hash.

    Source: Bojanowski et al., "Enriching word vectors with subword information", arXiv:1607.04606.
    """

    grams_VM: Tensor

    def __init__(
        self, vocabulary: Sequence[str], num_labels: int, *, dim: int, dropout: float, buckets: int = 30_000
    ) -> None:
        super().__init__()
        self.register_buffer("grams_VM", _grams_of_all(vocabulary, buckets))
        self.grams = nn.EmbeddingBag(buckets + 1, dim, mode="sum", padding_idx=0)
        nn.init.normal_(self.grams.weight, std=0.03)
        nn.init.zeros_(self.grams.weight[0])
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(dim, num_labels)

    def forward(self, tokens_NL: Tensor) -> Tensor:
        """Classify rows of tokens.

        Args:
            tokens_NL: int64, padded with 0.

        Returns:
            float logits of shape NK.
        """
        grams_NX = self.grams_VM[tokens_NL].flatten(1)
        count_N1 = (tokens_NL != 0).sum(1, keepdim=True).clamp(min=1)
        features_ND = self.grams(grams_NX) / count_N1.sqrt()
        logits_NK: Tensor = self.head(self.drop(features_ND))
        return logits_NK


def _grams_of_all(vocabulary: Sequence[str], buckets: int) -> Tensor:
    rows = [_grams_of(word, buckets) for word in vocabulary]
    rows[: len(SPECIAL_TOKENS)] = [[]] * len(SPECIAL_TOKENS)
    width = max(1, max(map(len, rows)))
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows], dtype=torch.int64)


def _grams_of(word: str, buckets: int) -> list[int]:
    marked = f"<{word}>"
    grams = [marked, *(marked[at : at + n] for n in LENGTHS for at in range(len(marked) - n + 1))]
    # Not Python's own hash, which differs from one process to the next.
    return [zlib.crc32(gram.encode()) % buckets + 1 for gram in grams[:MOST_GRAMS]]
