"""The search inside the graph, against searches written out here from the logits alone."""

import io
import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from models.tokenization import BEGIN, END, PAD, UNKNOWN
from tests.training.graphs import assert_everything_learned
from training.architectures.seq2seq import Seq2Seq
from training.export import Exported, script

ATOL = 1e-5
SOURCES, TARGETS = 20, 12
MAX_STEPS = 9


def network(targets: int = TARGETS, seed: int = 0, sharpness: float = 4.0, **changes: Any) -> Seq2Seq:
    """A network that was never trained; what it reads tells more than by chance, so that its targets differ."""
    torch.manual_seed(seed)
    sizes = {"dim": 8, "heads": 2, "layers": 2, "hidden": 16, "max_steps": MAX_STEPS, "beams": 3} | changes
    one = Seq2Seq(SOURCES, targets, **sizes).eval()
    with torch.no_grad():
        one.head.weight *= sharpness
        tables = [one.encoder.embedding.table.weight, one.embedding.table.weight]
        for weight in (*tables, *(layer.source.out.weight for layer in one.layers)):
            weight *= 3
    return one


def rows(*lengths: int, seed: int = 0) -> Tensor:
    """Sources of so many tokens each, padded to the longest."""
    generator = torch.Generator().manual_seed(seed)
    tokens_NS = torch.randint(1, SOURCES, (len(lengths), max(lengths)), generator=generator)
    return tokens_NS * (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])


def log_probabilities(one: Seq2Seq, source_S: Tensor, said: list[int]) -> Tensor:
    """Of each token after each of [BEGIN] and what was said; shape TV."""
    logits_TV = one.logits(source_S[None], torch.tensor([[BEGIN, *said]]))[0].clone()
    logits_TV[:, [PAD, BEGIN, UNKNOWN]] = float("-inf")
    return F.log_softmax(logits_TV, dim=1)


def uncached_greedy(one: Seq2Seq, source_S: Tensor) -> tuple[list[int], float]:
    said: list[int] = []
    score = 0.0
    while len(said) < one.max_steps and END not in said:
        best = log_probabilities(one, source_S, said)[-1].max(0)
        said.append(int(best.indices))
        score += best.values.item()
    return said, score


def score_of(one: Seq2Seq, source_S: Tensor, said: list[int]) -> float:
    by_token_TV = log_probabilities(one, source_S, said[:-1])
    total = by_token_TV.gather(1, torch.tensor(said)[:, None]).sum()
    return float(total / len(said) ** one.length_power)


def written(tokens_T: Tensor) -> list[int]:
    """What stands before the padding; asserts that only padding follows the end, and none comes before it."""
    tokens: list[int] = tokens_T.tolist()
    said = tokens[: tokens.index(END) + 1] if END in tokens else tokens
    assert not any(tokens[len(said) :])
    assert not {PAD, BEGIN, UNKNOWN} & set(said)
    return said


default = network()
exported = Exported(script(network()))
many = rows(*[1, 9, 4, 7, 2, 6, 3, 8, 5] * 3)


@torch.inference_mode()
def test_greedy_search_writes_what_a_search_without_a_cache_does() -> None:
    tokens_NT, score_N = default.greedy_search(many, MAX_STEPS)
    expected = [uncached_greedy(default, source_S[source_S != PAD]) for source_S in many]
    assert [written(tokens_T) for tokens_T in tokens_NT] == [said for said, _ in expected]
    assert torch.allclose(score_N, torch.tensor([score for _, score in expected]), atol=1e-4)
    # The test would say little of sources that all get the same.
    assert len({len(said) for said, _ in expected}) > 2
    assert len({tuple(said) for said, _ in expected}) > 5


@torch.inference_mode()
@pytest.mark.parametrize("length_power", [0.0, 1.0])
def test_one_beam_is_the_greedy_search(length_power: float) -> None:
    one = network(length_power=length_power)
    tokens_NT, score_N = one.greedy_search(many, MAX_STEPS)
    tokens_N1T, score_N1 = one.beam_search(many, 1)
    assert torch.equal(tokens_N1T[:, 0], tokens_NT)
    assert torch.allclose(score_N1[:, 0], score_N / (tokens_NT != PAD).sum(1) ** length_power, atol=ATOL)


@torch.inference_mode()
@pytest.mark.parametrize("length_power", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_enough_beams_find_every_target_in_order(length_power: float, seed: int) -> None:
    one = network(7, seed, 2.0, max_steps=3, length_power=length_power)
    words = range(UNKNOWN + 1, 7)
    every = [[*said, END] for steps in range(3) for said in itertools.product(words, repeat=steps)]
    every += [list(said) for said in itertools.product(words, repeat=3)]
    for source_S in (rows(4)[0], rows(2)[0]):
        # What was cut off comes after all that ended.
        ranked = sorted(((END in said, score_of(one, source_S, said), said) for said in every), reverse=True)
        expected = [(score, said) for _, score, said in ranked]
        tokens_1BT, score_1B = one.beam_search(source_S[None], len(every))
        assert sorted(written(tokens_T) for tokens_T in tokens_1BT[0]) == sorted(every)
        assert torch.allclose(score_1B[0], torch.tensor([score for score, _ in expected]), atol=ATOL)
        for (score, said), tokens_T in zip(expected, tokens_1BT[0], strict=True):
            assert score_of(one, source_S, written(tokens_T)) == pytest.approx(score, abs=1e-4), said


def uncached_beams(one: Seq2Seq, source_S: Tensor, beams: int) -> list[list[int]]:
    kept: list[tuple[float, list[int]]] = [(0.0, [])]
    for _ in range(one.max_steps):
        every = []
        for total, said in kept:
            if END in said:
                every.append((total, said))
            else:
                last_V = log_probabilities(one, source_S, said)[-1].tolist()
                every += [(total + more, [*said, token]) for token, more in enumerate(last_V) if more > -math.inf]
        kept = sorted(every, key=lambda each: -each[0] / len(each[1]) ** one.length_power)[:beams]
    return sorted((said for _, said in kept), key=lambda said: END not in said)


@torch.inference_mode()
@pytest.mark.parametrize("beams", [2, 3])
@pytest.mark.parametrize("length_power", [0.0, 1.0, 2.0])
def test_beam_search_writes_what_a_search_without_a_cache_does(beams: int, length_power: float) -> None:
    one = network(length_power=length_power)
    tokens_NBT, _ = one.beam_search(many, beams)
    expected = [uncached_beams(one, source_S[source_S != PAD], beams) for source_S in many]
    assert [[written(tokens_T) for tokens_T in tokens_BT] for tokens_BT in tokens_NBT] == expected


@torch.inference_mode()
def test_fewer_beams_than_targets_give_the_best_first_with_the_scores_of_their_own_tokens() -> None:
    tokens_NBT, score_NB = default.beam_search(many, 3)
    assert tokens_NBT.shape[:2] == score_NB.shape == (len(many), 3)
    ended_NB = (tokens_NBT == END).any(2)
    for kind_NB in (ended_NB, ~ended_NB):
        for score_B, kind_B in zip(score_NB, kind_NB, strict=True):
            assert torch.equal(score_B[kind_B], score_B[kind_B].sort(descending=True).values)
    for source_S, tokens_BT, score_B in zip(many, tokens_NBT, score_NB, strict=True):
        said = [written(tokens_T) for tokens_T in tokens_BT]
        assert len(set(map(tuple, said))) == 3
        scores = [score_of(default, source_S[source_S != PAD], tokens) for tokens in said]
        assert torch.allclose(score_B, torch.tensor(scores), atol=1e-4)


@torch.inference_mode()
def test_many_beams_never_do_worse_than_the_greedy_search_and_sometimes_better() -> None:
    one = network(7, 2, sharpness=2.0, max_steps=4, length_power=0.0)
    _, greedy_N = one.greedy_search(many, 4)
    # As many beams as there are targets lose none.
    best_N = one.beam_search(many, 4**4 + 100)[1][:, 0]
    assert bool((best_N >= greedy_N - ATOL).all())
    assert bool((best_N > greedy_N + 0.01).any())


@torch.inference_mode()
def test_forward_gives_the_beams_with_their_tokens_mean_probability() -> None:
    tokens_NBT, score_NB = default(many)
    expected_NBT, log_NB = default.beam_search(many, default.beams)
    assert (tokens_NBT.dtype, score_NB.dtype) == (torch.int64, torch.float32)
    assert torch.equal(tokens_NBT, expected_NBT)
    assert torch.allclose(score_NB, log_NB.exp(), atol=ATOL)
    assert bool(((score_NB >= 0) & (score_NB <= 1)).all())


def frozen() -> Any:
    module = torch.jit.load(io.BytesIO(script(network()))).eval()
    return torch.jit.freeze(module, preserved_attrs=["greedy_search", "beam_search"])


saved_and_loaded = exported.module
saved_loaded_and_frozen = frozen()


@settings(max_examples=15)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 4), st.sampled_from(["", "frozen"]))
def test_the_exported_graph_writes_what_the_eager_one_does(lengths: list[int], beams: int, kind: str) -> None:
    graph = saved_loaded_and_frozen if kind else saved_and_loaded
    sources_NS = rows(*lengths, seed=sum(lengths))
    with torch.inference_mode():
        for found, expected in (
            (graph.greedy_search(sources_NS, MAX_STEPS), default.greedy_search(sources_NS, MAX_STEPS)),
            (graph.beam_search(sources_NS, beams), default.beam_search(sources_NS, beams)),
            (graph(sources_NS), default(sources_NS)),
        ):
            assert torch.equal(found[0], expected[0])
            assert torch.allclose(found[1], expected[1], atol=ATOL)


def test_what_serving_runs_gives_tokens_and_scores() -> None:
    outputs = exported.run(many)
    assert isinstance(outputs, tuple)
    with torch.inference_mode():
        assert torch.equal(outputs[0], default(many)[0])


@torch.inference_mode()
@settings(max_examples=25)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 5), st.integers(0, 9))
def test_neither_padding_nor_neighbours_change_what_is_written(
    lengths: list[int], padding: int, seed: int
) -> None:
    sources_NS = rows(*lengths, seed=seed)
    greedy_NT, greedy_N = default.greedy_search(F.pad(sources_NS, [0, padding]), MAX_STEPS)
    beams_NBT, beams_NB = default(F.pad(sources_NS, [0, padding]))
    for row, length in enumerate(lengths):
        alone_1S = sources_NS[row : row + 1, :length]
        alone_1T, alone_1 = default.greedy_search(alone_1S, MAX_STEPS)
        assert written(greedy_NT[row]) == written(alone_1T[0])
        assert greedy_N[row].item() == pytest.approx(alone_1.item(), abs=1e-4)
        alone_1BT, alone_1B = default(alone_1S)
        assert list(map(written, beams_NBT[row])) == list(map(written, alone_1BT[0]))
        assert torch.allclose(beams_NB[row], alone_1B[0], atol=ATOL)


@torch.inference_mode()
@pytest.mark.parametrize("unwanted", [PAD, BEGIN, UNKNOWN])
def test_what_is_no_text_is_not_written_however_probable(unwanted: int) -> None:
    one = network()
    expected_NT, _ = one.greedy_search(many, MAX_STEPS)
    one.head.bias[unwanted] = 1e4
    tokens_NT, score_N = one.greedy_search(many, MAX_STEPS)
    assert torch.equal(tokens_NT, expected_NT)
    assert score_N.isfinite().all()
    for tokens_T in one(many)[0].flatten(0, 1):
        written(tokens_T)


@torch.inference_mode()
@pytest.mark.parametrize("max_steps", [1, 2, 5])
def test_a_target_without_an_end_stops_at_the_limit(max_steps: int) -> None:
    one = network(max_steps=max_steps)
    one.head.bias[END] = -1e9
    assert one.greedy_search(many, max_steps)[0].shape == (len(many), max_steps)
    tokens_NBT, _ = one(many)
    assert tokens_NBT.shape == (len(many), 3, max_steps)
    assert not (tokens_NBT == END).any()


@torch.inference_mode()
def test_the_search_is_over_when_every_row_has_ended() -> None:
    one = network()
    one.head.bias[END] = 1e9
    tokens_NT, score_N = one.greedy_search(many, MAX_STEPS)
    assert tokens_NT.tolist() == [[END]] * len(many)
    assert torch.allclose(score_N, torch.zeros(len(many)), atol=ATOL)
    assert one.beam_search(many, 1)[0].tolist() == [[[END]]] * len(many)


@torch.inference_mode()
@given(st.lists(st.integers(1, TARGETS - 1), min_size=1, max_size=7), st.data())
def test_a_later_token_changes_no_earlier_logit(said: list[int], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(said) - 1))
    other = [*said[:place], *data.draw(st.lists(st.integers(0, TARGETS - 1), min_size=1, max_size=7))]
    sources_1S = rows(4)
    logits_TV = default.logits(sources_1S, torch.tensor([[BEGIN, *said]]))[0]
    others_TV = default.logits(sources_1S, torch.tensor([[BEGIN, *other]]))[0]
    # Of [BEGIN] and the tokens before the first that differs.
    assert torch.allclose(logits_TV[: place + 1], others_TV[: place + 1], atol=ATOL)


@torch.inference_mode()
def test_every_token_said_and_every_token_read_changes_the_next_logits() -> None:
    sources_1S, targets_1T = rows(4), torch.tensor([[BEGIN, 5, 6, 7]])
    last_V = default.logits(sources_1S, targets_1T)[0, -1]
    for place in range(4):
        asked_1S, said_1T = sources_1S.clone(), targets_1T.clone()
        asked_1S[0, place] = asked_1S[0, place] % (SOURCES - 1) + 1
        said_1T[0, place] += 1
        assert not torch.allclose(default.logits(asked_1S, targets_1T)[0, -1], last_V, atol=1e-4)
        assert not torch.allclose(default.logits(sources_1S, said_1T)[0, -1], last_V, atol=1e-4)


@torch.inference_mode()
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 5))
def test_padding_changes_no_logit_of_a_known_target(lengths: list[int], padding: int) -> None:
    sources_NS = rows(*lengths)
    targets_NT = torch.randint(1, TARGETS, (len(lengths), 5), generator=torch.Generator().manual_seed(0))
    logits_NTV = default.logits(F.pad(sources_NS, [0, padding]), F.pad(targets_NT, [0, padding]))
    assert logits_NTV.shape == (len(lengths), 5 + padding, TARGETS)
    for row, length in enumerate(lengths):
        alone_1TV = default.logits(sources_NS[row : row + 1, :length], targets_NT[row : row + 1])
        assert torch.allclose(logits_NTV[row, :5], alone_1TV[0], atol=ATOL)


def test_all_but_padding_learns() -> None:
    one = network()
    targets_NT = torch.tensor([[BEGIN, 4, 5, END], [BEGIN, 6, END, PAD]])
    logits_NTV = one.logits(rows(5, 2), targets_NT[:, :-1])
    F.cross_entropy(logits_NTV.flatten(0, 1), targets_NT[:, 1:].flatten(), ignore_index=PAD).backward()
    assert_everything_learned(one)
    for embedding in (one.encoder.embedding, one.embedding):
        assert embedding.table.weight.grad is not None
        assert not embedding.table.weight.grad[PAD].any()


@pytest.mark.parametrize(("sizes", "refusal"), [({"heads": 3}, "shared by 3 heads"), ({"dim": 9}, "dim: 9")])
def test_sizes_that_do_not_go_together_are_refused(sizes: dict[str, int], refusal: str) -> None:
    with pytest.raises(ValueError, match=refusal):
        network(**{"heads": 1} | sizes)
