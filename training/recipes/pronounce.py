"""Pronunciation: how an English word is said, phone by phone."""

from collections.abc import Mapping

from training.architectures.catalogue import SEQUENCES, check_name
from training.commands import PronounceOptions
from training.datasets import cmudict
from training.progress import Progress
from training.recipes import own_pairs
from training.tasks.sequences import PairDataset, TextToText

DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "seq2seq": {
        **own_pairs.DEFAULTS["seq2seq"],
        "epochs": 10,
        "max_steps": 40,
        "max_tokens": 64,
        "tokens": "chars",
        "target_tokens": "words",
    }
}


def prepare(options: PronounceOptions, progress: Progress) -> tuple[TextToText, PronounceOptions]:
    """Fetch and split the dictionary, train the tokenizers, and build the network.

    Returns:
        The task, and the options with all that was not given filled in.
    """
    check_name(options.arch, SEQUENCES)
    options = options.resolved(DEFAULTS.get(options.arch, {}))
    parts = cmudict.load()
    dataset = PairDataset(
        parts["train"],
        parts["validation"],
        parts["test"],
        cmudict.SHA256,
        views={"no_stress": cmudict.without_stress},
    )
    return own_pairs.build(dataset, options, progress), options
