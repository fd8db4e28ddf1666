"""Texts and labels of your own."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from models.tokenization import Tokenizer
from training.architectures.catalogue import TEXTS, check_name, text_network
from training.commands import TextTableOptions
from training.config import TextClassificationOptions, TextOptions
from training.datasets import labelled_texts
from training.datasets.classes import check_left
from training.datasets.feedback import corrected_texts, with_feedback
from training.datasets.labelled_texts import LabelledText
from training.errors import DataInvalid
from training.progress import Progress
from training.randomness import permutation, seed_here
from training.recipes import defaults
from training.recipes.sizing import sized
from training.tasks.texts import TextClassification, TextDataset
from training.tokenizing import doubts, train_tokenizer

LEAST_STEPS = 200


def prepare(options: TextTableOptions, progress: Progress) -> tuple[TextClassification, TextTableOptions]:
    """Read and split the table, train the tokenizer, and build the network.

    Returns:
        The task, and the options with all that was not given filled in.
    """
    check_name(options.arch, TEXTS)
    given = options.model_fields_set  # Before the recipe's own count as given too.
    options = options.resolved(defaults.TEXTS.get(options.arch, {}))
    found = labelled_texts.load(
        options.data,
        options.text_column,
        options.label_column,
        options.split_column,
        options.validation_fraction,
        options.test_fraction,
    )
    for line in found.reading.lines():
        progress.say(line)
    dataset = TextDataset(found.labels, found.train, found.validation, found.test, found.sha256)
    options = sized(options, given, len(found.train), LEAST_STEPS, progress)
    return build(dataset, options, progress), options


def build(dataset: TextDataset, options: TextClassificationOptions, progress: Progress) -> TextClassification:
    """Train the tokenizer on the training part, and build the network.

    Raises:
        DataInvalid: Of a label, too few texts are short enough, or within the limit.
    """
    dataset = _corrected(_limited(dataset, options.limit, options.seed), options, progress)
    progress.say(f"{len(dataset.train)} texts to train on, {len(dataset.labels)} labels")
    rules = train_tokenizer(
        (text.text for text in dataset.train), options.tokens, options.vocabulary, lowercase=options.lowercase
    )
    for line in doubts(rules, [text.text for text in dataset.validation]):
        progress.say(line)
    dataset = _short_enough(dataset, Tokenizer(rules), options, progress)
    seed_here(options.seed, "weights")
    task = TextClassification(
        dataset, rules, text_network(Tokenizer(rules), len(dataset.labels), options), options
    )
    task.count()
    return task


def _corrected(dataset: TextDataset, options: TextClassificationOptions, progress: Progress) -> TextDataset:
    measured = [*dataset.validation, *dataset.test]
    kept, added = corrected_texts(dataset.train, measured, dataset.labels, options, progress)
    if not added:
        return dataset
    kept_N = torch.tensor(kept, dtype=torch.int64)
    targets_NK, weight_N = _rows(dataset.targets_NK, kept_N), _rows(dataset.weight_N, kept_N)
    if targets_NK is not None:
        labels_N = torch.tensor([text.label for text in added])
        sure_NK = one_hot(labels_N, len(dataset.labels)).to(targets_NK.dtype)
        targets_NK = torch.cat([targets_NK, sure_NK])
    if weight_N is not None:
        weight_N = torch.cat([weight_N, torch.ones(len(added))])
    return replace(
        dataset,
        train=[*(dataset.train[index] for index in kept), *added],
        sha256=with_feedback(dataset.sha256, options),
        targets_NK=targets_NK,
        weight_N=weight_N,
    )


def _limited(dataset: TextDataset, limit: int | None, seed: int) -> TextDataset:
    if limit is None:
        return dataset
    # Not the first so many: files are often sorted by label.
    train_N = permutation(len(dataset.train), seed, "limit")[:limit]
    test_N = permutation(len(dataset.test), seed, "limit")[:limit]
    dataset = replace(
        dataset,
        train=[dataset.train[index] for index in train_N.tolist()],
        test=[dataset.test[index] for index in test_N.tolist()],
        targets_NK=_rows(dataset.targets_NK, train_N),
        weight_N=_rows(dataset.weight_N, train_N),
    )
    _check_left(f"--limit {limit}", "raise it", dataset)
    return dataset


def _short_enough(dataset: TextDataset, rules: Tokenizer, options: TextOptions, progress: Progress) -> TextDataset:
    """Leave out what the service would refuse for its length, and say so."""
    if options.truncate:
        return dataset
    kept = {
        part: [index for index, ids in enumerate(_encoded(rules, texts)) if len(ids) <= options.max_tokens]
        for part, texts in (("train", dataset.train), ("validation", dataset.validation), ("test", dataset.test))
    }
    left_out = len(dataset.train) + len(dataset.validation) + len(dataset.test) - sum(map(len, kept.values()))
    if not left_out:
        return dataset
    if not all(kept.values()):
        raise DataInvalid(f"hardly any text has at most {options.max_tokens} tokens; raise --max-tokens")
    progress.say(f"{left_out} texts of over {options.max_tokens} tokens are left out; --max-tokens, or --truncate")
    train_N = torch.tensor(kept["train"])
    dataset = replace(
        dataset,
        train=[dataset.train[index] for index in kept["train"]],
        validation=[dataset.validation[index] for index in kept["validation"]],
        test=[dataset.test[index] for index in kept["test"]],
        targets_NK=_rows(dataset.targets_NK, train_N),
        weight_N=_rows(dataset.weight_N, train_N),
    )
    _check_left(f"--max-tokens {options.max_tokens}", "raise it, or give --truncate", dataset)
    return dataset


def _check_left(cause: str, remedy: str, dataset: TextDataset) -> None:
    train, test = ([text.label for text in texts] for texts in (dataset.train, dataset.test))
    check_left(cause, remedy, dataset.labels, {"train": train, "test": test})


def _rows(values: Tensor | None, indices_N: Tensor) -> Tensor | None:
    return None if values is None else values[indices_N]


def _encoded(rules: Tokenizer, texts: Sequence[LabelledText]) -> list[list[int]]:
    return rules.encode_all(text.text for text in texts)
