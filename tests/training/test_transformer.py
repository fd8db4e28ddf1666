import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from tests.training.graphs import assert_everything_learned, assert_gives_the_eager_logits
from training.architectures.transformer import (
    Attention,
    EncoderLayer,
    TokenEmbedding,
    TransformerClassifier,
    sinusoids,
)
from training.export import Exported, script

ATOL = 1e-5
VOCABULARY = 20
CPU = torch.device("cpu")


def network(heads: int = 2, layers: int = 2, num_labels: int = 3) -> TransformerClassifier:
    torch.manual_seed(0)
    return TransformerClassifier(VOCABULARY, num_labels, dim=8, heads=heads, layers=layers, dropout=0.5).eval()


def rows(*lengths: int) -> Tensor:
    """Rows of so many tokens each, padded to the longest."""
    generator = torch.Generator().manual_seed(sum(lengths))
    tokens_NL = torch.randint(1, VOCABULARY, (len(lengths), max(lengths)), generator=generator)
    return tokens_NL * (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])


default = network()
exported = Exported(script(network()))


@settings(max_examples=20)
@given(st.sampled_from([1, 2, 4]), st.integers(1, 3), st.integers(1, 4), st.integers(1, 9), st.integers(2, 9))
def test_any_rows_give_one_logit_a_label(heads: int, layers: int, N: int, L: int, num_labels: int) -> None:
    logits_NK = network(heads, layers, num_labels)(rows(*[L] * N))
    assert (logits_NK.dtype, logits_NK.shape) == (torch.float32, (N, num_labels))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 7))
def test_neither_padding_nor_neighbours_change_a_result(lengths: list[int], padding: int) -> None:
    tokens_NL = rows(*lengths)
    together_NK = default(F.pad(tokens_NL, [0, padding]))
    alone = [default(tokens_L[None, :length]) for tokens_L, length in zip(tokens_NL, lengths, strict=True)]
    assert torch.allclose(together_NK, torch.cat(alone), atol=ATOL)


def test_the_order_of_tokens_matters() -> None:
    tokens_1L = torch.tensor([[1, 5, 6, 7, 2]])
    assert not torch.allclose(default(tokens_1L), default(tokens_1L.flip(1)), atol=1e-3)


def test_all_but_padding_learns() -> None:
    one = network()
    F.cross_entropy(one(rows(2, 5, 1)), torch.tensor([0, 1, 2])).backward()
    assert_everything_learned(one)
    table = one.encoder.embedding.table
    assert table.weight.grad is not None
    assert not table.weight.grad[0].any()


@settings(max_examples=30)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=6))
def test_the_exported_graph_gives_the_eager_logits(lengths: list[int]) -> None:
    assert_gives_the_eager_logits(exported.scores, default, rows(*lengths), ATOL)


def test_a_row_of_nothing_or_of_one_token_is_judged_and_harms_no_neighbour() -> None:
    tokens_NL = torch.tensor([[0, 0, 0], [4, 0, 0], [4, 5, 6]])
    for run in (default, exported.scores):
        logits_NK = run(tokens_NL)
        # Nothing to look at has no attention, but none of it is pooled.
        assert logits_NK.isfinite().all()
        assert torch.allclose(logits_NK[0], default.head.bias, atol=ATOL)
        assert torch.allclose(logits_NK[2], default(tokens_NL[2:])[0], atol=ATOL)


def test_dropout_belongs_to_training() -> None:
    one = network().train()
    assert not torch.equal(one(rows(5)), one(rows(5)))
    assert torch.equal(one.eval()(rows(5)), one(rows(5)))


@pytest.mark.parametrize(("dim", "heads"), [(8, 3), (4, 8), (10, 4)])
def test_heads_that_cannot_share_the_features_are_refused(dim: int, heads: int) -> None:
    with pytest.raises(ValueError, match=f"dim: {dim} features cannot be shared by {heads} heads"):
        TransformerClassifier(VOCABULARY, 3, dim=dim, heads=heads, layers=1, dropout=0.0)


def test_features_that_are_no_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="dim: 9 features cannot hold sine and cosine"):
        TransformerClassifier(VOCABULARY, 3, dim=9, heads=3, layers=1, dropout=0.0)


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("masked", ["by nothing", "by padding", "causally"])
def test_attention_is_that_of_torch(heads: int, masked: str) -> None:
    torch.manual_seed(0)
    attention = Attention(8, heads)
    queries_NLD = torch.randn(2, 5, 8)
    keys_NHLF, values_NHLF = attention.keys_values(queries_NLD)
    assert keys_NHLF.shape == values_NHLF.shape == (2, heads, 5, 8 // heads)
    causal = masked == "causally"
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()[:, None, None] if "padding" in masked else None
    asked_NHLF = attention.query(queries_NLD).view(2, 5, heads, 8 // heads).transpose(1, 2)
    seen_NHLF = F.scaled_dot_product_attention(asked_NHLF, keys_NHLF, values_NHLF, mask, is_causal=causal)
    expected_NLD = attention.out(seen_NHLF.transpose(1, 2).flatten(2))
    found_NLD = attention(queries_NLD, keys_NHLF, values_NHLF, mask, causal)
    assert torch.allclose(found_NLD, expected_NLD, atol=ATOL)


def test_an_encoder_layer_is_torchs_own_with_the_normalisation_first() -> None:
    torch.manual_seed(0)
    ours = EncoderLayer(8, 2, 16, 0.0)
    theirs = nn.TransformerEncoderLayer(8, 2, 16, 0.0, F.gelu, batch_first=True, norm_first=True)
    ours_to_theirs = {
        "norm1": ours.attention_norm,
        "norm2": ours.feed_norm,
        "linear1": ours.feed[0],
        "linear2": ours.feed[2],
        "self_attn.out_proj": ours.attention.out,
    }
    for name, layer in ours_to_theirs.items():
        theirs.get_submodule(name).load_state_dict(layer.state_dict())
    parts = (ours.attention.query, ours.attention.key_value)
    theirs.self_attn.in_proj_weight.data = torch.cat([part.weight for part in parts])
    theirs.self_attn.in_proj_bias.data = torch.cat([part.bias for part in parts])
    features_NLD = torch.randn(2, 5, 8)
    read_NL = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()
    found_NLD = ours(features_NLD, read_NL[:, None, None])
    expected_NLD = theirs(features_NLD, src_key_padding_mask=~read_NL)
    assert torch.allclose(found_NLD[read_NL], expected_NLD[read_NL], atol=ATOL)


@given(st.integers(0, 500), st.integers(1, 9), st.sampled_from([2, 6, 16]))
def test_places_are_sines_and_cosines_of_falling_frequency(start: int, count: int, dim: int) -> None:
    found_LD = sinusoids(start, count, dim, CPU)
    assert found_LD.shape == (count, dim)
    for place in range(count):
        for feature in range(dim):
            angle = (start + place) / 10_000 ** (feature // 2 * 2 / dim)
            expected = math.cos(angle) if feature % 2 else math.sin(angle)
            assert found_LD[place, feature].item() == pytest.approx(expected, abs=1e-3)


def test_a_token_knows_its_place_wherever_the_reading_starts() -> None:
    embedding = TokenEmbedding(VOCABULARY, 8, 0.0)
    whole_NLD = embedding(torch.tensor([[4, 4, 5, 6]]))
    assert torch.allclose(embedding(torch.tensor([[5, 6]]), 2), whole_NLD[:, 2:], atol=ATOL)
    assert not torch.allclose(whole_NLD[:, 0], whole_NLD[:, 1], atol=1e-2)
