"""Pronunciation: how an English word is said, phone by phone."""

from training.architectures.catalogue import SEQUENCES, check_name
from training.commands import PronounceOptions
from training.datasets import cmudict
from training.progress import Progress
from training.recipes import defaults, own_pairs
from training.tasks.sequences import PairDataset, TextToText


def prepare(options: PronounceOptions, progress: Progress) -> tuple[TextToText, PronounceOptions]:
    """Fetch and split the dictionary, train the tokenizers, and build the network.

    Returns:
        The task, and the options with all that was not given filled in.
    """
    check_name(options.arch, SEQUENCES)
    options = options.resolved(defaults.PRONOUNCE.get(options.arch, {}))
    parts = cmudict.load()
    dataset = PairDataset(
        parts["train"],
        parts["validation"],
        parts["test"],
        cmudict.SHA256,
        views={"no_stress": cmudict.without_stress},
    )
    return own_pairs.build(dataset, options, progress), options
