"""Recurrent networks over token ids. Axes: N rows, L tokens, D features, K labels."""

from typing import Final, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from models.tokenization import PAD


class Recurrent(nn.Module):
    """Reads a row in both directions, and classifies by the mean and the maximum of what it saw at each token.

    Padding is neither read nor pooled, so it never changes a result.

    Args:
        cell: lstm or gru.
        vocabulary: Number of tokens; 0 is padding.
        num_labels: Number of labels.
        dim: Features a token.
        hidden_size: Units a direction.
        layers: Layers of the network.
        dropout: Share of the features dropped in training.

    Source: Hochreiter and Schmidhuber, "Long short-term memory", 1997; Cho et al., arXiv:1406.1078; both
    directions as in Schuster and Paliwal, 1997.
    """

    PAD: Final[int] = PAD  # TorchScript reads constants of a class, not of a file

    def __init__(
        self,
        cell: Literal["lstm", "gru"],
        vocabulary: int,
        num_labels: int,
        *,
        dim: int,
        hidden_size: int,
        layers: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, dim, padding_idx=PAD)
        nn.init.normal_(self.embedding.weight, std=0.1)
        kind = nn.LSTM if cell == "lstm" else nn.GRU
        between = dropout if layers > 1 else 0.0
        self.network = kind(dim, hidden_size, layers, batch_first=True, bidirectional=True, dropout=between)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(4 * hidden_size, num_labels)

    def forward(self, tokens_NL: Tensor) -> Tensor:
        """Classify rows of tokens.

        Args:
            tokens_NL: int64, padded with 0.

        Returns:
            float logits of shape NK.
        """
        read_NL = tokens_NL != self.PAD
        # A row of nothing but padding cannot be packed; its one token of padding is pooled as nothing.
        length_N = read_NL.sum(1).clamp(min=1)
        embedded_NLD = self.drop(self.embedding(tokens_NL))
        packed = pack_padded_sequence(embedded_NLD, length_N.cpu(), batch_first=True, enforce_sorted=False)
        seen_NLD, _ = pad_packed_sequence(
            self.network(packed)[0], batch_first=True, total_length=tokens_NL.shape[1]
        )
        pooled_ND = torch.cat(pool(seen_NLD, read_NL), dim=1)
        logits_NK: Tensor = self.head(self.drop(pooled_ND))
        return logits_NK


def pool(features_NLD: Tensor, read_NL: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the maximum over the places that are read, both of shape ND."""
    unread_NL1 = ~read_NL[:, :, None]
    count_N1 = read_NL.sum(1, keepdim=True).clamp(min=1)
    mean_ND = features_NLD.masked_fill(unread_NL1, 0.0).sum(1) / count_N1
    largest_ND = features_NLD.masked_fill(unread_NL1, float("-inf")).amax(1)
    return mean_ND, largest_ND.masked_fill(~read_NL.any(1, keepdim=True), 0.0)
