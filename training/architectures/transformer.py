"""Transformer layers, and a classifier made of them.

Axes: N rows, L tokens, S tokens attended to, D features, H heads, F features a head, K labels.

Pre-norm: each block normalises what it reads, and the residual path stays an identity, so that a long warm-up is
not needed (Xiong et al., "On layer normalization in the transformer architecture", arXiv:2002.04745).
Dropout stands on the residual paths only: its random bits are drawn by one thread, and inside the feed-forward
blocks they took a fifth of a training step on a CPU.
"""

import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.tokenization import PAD
from training.architectures.recurrent import pool


class Attention(nn.Module):
    """Scaled dot-product attention with several heads.

    Source: Vaswani et al., "Attention is all you need", arXiv:1706.03762, section 3.2.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim: {dim} features cannot be shared by {heads} heads")
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def keys_values(self, memory_NLD: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is attended to: keys and values, both of shape NHLF."""
        keys_NLD, values_NLD = self.key_value(memory_NLD).chunk(2, dim=-1)
        return self._split(keys_NLD), self._split(values_NLD)

    def forward(
        self, queries_NLD: Tensor, keys_NHLF: Tensor, values_NHLF: Tensor, mask: Tensor | None, causal: bool
    ) -> Tensor:
        """Attend.

        Args:
            queries_NLD: What asks.
            keys_NHLF: From `keys_values`.
            values_NHLF: Likewise.
            mask: bool, broadcast to N x H x queries x keys; False is not looked at. None: everything is.
            causal: A query sees the keys up to its own place only; goes with no mask.

        Returns:
            float of the queries' shape.
        """
        N, L, D = queries_NLD.shape
        asked_NHLF = self._split(self.query(queries_NLD))
        # Written out: the fused kernel's backward pass takes ten times as long on a CPU for rows of a few tokens.
        fit_NHLS = asked_NHLF @ keys_NHLF.transpose(2, 3) * self.scale
        if mask is not None:
            fit_NHLS = fit_NHLS.masked_fill(~mask, float("-inf"))
        if causal:
            later_LS = torch.ones(L, L, dtype=torch.bool, device=fit_NHLS.device).triu(1)
            fit_NHLS = fit_NHLS.masked_fill(later_LS, float("-inf"))
        seen_NHLF = F.softmax(fit_NHLS, dim=-1) @ values_NHLF
        seen_NLD: Tensor = self.out(seen_NHLF.transpose(1, 2).reshape(N, L, D))
        return seen_NLD

    def _split(self, features_NLD: Tensor) -> Tensor:
        split_NHLF: Tensor = features_NLD.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return split_NHLF


class FeedForward(nn.Sequential):
    """Two linear layers with a GELU between, at each place on its own."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each with its normalisation before and its residual around."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.feed_norm = nn.LayerNorm(dim)
        self.feed = FeedForward(dim, hidden)
        self.drop = nn.Dropout(dropout)

    def forward(self, features_NLD: Tensor, mask_N11L: Tensor) -> Tensor:
        """Return features of the same shape; places where the mask is False are looked at by none."""
        normal_NLD = self.attention_norm(features_NLD)
        keys_NHLF, values_NHLF = self.attention.keys_values(normal_NLD)
        features_NLD = features_NLD + self.drop(
            self.attention(normal_NLD, keys_NHLF, values_NHLF, mask_N11L, False)
        )
        fed_NLD: Tensor = features_NLD + self.drop(self.feed(self.feed_norm(features_NLD)))
        return fed_NLD


class TokenEmbedding(nn.Module):
    """Token ids -> features that know their place, by sinusoids: any length can be read.

    Source: Vaswani et al., arXiv:1706.03762, sections 3.4 and 3.5.
    """

    def __init__(self, vocabulary: int, dim: int, dropout: float) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"dim: {dim} features cannot hold sine and cosine in pairs")
        self.table = nn.Embedding(vocabulary, dim, padding_idx=PAD)
        nn.init.normal_(self.table.weight, std=dim**-0.5)
        self.drop = nn.Dropout(dropout)
        self.scale = math.sqrt(dim)

    def forward(self, tokens_NL: Tensor, start: int = 0) -> Tensor:
        """Return features of shape NLD; `start` is the place of the first token."""
        features_NLD = self.table(tokens_NL) * self.scale
        places_LD = sinusoids(start, tokens_NL.shape[1], features_NLD.shape[2], features_NLD.device)
        placed_NLD: Tensor = self.drop(features_NLD + places_LD.to(features_NLD.dtype))
        return placed_NLD


class Encoder(nn.Module):
    """Token ids -> one vector a token, each having looked at the whole row."""

    PAD: Final[int] = PAD  # TorchScript reads constants of a class, not of a file

    def __init__(self, vocabulary: int, dim: int, heads: int, layers: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.embedding = TokenEmbedding(vocabulary, dim, dropout)
        self.layers = nn.ModuleList([EncoderLayer(dim, heads, hidden, dropout) for _ in range(layers)])
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens_NL: Tensor) -> Tensor:
        """Return features of shape NLD; padding changes none of the others."""
        mask_N11L = (tokens_NL != self.PAD)[:, None, None, :]
        features_NLD = self.embedding(tokens_NL)
        for layer in self.layers:
            features_NLD = layer(features_NLD, mask_N11L)
        normal_NLD: Tensor = self.norm(features_NLD)
        return normal_NLD


class TransformerClassifier(nn.Module):
    """Encodes a row, and classifies it by the mean of what it saw at each token.

    Args:
        vocabulary: Number of tokens; 0 is padding.
        num_labels: Number of labels.
        dim: Features a token.
        heads: Attention heads.
        layers: Layers of the encoder.
        dropout: Share of the features dropped in training.

    Source: the encoder of Vaswani et al., arXiv:1706.03762, with the normalisation first.
    """

    PAD: Final[int] = PAD

    def __init__(
        self, vocabulary: int, num_labels: int, *, dim: int, heads: int, layers: int, dropout: float
    ) -> None:
        super().__init__()
        self.encoder = Encoder(vocabulary, dim, heads, layers, 2 * dim, dropout)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(dim, num_labels)

    def forward(self, tokens_NL: Tensor) -> Tensor:
        """Classify rows of tokens.

        Args:
            tokens_NL: int64, padded with 0.

        Returns:
            float logits of shape NK.
        """
        mean_ND, _ = pool(self.encoder(tokens_NL), tokens_NL != self.PAD)
        logits_NK: Tensor = self.head(self.drop(mean_ND))
        return logits_NK


def sinusoids(start: int, count: int, dim: int, device: torch.device) -> Tensor:
    """Return the positions `start` to `start + count` as sines and cosines of falling frequency, shape LD."""
    frequency_F = torch.exp(
        torch.arange(0, dim, 2, device=device, dtype=torch.float32) * (-math.log(10_000.0) / dim)
    )
    place_L = torch.arange(start, start + count, device=device, dtype=torch.float32)
    angle_LF = place_L[:, None] * frequency_F
    return torch.stack([angle_LF.sin(), angle_LF.cos()], dim=-1).flatten(1)
