from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from models.tokenization import SPECIAL_TOKENS
from tests.training.graphs import assert_everything_learned, assert_gives_the_eager_logits, assert_rows_stand_alone
from tests.training.small import silent
from training.architectures.character_bag import CharacterBag
from training.architectures.committee import BAYES_SHARE, Committee
from training.architectures.naive_bayes import NaiveBayes
from training.architectures.recurrent import Recurrent
from training.checkpoint import Checkpoint
from training.config import TextClassificationOptions
from training.datasets.labelled_texts import LabelledText
from training.datasets.ragged import Ragged
from training.distributed import Group
from training.export import Exported, script
from training.recipes import own_texts
from training.tasks.texts import TextDataset
from training.train import train

ATOL = 1e-4
WORDS = [*SPECIAL_TOKENS, "a", "bad", "good", "film", "plot", "unwatchable", "delight"]
MEMBERS = 2


def rows(*lengths: int) -> Tensor:
    """Rows of so many tokens each, padded to the longest."""
    generator = torch.Generator().manual_seed(sum(lengths))
    tokens_NL = torch.randint(1, len(WORDS), (len(lengths), max(lengths)), generator=generator)
    return tokens_NL * (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])


def committee(num_labels: int = 3) -> Committee:
    """All three members know something."""
    torch.manual_seed(0)
    size = len(WORDS)
    bayes = NaiveBayes(size, num_labels, buckets=50)
    counted_NL = rows(*[6] * 20)
    bayes.count(Ragged(counted_NL.tolist()), torch.arange(20) % num_labels, torch.ones(20))
    recurrent = Recurrent("lstm", size, num_labels, dim=6, hidden_size=5, layers=1, dropout=0.5)
    characters = CharacterBag(WORDS, num_labels, dim=4, dropout=0.5, buckets=100)
    with torch.no_grad():
        characters.grams.weight[1:].normal_()
    return Committee(recurrent, characters, bayes).eval()


default = committee()
exported = Exported(script(committee()))
frozen = Exported(script(committee()))
frozen.freeze(torch.device("cpu"))


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(2, 9))
def test_any_rows_give_one_logit_a_label_and_member(N: int, L: int, num_labels: int) -> None:
    one = committee(num_labels)
    logits_NK = one(rows(*[L] * N))
    assert (logits_NK.dtype, logits_NK.shape) == (torch.float32, (N, num_labels))
    assert one.member_logits(rows(*[L] * N)).shape == (MEMBERS, N, num_labels)


def test_it_says_the_sum_of_what_its_members_say_and_counts_the_counted_one_less() -> None:
    tokens_NL = rows(2, 5, 1)
    trained = [default.recurrent(tokens_NL), default.characters(tokens_NL)]
    assert torch.equal(default.member_logits(tokens_NL), torch.stack(trained))
    expected_NK = sum(trained) + BAYES_SHARE * default.bayes(tokens_NL)
    assert torch.allclose(default(tokens_NL), expected_NK, atol=ATOL)
    assert 0 < BAYES_SHARE < 1


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 7))
def test_neither_padding_nor_neighbours_change_a_result(lengths: list[int], padding: int) -> None:
    tokens_NL = rows(*lengths)
    assert_rows_stand_alone(default, tokens_NL, lengths, padding, ATOL)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=6))
def test_the_exported_and_the_frozen_graph_give_the_eager_logits(lengths: list[int]) -> None:
    assert_gives_the_eager_logits(exported.scores, default, rows(*lengths), ATOL)
    assert_gives_the_eager_logits(frozen.scores, default, rows(*lengths), ATOL)


def test_a_row_of_nothing_is_judged_and_harms_no_neighbour() -> None:
    tokens_NL = torch.tensor([[0, 0, 0], [4, 5, 6]])
    for run in (default, exported.scores):
        logits_NK = run(tokens_NL)
        assert torch.allclose(logits_NK[0], default.recurrent.head.bias + default.characters.head.bias, atol=ATOL)
        assert torch.allclose(logits_NK[1], default(tokens_NL[1:])[0], atol=ATOL)


def test_each_trained_member_learns_from_its_own_loss_alone() -> None:
    one = committee()
    labels_N = torch.tensor([0, 1, 2])
    recurrent_NK, characters_NK = one.member_logits(rows(2, 5, 1))
    cross_entropy(recurrent_NK, labels_N).backward(retain_graph=True)
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in one.recurrent.parameters())
    assert not any(
        parameter.grad is not None and parameter.grad.any() for parameter in one.characters.parameters()
    )
    cross_entropy(characters_NK, labels_N).backward()
    assert_everything_learned(one)


def texts(count: int, seed: int) -> list[LabelledText]:
    """Some words that say nothing, and one that says whether it was liked, unless it is denied."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        words = generator.choice(["the", "film", "plot", "is", "was", "some"], size=4).tolist()
        liked, denied = generator.random() < 0.5, generator.random() < 0.3
        word = str(generator.choice(["good", "fine", "great"] if liked else ["bad", "dull", "poor"]))
        place = int(generator.integers(5))
        words[place:place] = ["not", word] if denied else [word]
        found.append(LabelledText(" ".join(words), int(liked != denied)))
    return found


def test_it_learns_a_small_real_problem_and_keeps_it_in_the_file(tmp_path: Path) -> None:
    options = TextClassificationOptions(
        name="small",
        arch="committee",
        dim=8,
        hidden_size=8,
        epochs=8,
        batch_size=20,
        learning_rate=0.02,
        precision="fp32",
        min_accuracy=0.95,
    )
    dataset = TextDataset(("bad", "good"), texts(600, 0), texts(100, 1), texts(100, 2), "0" * 64)
    task: Any = own_texts.build(dataset, options, silent())
    train(task, options, Group(), Checkpoint(tmp_path, "identity"), silent())
    task.calibrate()
    judgement = task.judge(Exported(script(task.model)))
    assert judgement.metrics["test_accuracy"] >= 0.95
