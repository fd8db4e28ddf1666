"""The golden check of models that take texts, and of those that write them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from models.bundle import Bundle
from models.errors import GoldenMismatch, TokenizerInvalid
from models.golden import Outputs, check_golden
from models.repository import Repository
from tests.bundles import MAX_TOKENS, Echo, mood, publish_texts, publish_writer
from training.export import Exported
from training.tokenizing import train_tokenizer

classify, echo = mood(), Echo()


def check(bundle: Bundle, infer: Callable[[Tensor], Outputs]) -> None:
    check_golden(bundle, bundle.manifest.backends[0], infer)


@pytest.mark.parametrize("publish_", [publish_texts, publish_writer])
def test_a_bundle_passes_with_its_own_file(repository: Repository, publish_: Callable[..., Bundle]) -> None:
    bundle = publish_(repository, "words")
    check(bundle, Exported(bundle.read("model.ts.pt")).run)


@pytest.mark.parametrize("distance", [0.0, 5e-5, -5e-5])
def test_scores_within_the_tolerance_pass(repository: Repository, distance: float) -> None:
    check(publish_texts(repository, "words"), lambda tokens_NL: classify(tokens_NL) + distance)

    def nearly(tokens_NL: Tensor) -> Outputs:
        tokens_NBT, scores_NB = echo(tokens_NL)
        return tokens_NBT, scores_NB + distance

    check(publish_writer(repository, "echo"), nearly)


@pytest.mark.parametrize("distance", [2e-4, -0.1, float("nan"), float("inf")])
def test_scores_outside_it_are_refused(repository: Repository, distance: float) -> None:
    with pytest.raises(GoldenMismatch, match="a golden score is off"):
        check(publish_texts(repository, "words"), lambda tokens_NL: classify(tokens_NL) + distance)

    def off(tokens_NL: Tensor) -> Outputs:
        tokens_NBT, scores_NB = echo(tokens_NL)
        return tokens_NBT, scores_NB + distance

    with pytest.raises(GoldenMismatch, match="a golden score is off"):
        check(publish_writer(repository, "echo"), off)


def test_only_the_best_texts_score_is_golden(repository: Repository) -> None:
    def other_second(tokens_NL: Tensor) -> Outputs:
        tokens_NBT, scores_NB = echo(tokens_NL)
        return tokens_NBT, torch.cat([scores_NB[:, :1], scores_NB[:, 1:] / 2], dim=1)

    check(publish_writer(repository, "echo"), other_second)


def test_another_text_is_refused_whatever_its_score(repository: Repository) -> None:
    def other_text(tokens_NL: Tensor) -> Outputs:
        tokens_NBT, scores_NB = echo(tokens_NL)
        return tokens_NBT.flip(1), scores_NB

    with pytest.raises(GoldenMismatch, match=r"for 0\.txt the model writes 'good', not 'good film'"):
        check(publish_writer(repository, "echo"), other_text)


def test_a_tokenizer_with_other_words_writes_another_text(repository: Repository) -> None:
    golden = publish_writer(repository, "echo").manifest.golden
    renamed = train_tokenizer(["a bad play", "a good play", "fine"], "words", 20, lowercase=True)
    bundle = publish_writer(repository, "echo", target_rules=renamed, golden=golden)
    with pytest.raises(GoldenMismatch, match="not 'good film'"):
        check(bundle, echo)


def test_a_text_that_is_read_otherwise_gets_another_score(repository: Repository) -> None:
    golden = publish_texts(repository, "words").manifest.golden
    renamed = train_tokenizer(["a good film", "a film", "a bad"], "words", 20, lowercase=True)
    bundle = publish_texts(repository, "words", rules=renamed, golden=golden)
    with pytest.raises(GoldenMismatch, match="a golden score is off"):
        check(bundle, classify)


def test_another_kind_of_output_is_refused(repository: Repository) -> None:
    with pytest.raises(GoldenMismatch, match="does not give one tensor of scores"):
        check(publish_texts(repository, "words"), echo)
    with pytest.raises(GoldenMismatch, match="does not give tokens and scores"):
        check(publish_writer(repository, "echo"), classify)


def test_outputs_of_another_shape_are_refused(repository: Repository) -> None:
    with pytest.raises(GoldenMismatch, match=r"shape \(1, 1\), not \(1, 2\)"):
        check(publish_texts(repository, "words"), lambda tokens_NL: classify(tokens_NL)[:, :1])

    def repeated(tokens_NL: Tensor) -> Outputs:
        tokens_NBT, scores_NB = echo(tokens_NL)
        return tokens_NBT.repeat(2, 1, 1), scores_NB.repeat(2, 1)

    with pytest.raises(GoldenMismatch, match=r"shape \(2, 1\), not \(1, 1\)"):
        check(publish_writer(repository, "echo"), repeated)


def test_tokens_and_scores_of_different_counts_are_refused(repository: Repository) -> None:
    def repeated(tokens_NL: Tensor) -> Outputs:
        tokens_NBT, scores_NB = echo(tokens_NL)
        return tokens_NBT.repeat(2, 1, 1), scores_NB

    with pytest.raises(GoldenMismatch):
        check(publish_writer(repository, "echo"), repeated)


def test_another_number_of_texts_than_the_manifest_says_is_refused(repository: Repository) -> None:
    def best_only(tokens_NL: Tensor) -> Outputs:
        tokens_NBT, scores_NB = echo(tokens_NL)
        return tokens_NBT[:, :1], scores_NB[:, :1]

    with pytest.raises(GoldenMismatch, match="writes 1 texts of 3 tokens for an input, not 2 of at most 8"):
        check(publish_writer(repository, "echo"), best_only)


def test_longer_texts_than_the_manifest_says_are_refused(repository: Repository) -> None:
    bundle = publish_writer(repository, "echo")

    def padded(length: int) -> Callable[[Tensor], Outputs]:
        def infer(tokens_NL: Tensor) -> Outputs:
            tokens_NBT, scores_NB = echo(tokens_NL)
            return torch.nn.functional.pad(tokens_NBT, [0, length - tokens_NBT.shape[2]]), scores_NB

        return infer

    check(bundle, padded(MAX_TOKENS))
    with pytest.raises(GoldenMismatch, match="writes 2 texts of 9 tokens for an input, not 2 of at most 8"):
        check(bundle, padded(MAX_TOKENS + 1))


@pytest.mark.parametrize("damaged", [{"rules": b"{}"}, {"target_rules": b"{}"}])
def test_a_tokenizer_that_is_none_is_refused(repository: Repository, damaged: dict[str, Any]) -> None:
    golden = publish_writer(repository, "echo").manifest.golden
    bundle = publish_writer(repository, "echo", golden=golden, **damaged)
    with pytest.raises(TokenizerInvalid):
        check(bundle, echo)
