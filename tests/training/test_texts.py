from typing import Any

import pytest
import torch
from torch.nn.functional import one_hot

from models.tokenization import Tokenizer
from training.architectures.catalogue import text_network
from training.classifier import TextClassifier
from training.config import TextClassificationOptions
from training.datasets.labelled_texts import LabelledText
from training.export import Exported, script
from training.randomness import seed_here
from training.tasks.texts import TextClassification, TextDataset
from training.tokenizing import train_tokenizer

LABELS = ("bad", "good", "neither")
TEXTS = [
    LabelledText("a good film", 1),
    LabelledText("a bad film", 0),
    LabelledText("a film", 2),
    LabelledText("good good good", 1),
]
EVERYTHING = torch.arange(len(TEXTS))


def task(arch: str = "bag", **changes: Any) -> TextClassification:
    """A task of an untrained network; `changes` replace fields of its data set."""
    sizes: dict[str, Any] = {"dim": 4, "hidden_size": 4, "dropout": 0.0, "label_smoothing": 0.1}
    options = TextClassificationOptions(name="small", arch=arch, precision="fp32", **sizes)
    dataset = TextDataset(
        **{"labels": LABELS, "train": TEXTS, "validation": TEXTS, "test": TEXTS} | changes, sha256="0" * 64
    )
    rules = train_tokenizer([text.text for text in TEXTS], "words", 100, lowercase=True)
    seed_here(0, "weights")
    return TextClassification(
        dataset, rules, text_network(Tokenizer(rules), len(dataset.labels), options), options
    )


@pytest.mark.parametrize("arch", ["bag", "committee"])
def test_labels_are_learned_as_shares_that_are_whole(arch: str) -> None:
    labelled = task(arch)
    shared = task(arch, targets_NK=one_hot(torch.tensor([text.label for text in TEXTS]), 3).float())
    results = []
    for one in (labelled, shared):
        one.count()
        assert isinstance(one.model, TextClassifier)
        loss, right = one.loss(one.model, EVERYTHING, augment=False)
        results.append((loss.item(), right.item(), one.model.logits(torch.tensor([[1, 4, 5, 2]])).tolist()))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    assert results[0][1] == results[1][1]
    assert results[0][2][0] == pytest.approx(results[1][2][0], abs=1e-5)


def test_words_are_dropped_while_it_trains_and_only_then() -> None:
    def loss(augment: bool, word_dropout: float) -> float:
        one = task("bag")
        one._options = one._options.model_copy(update={"word_dropout": word_dropout})
        seed_here(0, "words")
        return one.loss(one.model, EVERYTHING, augment=augment)[0].item()

    assert loss(True, 0.9) != loss(True, 0.0)
    assert loss(False, 0.9) == loss(False, 0.0)


def test_a_texts_weight_scales_its_loss() -> None:
    weight_N = torch.tensor([1.0, 0.0, 2.0, 0.5])
    weighted = task(weight_N=weight_N)
    alone = [weighted.loss(weighted.model, torch.tensor([index]), augment=False)[0] for index in range(4)]
    loss, _ = weighted.loss(weighted.model, EVERYTHING, augment=False)
    assert loss.item() == pytest.approx(sum(part.item() for part in alone), rel=1e-5)
    assert alone[1].item() == 0
    assert weighted.weight(EVERYTHING) == 3.5


def test_a_task_of_many_labels_is_judged_without_a_picture_of_them_all() -> None:
    labels = tuple(f"label {number}" for number in range(300))
    many = task(labels=labels)
    judgement = many.judge(Exported(script(many.model)))
    assert set(judgement.pictures) == {"calibration"}
    assert "no confusion matrix" in judgement.table
    assert set(task().judge(Exported(script(task().model))).pictures) == {"confusion_matrix", "calibration"}
