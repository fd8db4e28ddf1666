"""An encoder-decoder Transformer that holds its own search.

Axes: N rows, S source and T target tokens, D features, H heads, F features a head, V target vocabulary, B beams,
M = N x B rows of all beams.

Greedy and beam search are methods of the module, so they are exported with it: what serves it calls one method
and gets tokens. Each step reads the keys and values of the steps before from a cache instead of computing them
again.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.tokenization import BEGIN, END, PAD, UNKNOWN
from training.architectures.transformer import Attention, Encoder, FeedForward, TokenEmbedding
from training.calibrate import MOST_CERTAIN


class DecoderLayer(nn.Module):
    """Attention to what was said, attention to the source, feed-forward; pre-norm."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.said_norm = nn.LayerNorm(dim)
        self.said = Attention(dim, heads)
        self.source_norm = nn.LayerNorm(dim)
        self.source = Attention(dim, heads)
        self.feed_norm = nn.LayerNorm(dim)
        self.feed = FeedForward(dim, hidden)
        self.drop = nn.Dropout(dropout)

    def forward(
        self, features_NTD: Tensor, source_keys_NHSF: Tensor, source_values_NHSF: Tensor, mask_N11S: Tensor
    ) -> Tensor:
        """Decode all places of a known target at once; each sees only those before it."""
        normal_NTD = self.said_norm(features_NTD)
        keys_NHTF, values_NHTF = self.said.keys_values(normal_NTD)
        features_NTD = features_NTD + self.drop(self.said(normal_NTD, keys_NHTF, values_NHTF, None, True))
        return self._after(features_NTD, source_keys_NHSF, source_values_NHSF, mask_N11S)

    def step(
        self,
        features_N1D: Tensor,
        keys_NHTF: Tensor,
        values_NHTF: Tensor,
        source_keys_NHSF: Tensor,
        source_values_NHSF: Tensor,
        mask_N11S: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decode one more place; return its features and the cache grown by it."""
        normal_N1D = self.said_norm(features_N1D)
        key_NH1F, value_NH1F = self.said.keys_values(normal_N1D)
        keys_NHTF = torch.cat([keys_NHTF, key_NH1F], dim=2)
        values_NHTF = torch.cat([values_NHTF, value_NH1F], dim=2)
        features_N1D = features_N1D + self.drop(self.said(normal_N1D, keys_NHTF, values_NHTF, None, False))
        after_N1D = self._after(features_N1D, source_keys_NHSF, source_values_NHSF, mask_N11S)
        return after_N1D, keys_NHTF, values_NHTF

    def _after(
        self, features_NTD: Tensor, source_keys_NHSF: Tensor, source_values_NHSF: Tensor, mask_N11S: Tensor
    ) -> Tensor:
        # The beams of a source stand in its row as so many queries: they read the same, which is held once.
        N, D = source_keys_NHSF.shape[0], features_NTD.shape[2]
        asked_NXD = self.source_norm(features_NTD).reshape(N, -1, D)
        read_NXD = self.source(asked_NXD, source_keys_NHSF, source_values_NHSF, mask_N11S, False)
        features_NTD = features_NTD + self.drop(read_NXD.reshape(features_NTD.shape))
        fed_NTD: Tensor = features_NTD + self.drop(self.feed(self.feed_norm(features_NTD)))
        return fed_NTD


if TYPE_CHECKING:

    class DecoderLayers(nn.ModuleList):
        """What type checkers are to know of the list."""

        def __iter__(self) -> Iterator[DecoderLayer]: ...
else:
    DecoderLayers = nn.ModuleList


class Seq2Seq(nn.Module):
    """Reads one sequence of tokens and writes another.

    Args:
        source_vocabulary: Number of source tokens; 0 is padding.
        target_vocabulary: Number of target tokens; 0 is padding, 1 begins, 2 ends, 3 is unknown.
        dim: Features a token.
        heads: Attention heads.
        layers: Layers of the encoder, and of the decoder.
        hidden: Units of the feed-forward blocks.
        dropout: Share of the features dropped in training.
        max_steps: Most target tokens written, the end included.
        beams: Hypotheses that `forward` keeps.
        length_power: Hypotheses are compared by log-probability / length^power, at every step and at the end.

    Source: Vaswani et al., "Attention is all you need", arXiv:1706.03762; length normalisation after Wu et al.,
    arXiv:1609.08144, section 7, with the plain power of the length.
    """

    # TorchScript reads constants of a class, not of a file.
    PAD: Final[int] = PAD
    BEGIN: Final[int] = BEGIN
    END: Final[int] = END
    UNKNOWN: Final[int] = UNKNOWN
    MOST_CERTAIN: Final[float] = MOST_CERTAIN

    score_scale: Tensor
    score_offset: Tensor

    def __init__(
        self,
        source_vocabulary: int,
        target_vocabulary: int,
        *,
        dim: int = 256,
        heads: int = 4,
        layers: int = 3,
        hidden: int = 1024,
        dropout: float = 0.1,
        max_steps: int = 64,
        beams: int = 4,
        length_power: float = 1.0,
    ) -> None:
        super().__init__()
        self.max_steps = max_steps
        self.beams = beams
        self.length_power = length_power
        self.encoder = Encoder(source_vocabulary, dim, heads, layers, hidden, dropout)
        self.embedding = TokenEmbedding(target_vocabulary, dim, dropout)
        self.layers = DecoderLayers([DecoderLayer(dim, heads, hidden, dropout) for _ in range(layers)])
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, target_vocabulary)
        # Of the scores that are given, fitted when the weights are final; they change no order.
        self.register_buffer("score_scale", torch.ones(()))
        self.register_buffer("score_offset", torch.zeros(()))

    def logits(self, sources_NS: Tensor, targets_NT: Tensor) -> Tensor:
        """Return logits of shape NTV for the token after each of a known target (teacher forcing).

        Args:
            sources_NS: int64 tokens, padded with 0; no row is empty.
            targets_NT: int64 tokens that begin with 1, padded with 0.
        """
        mask_N11S = (sources_NS != self.PAD)[:, None, None, :]
        memory_NSD = self.encoder(sources_NS)
        features_NTD = self.embedding(targets_NT)
        for layer in self.layers:
            keys_NHSF, values_NHSF = layer.source.keys_values(memory_NSD)
            features_NTD = layer(features_NTD, keys_NHSF, values_NHSF, mask_N11S)
        logits_NTV: Tensor = self.head(self.norm(features_NTD))
        return logits_NTV

    def forward(self, sources_NS: Tensor) -> tuple[Tensor, Tensor]:
        """Write the most probable targets that a beam search finds.

        Args:
            sources_NS: int64 tokens, padded with 0; no row is empty.

        Returns:
            int64 tokens of shape NBT, without the beginning, padded with 0 after the end: those that ended first,
            and each kind with the best first; and their float32 scores of shape NB, 0 to 1: the geometric mean of
            their tokens' probabilities if the length's power is 1, its log-odds scaled and moved. Once calibrated,
            that of the best is how likely it is one of the texts that were wanted; the others compare with it.
        """
        tokens_NBT, log_score_NB = self.beam_search(sources_NS, self.beams)
        # As training.calibrate.log_odds; what is no text has a logarithm of minus infinity, and stays at 0.
        log_odds_NB = log_score_NB - torch.log1p(-log_score_NB.exp().clamp(max=self.MOST_CERTAIN))
        return tokens_NBT, (self.score_scale * log_odds_NB + self.score_offset).sigmoid()

    @torch.jit.export
    def greedy_search(self, sources_NS: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Write the most probable next token until the end, or for so many steps.

        Returns:
            Tokens of shape NT and their log-probabilities of shape N.
        """
        memory_NSD = self.encoder(sources_NS)
        mask_N11S = (sources_NS != self.PAD)[:, None, None, :]
        source_keys, source_values = self._read(memory_NSD)
        keys, values = self._empty_cache(memory_NSD)
        N = sources_NS.shape[0]
        last_N = torch.full((N,), self.BEGIN, dtype=torch.long, device=sources_NS.device)
        score_N = torch.zeros(N, device=sources_NS.device)
        ended_N = torch.zeros(N, dtype=torch.bool, device=sources_NS.device)
        written: list[Tensor] = []
        for place in range(steps):
            scores_NV = self._step(last_N, place, keys, values, source_keys, source_values, mask_N11S)
            best_N, token_N = scores_NV.max(dim=1)
            last_N = token_N.masked_fill(ended_N, self.PAD)
            score_N = score_N + best_N.masked_fill(ended_N, 0.0)
            written.append(last_N)
            ended_N = ended_N | (last_N == self.END)
            if bool(ended_N.all()):
                break
        return torch.stack(written, dim=1), score_N

    @torch.jit.export
    def beam_search(self, sources_NS: Tensor, beams: int) -> tuple[Tensor, Tensor]:
        """Return tokens of shape NBT, best first, and their log-probabilities over length^power, of shape NB."""
        N, B = sources_NS.shape[0], beams
        device = sources_NS.device
        memory_NSD = self.encoder(sources_NS)
        mask_N11S = (sources_NS != self.PAD)[:, None, None, :]
        source_keys, source_values = self._read(memory_NSD)
        keys, values = self._empty_cache(memory_NSD[:, :0].repeat_interleave(B, dim=0))
        first_row_N1 = torch.arange(N, device=device)[:, None] * B
        last_M = torch.full((N * B,), self.BEGIN, dtype=torch.long, device=device)
        # The beams of a row begin alike: only the first may branch, or all would follow the same path.
        total_NB = torch.full((N, B), float("-inf"), device=device)
        total_NB[:, 0] = 0.0
        score_NB = total_NB
        length_M = torch.zeros(N * B, dtype=torch.long, device=device)
        ended_M = torch.zeros(N * B, dtype=torch.bool, device=device)
        tokens_MT = torch.zeros((N * B, 0), dtype=torch.long, device=device)
        for place in range(self.max_steps):
            scores_MV = self._step(last_M, place, keys, values, source_keys, source_values, mask_N11S)
            # What has ended goes on with padding, at no cost, and with nothing else.
            scores_MV = scores_MV.masked_fill(ended_M[:, None], float("-inf"))
            scores_MV[:, self.PAD] = torch.where(ended_M, 0.0, float("-inf"))
            V = scores_MV.shape[1]
            total_MV = total_NB.view(N * B, 1) + scores_MV
            length_M = length_M + (~ended_M).long()
            score_NX = (total_MV / length_M[:, None].float().pow(self.length_power)).view(N, B * V)
            score_NB, choice_NB = score_NX.topk(B, dim=1)
            total_NB = total_MV.view(N, B * V).gather(1, choice_NB)
            from_M = (first_row_N1 + choice_NB // V).view(-1)
            last_M = (choice_NB % V).view(-1)
            tokens_MT = torch.cat([tokens_MT[from_M], last_M[:, None]], dim=1)
            length_M = length_M[from_M]
            ended_M = ended_M[from_M] | (last_M == self.END)
            if bool(ended_M.all()):
                break
            for index in range(len(keys)):
                keys[index] = keys[index][from_M]
                values[index] = values[index][from_M]
        # They are in order already; one that was cut off at the last step is no match for one that ended.
        order_NB = ended_M.view(N, B).long().sort(dim=1, descending=True, stable=True).indices
        tokens_NBT = tokens_MT[(first_row_N1 + order_NB).view(-1)].view(N, B, -1)
        return tokens_NBT, score_NB.gather(1, order_NB)

    def _read(self, memory_NSD: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        source_keys: list[Tensor] = []
        source_values: list[Tensor] = []
        for layer in self.layers:
            keys_NHSF, values_NHSF = layer.source.keys_values(memory_NSD)
            source_keys.append(keys_NHSF)
            source_values.append(values_NHSF)
        return source_keys, source_values

    def _empty_cache(self, memory_NSD: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        keys: list[Tensor] = []
        values: list[Tensor] = []
        for layer in self.layers:
            nothing_NHTF = layer.said.keys_values(memory_NSD[:, :0])[0]
            keys.append(nothing_NHTF)
            values.append(nothing_NHTF)
        return keys, values

    def _step(
        self,
        last_N: Tensor,
        place: int,
        keys: list[Tensor],
        values: list[Tensor],
        source_keys: list[Tensor],
        source_values: list[Tensor],
        mask_N11S: Tensor,
    ) -> Tensor:
        """Return log-probabilities of shape NV of the next token, and grow the cache in place."""
        features_N1D = self.embedding(last_N[:, None], place)
        for index, layer in enumerate(self.layers):
            features_N1D, keys[index], values[index] = layer.step(
                features_N1D, keys[index], values[index], source_keys[index], source_values[index], mask_N11S
            )
        logits_NV = self.head(self.norm(features_N1D[:, 0])).float()
        # None of these is a text's.
        logits_NV[:, self.PAD] = float("-inf")
        logits_NV[:, self.BEGIN] = float("-inf")
        logits_NV[:, self.UNKNOWN] = float("-inf")
        return F.log_softmax(logits_NV, dim=1)
