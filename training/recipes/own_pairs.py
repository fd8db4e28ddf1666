"""Texts and what they should become, of your own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from models.tokenization import Tokenizer
from training.architectures.catalogue import sequence_network
from training.commands import PairTableOptions
from training.config import Seq2SeqOptions
from training.datasets import sequence_pairs
from training.datasets.sequence_pairs import SequencePair
from training.errors import DataInvalid
from training.progress import Progress
from training.randomness import permutation, seed_here
from training.tasks.sequences import PairDataset, TextToText
from training.tokenizing import train_tokenizer

DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "seq2seq": {
        "dim": 256,
        "hidden_size": 512,
        "layers": 3,
        "learning_rate": 0.001,
        "label_smoothing": 0.1,
        "clip_norm": 1.0,
        "ema_decay": 0.999,
    }
}


def prepare(options: PairTableOptions, progress: Progress) -> tuple[TextToText, PairTableOptions]:
    """Read and split the table, train the tokenizers, and build the network.

    Returns:
        The task, and the options with all that was not given filled in.
    """
    options = options.resolved(DEFAULTS.get(options.arch, {}))
    found = sequence_pairs.load(options.data, options.source_column, options.target_column, options.split_column)
    for line in found.reading.lines():
        progress.say(line)
    dataset = PairDataset(found.train, found.validation, found.test, found.sha256)
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
    dataset = _short_enough(dataset, Tokenizer(source_rules), Tokenizer(target_rules), options, progress)
    seed_here(options.seed, "weights")
    network = sequence_network(Tokenizer(source_rules).size, Tokenizer(target_rules).size, options)
    return TextToText(dataset, source_rules, target_rules, network, options)


def _some(pairs: Sequence[SequencePair], limit: int, seed: int) -> list[SequencePair]:
    # Not the first so many: files are often sorted.
    return [pairs[index] for index in permutation(len(pairs), seed, "limit")[:limit].tolist()]


def _short_enough(
    dataset: PairDataset, reader: Tokenizer, writer: Tokenizer, options: Seq2SeqOptions, progress: Progress
) -> PairDataset:
    """Leave out the sources that the service would refuse, and the targets too long to be written."""

    def fitting(pairs: Sequence[SequencePair]) -> list[SequencePair]:
        sources = reader.encode_all(pair.source for pair in pairs)
        # The mark of the beginning is not written.
        lengths = iter(
            len(ids) - 1 for ids in writer.encode_all(target for pair in pairs for target in pair.targets)
        )
        kept = []
        for pair, ids in zip(pairs, sources, strict=True):
            targets = tuple(target for target in pair.targets if next(lengths) <= options.max_steps)
            if targets and (options.truncate or len(ids) <= options.max_tokens):
                kept.append(SequencePair(pair.source, targets))
        return kept

    parts = [fitting(pairs) for pairs in (dataset.train, dataset.validation, dataset.test)]
    if not all(parts):
        raise DataInvalid(
            f"hardly any pair fits --max-tokens {options.max_tokens} and --max-steps {options.max_steps}"
        )
    before = len(dataset.train) + len(dataset.validation) + len(dataset.test)
    if left_out := before - sum(map(len, parts)):
        progress.say(f"{left_out} pairs are longer than --max-tokens or --max-steps allow, and left out")
    train, validation, test = parts
    return replace(dataset, train=train, validation=validation, test=test)
