"""Texts and what they should become, of your own."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from models.tokenization import Tokenizer
from training.architectures.catalogue import SEQUENCES, check_name, sequence_network
from training.commands import PairTableOptions
from training.config import Seq2SeqOptions
from training.datasets import sequence_pairs
from training.datasets.feedback import fold_pairs, with_feedback
from training.datasets.keyed import folded, plain, spaced, trimmed
from training.datasets.sequence_pairs import SequencePair
from training.errors import DataInvalid
from training.progress import Progress
from training.randomness import permutation, seed_here
from training.recipes import defaults
from training.recipes.sizing import sized
from training.tasks.sequences import PairDataset, TextToText
from training.tokenizing import doubts, train_tokenizer

LEAST_STEPS = 1000


def prepare(options: PairTableOptions, progress: Progress) -> tuple[TextToText, PairTableOptions]:
    """Read and split the table, train the tokenizers, and build the network.

    Returns:
        The task, and the options with all that was not given filled in.
    """
    check_name(options.arch, SEQUENCES)
    given = options.model_fields_set  # Before the recipe's own count as given too.
    options = options.resolved(defaults.PAIRS.get(options.arch, {}))
    found = sequence_pairs.load(
        options.data,
        options.source_column,
        options.target_column,
        options.split_column,
        options.validation_fraction,
        options.test_fraction,
        _seen_as(options),
        _written_as(options),
    )
    for line in found.reading.lines():
        progress.say(line)
    dataset = PairDataset(found.train, found.validation, found.test, found.sha256)
    options = sized(options, given, sum(len(pair.targets) for pair in found.train), LEAST_STEPS, progress)
    return build(dataset, options, progress), options


def build(dataset: PairDataset, options: Seq2SeqOptions, progress: Progress) -> TextToText:
    """Train the tokenizers on the training part, and build the network.

    Raises:
        DataInvalid: No pair is short enough.
    """
    if options.limit is not None:
        dataset = replace(
            dataset,
            train=_some(dataset.train, options.limit, options.seed),
            test=_some(dataset.test, options.limit, options.seed),
        )
    measured = [*dataset.validation, *dataset.test]
    train = fold_pairs(dataset.train, measured, _seen_as(options), _written_as(options), options, progress)
    dataset = replace(dataset, train=train, sha256=with_feedback(dataset.sha256, options))
    progress.say(f"{len(dataset.train)} pairs to train on")
    source_rules = train_tokenizer(
        (pair.source for pair in dataset.train), options.tokens, options.vocabulary, lowercase=options.lowercase
    )
    target_rules = train_tokenizer(
        (target for pair in dataset.train for target in pair.targets),
        options.target_tokens,
        options.target_vocabulary,
        lowercase=False,
        punctuation=False,
    )
    for line in doubts(source_rules, [pair.source for pair in dataset.validation]):
        progress.say(line)
    dataset = _short_enough(dataset, Tokenizer(source_rules), Tokenizer(target_rules), options, progress)
    seed_here(options.seed, "weights")
    network = sequence_network(Tokenizer(source_rules).size, Tokenizer(target_rules).size, options)
    return TextToText(dataset, source_rules, target_rules, network, options)


def _written_as(options: Seq2SeqOptions) -> Callable[[str], str]:
    return plain if options.target_tokens == "words" else trimmed


def _seen_as(options: Seq2SeqOptions) -> Callable[[str], str]:
    """Return what the tokenizer leaves of a source: two of which it leaves the same are one to the network."""
    cased = folded if options.lowercase else plain
    return (lambda source: spaced(cased(source))) if options.tokens == "words" else cased


def _some(pairs: Sequence[SequencePair], limit: int, seed: int) -> list[SequencePair]:
    # Not the first so many: files are often sorted.
    return [pairs[index] for index in permutation(len(pairs), seed, "limit")[:limit].tolist()]


def _short_enough(
    dataset: PairDataset, reader: Tokenizer, writer: Tokenizer, options: Seq2SeqOptions, progress: Progress
) -> PairDataset:
    """Leave out the sources that the service would refuse, and of train the targets too long to be written.

    What is measured on keeps its long targets: the service would be asked for them too, and not write them.
    """
    train, validation, test = (
        _readable(pairs, reader, options) for pairs in (dataset.train, dataset.validation, dataset.test)
    )
    train = _writable(train, writer, options.max_steps)
    if not (train and validation and test):
        raise DataInvalid(
            f"hardly any pair fits --max-tokens {options.max_tokens} and --max-steps {options.max_steps}"
        )
    before = len(dataset.train) + len(dataset.validation) + len(dataset.test)
    if left_out := before - len(train) - len(validation) - len(test):
        progress.say(f"{left_out} pairs are longer than --max-tokens or --max-steps allow, and left out")
    return replace(dataset, train=train, validation=validation, test=test)


def _readable(pairs: Sequence[SequencePair], reader: Tokenizer, options: Seq2SeqOptions) -> list[SequencePair]:
    if options.truncate:
        return list(pairs)
    sources = reader.encode_all(pair.source for pair in pairs)
    return [pair for pair, ids in zip(pairs, sources, strict=True) if len(ids) <= options.max_tokens]


def _writable(pairs: Sequence[SequencePair], writer: Tokenizer, max_steps: int) -> list[SequencePair]:
    # The mark of the beginning is not written.
    lengths = iter(len(ids) - 1 for ids in writer.encode_all(target for pair in pairs for target in pair.targets))
    shortened = [
        SequencePair(pair.source, tuple(target for target in pair.targets if next(lengths) <= max_steps))
        for pair in pairs
    ]
    return [pair for pair in shortened if pair.targets]
