"""Writing a text for a text, as a task: what is trained on, validated, judged and kept as golden."""

import copy
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from models.golden import Outputs
from models.tokenization import PAD, UNKNOWN
from tests.training.small import silent
from tests.training.stopping import Killed, Stopping, kill
from training.architectures.catalogue import sequence_network
from training.architectures.seq2seq import Seq2Seq
from training.checkpoint import Checkpoint
from training.config import Seq2SeqOptions
from training.datasets.sequence_pairs import SequencePair
from training.distributed import Group
from training.errors import GateFailed
from training.export import Exported, script
from training.gate import check_parity
from training.randomness import seed_here
from training.tasks.sequences import PairDataset, TextToText
from training.tokenizing import train_tokenizer
from training.train import train


def pairs(count: int, seed: int) -> list[SequencePair]:
    """Words of three letters, spelled in capitals."""
    chance = random.Random(seed)  # noqa: S311 (no secret is made of it)
    words = ["".join(chance.choices("abcdef", k=3)) for _ in range(count)]
    return [SequencePair(word, (" ".join(word.upper()),)) for word in words]


def options(**changes: Any) -> Seq2SeqOptions:
    fields: dict[str, Any] = {"name": "spell", "arch": "seq2seq", "epochs": 12, "batch_size": 16}
    sizes = {"dim": 32, "hidden_size": 64, "layers": 1, "heads": 2, "max_steps": 8, "dropout": 0.0, "beams": 2}
    return Seq2SeqOptions(**fields | sizes | {"precision": "fp32", "learning_rate": 0.01} | changes)


def task(given: Seq2SeqOptions, data: PairDataset | None = None) -> TextToText:
    dataset = data or PairDataset(pairs(200, 0), pairs(40, 1), pairs(30, 2), "0" * 64)
    sources = (pair.source for pair in dataset.train)
    targets = (target for pair in dataset.train for target in pair.targets)
    rules = train_tokenizer(sources, "chars", given.vocabulary, lowercase=False)
    writing = train_tokenizer(targets, "words", given.target_vocabulary, lowercase=False, punctuation=False)
    seed_here(given.seed, "weights")
    return TextToText(dataset, rules, writing, sequence_network(10, 10, given), given)


def network(one: TextToText) -> Seq2Seq:
    assert isinstance(one.model, Seq2Seq)
    return one.model


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> TextToText:
    given = options()
    one = task(given)
    train(one, given, Group(), Checkpoint(tmp_path_factory.mktemp("run"), "identity"), silent())
    return one


def test_it_learns_to_spell(learned: TextToText) -> None:
    loss, accuracy = learned.validate(learned.model.eval())
    assert loss < 0.1
    assert accuracy > 0.95
    judgement = learned.judge(Exported(script(learned.model)))
    assert judgement.metrics["test_error_rate"] < 0.1
    assert judgement.metrics["test_token_error_rate"] <= judgement.metrics["test_error_rate"]


class Altered(Exported):
    """Writes another token in the place of each row's first."""

    def run(self, batch: torch.Tensor) -> Outputs:
        tokens_NBT, scores_NB = super().run(batch)
        tokens_NBT = tokens_NBT.clone()
        first_NB = tokens_NBT[:, :, 0]
        tokens_NBT[:, :, 0] = torch.where(first_NB == UNKNOWN + 1, UNKNOWN + 2, UNKNOWN + 1)
        return tokens_NBT, scores_NB


def test_a_file_that_writes_other_tokens_is_not_published(learned: TextToText) -> None:
    content = script(learned.model)
    assert check_parity(learned.model, Exported(content), learned.parity_batch()) < 1e-5
    with pytest.raises(GateFailed, match="parity: at batch size 1 the exported file writes other tokens"):
        check_parity(learned.model, Altered(content), learned.parity_batch())


def test_a_file_that_writes_too_many_wrong_texts_is_not_published(learned: TextToText) -> None:
    learned._options = options(max_error_rate=0.5)
    with pytest.raises(GateFailed, match=r"error rate: .*; --max-error-rate is 50\.00%"):
        learned.judge(Altered(script(learned.model)))


def test_mistakes_say_what_was_wanted_and_what_was_written(learned: TextToText) -> None:
    learned._options = options()
    mistakes = learned.judge(Altered(script(learned.model))).mistakes
    assert len(mistakes) > 10
    for mistake in mistakes:
        assert mistake.expected == " ".join(mistake.content.decode().upper())
        assert mistake.predicted != mistake.expected


def test_golden_texts_are_those_that_lead_the_next_by_most(learned: TextToText) -> None:
    golden = learned.golden_inputs()
    assert list(golden) == ["0.txt", "1.txt", "2.txt", "3.txt"]

    def lead(source: bytes) -> float:
        _, scores_1B = learned.model(learned.preparation.collate([learned.preparation.prepare(source)]))
        return float(scores_1B[0, 0] / scores_1B[0, 1])

    with torch.inference_mode():
        every = sorted((lead(pair.source.encode()) for pair in learned.dataset.test), reverse=True)
        assert [lead(source) for source in golden.values()] == pytest.approx(every[:4], rel=1e-3)


class Sure(Exported):
    """Says of every text that it is right."""

    def run(self, batch: torch.Tensor) -> Outputs:
        tokens_NBT, scores_NB = super().run(batch)
        return tokens_NBT, torch.ones_like(scores_NB)


@pytest.fixture
def half_right(learned: TextToText) -> TextToText:
    """Knows one answer of two: of the others another text is wanted than the one it learned."""
    one = copy.copy(learned)
    one.model = copy.deepcopy(learned.model)
    one._validated, one.dataset = spoilt(learned._validated), replace(learned.dataset, test=spoilt(pairs(400, 3)))
    return one


def spoilt(some: Sequence[SequencePair]) -> list[SequencePair]:
    """Every other source wants what nobody writes."""
    return [pair if number % 2 else SequencePair(pair.source, ("Z",)) for number, pair in enumerate(some)]


def test_scores_come_to_say_how_many_texts_are_right(half_right: TextToText) -> None:
    before = half_right.judge(Exported(script(half_right.model)))
    half_right.calibrate()
    after = half_right.judge(Exported(script(half_right.model)))
    assert before.calibration is not None
    assert after.calibration is not None
    assert before.calibration.ece_before == pytest.approx(before.calibration.ece_after, abs=1e-4)
    assert before.calibration.ece_after > 0.3
    assert after.calibration.ece_before == pytest.approx(before.calibration.ece_before, abs=0.01)
    assert after.metrics["test_ece"] == after.calibration.ece_after < 0.1
    assert after.calibration.nll_after < after.calibration.nll_before
    assert after.metrics["test_error_rate"] == before.metrics["test_error_rate"]
    assert "calibration" in after.pictures


def test_calibration_is_measured_on_what_the_file_says(learned: TextToText) -> None:
    judgement = learned.judge(Sure(script(learned.model)))
    assert judgement.metrics["test_ece"] == pytest.approx(judgement.metrics["test_error_rate"])


def test_a_model_that_is_certain_is_measured_too(learned: TextToText) -> None:
    one = copy.copy(learned)
    one.model = copy.deepcopy(learned.model)
    for scale, offset, wrongly in ((0.1, -4.0, 0.0), (10.0, 50.0, 1.0), (3.0, 0.3, 1.0)):
        network(one).score_scale.fill_(scale)
        network(one).score_offset.fill_(offset)
        score_N = torch.full((4,), wrongly)
        judgement = one._judgement({"test_error_rate": 0.5}, score_N, torch.tensor([True, False] * 2), [])
        assert judgement.calibration is not None
        assert 0 <= judgement.calibration.ece_before <= 1
        assert judgement.calibration.ece_after == pytest.approx(0.5)


def test_calibration_changes_no_text_and_no_order(half_right: TextToText) -> None:
    batch = half_right.parity_batch()
    with torch.inference_mode():
        tokens_NBT, scores_NB = half_right.model(batch)
    half_right.calibrate()
    with torch.inference_mode():
        calibrated_NBT, calibrated_NB = half_right.model(batch)
    assert torch.equal(tokens_NBT, calibrated_NBT)
    assert not torch.allclose(scores_NB, calibrated_NB)
    assert bool((calibrated_NB.diff(dim=1) <= 0).all())


def test_sources_are_cut_in_training_as_in_serving() -> None:
    given = options(max_tokens=16, truncate=True)
    long = [SequencePair("abcd" * 25, ("A",)), *pairs(20, 3)]
    one = task(given, PairDataset(long, long, pairs(30, 2), "0" * 64))
    assert one._sources.length_N.max() == one._asked.length_N.max() == 16
    served_L = one.preparation.prepare(long[0].source.encode())
    assert torch.equal(served_L, one._sources.padded(torch.tensor([0]))[0])


def test_what_is_validated_is_drawn_from_the_whole_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.tasks.sequences.VALIDATED", 10)
    one = task(options())
    assert len(one._validated) == 10
    assert one._validated != one.dataset.validation[:10]
    assert task(options())._validated == one._validated


def test_a_validation_goes_no_further_than_the_longest_accepted_text() -> None:
    given = options(max_steps=5000)
    one = task(given)
    network(one).head.bias.data[2] = -1e9  # It never ends.
    steps: list[int] = []
    network(one).embedding.register_forward_hook(lambda *_: steps.append(1))
    one.validate(one.model.eval())
    assert len(steps) < 10


def test_what_cannot_be_written_is_not_learned() -> None:
    one = task(options(target_vocabulary=8))
    targets_NT = one._targets.padded(torch.arange(200))
    assert bool((targets_NT == UNKNOWN).any()), "the vocabulary was to be too small"
    loss, right = one.loss(one.model, torch.arange(200), augment=False)
    learned = ((targets_NT[:, 1:] != UNKNOWN) & (targets_NT[:, 1:] != PAD)).sum()
    assert right <= learned
    assert one.weight(torch.arange(200)) == learned
    (gradient_V,) = torch.autograd.grad(loss, [network(one).head.bias])
    # An answer that is asked for pulls its bias up somewhere; this one is only ever pushed down.
    assert gradient_V[UNKNOWN] == pytest.approx(_pushed_down(one, targets_NT), rel=1e-3)


def _pushed_down(one: TextToText, targets_NT: torch.Tensor) -> float:
    logits_NTV = network(one).logits(one._sources.padded(torch.arange(200)), targets_NT[:, :-1])
    asked_NT = (targets_NT[:, 1:] != UNKNOWN) & (targets_NT[:, 1:] != PAD)
    return float(logits_NTV.detach().softmax(2)[..., UNKNOWN][asked_NT].sum())


def test_sources_lose_words_where_that_is_asked_for() -> None:
    plain, dropping = task(options()), task(options(word_dropout=0.9))
    indices_N = torch.arange(20)
    for augment in (True, False):
        losses = [one.loss(one.model, indices_N, augment=augment)[0].item() for one in (plain, dropping)]
        assert (losses[0] != losses[1]) == augment


def test_a_killed_run_goes_on_to_the_very_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = options(epochs=2, word_dropout=0.1, dropout=0.1)
    whole = task(given)
    train(whole, given, Group(), Checkpoint(tmp_path / "whole", "identity"), silent())
    monkeypatch.setattr("training.train.SAVE_INTERVAL_S", 0.0)
    with pytest.raises(Killed):
        train(task(given), given, Group(), Checkpoint(tmp_path / "cut", "identity"), Stopping(15, kill))
    again = given.model_copy(update={"resume": True})
    resumed = task(again)
    train(resumed, again, Group(), Checkpoint(tmp_path / "cut", "identity"), silent())
    expected, found = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
