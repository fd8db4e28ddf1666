"""Text classification. Axes: N texts, L tokens, K labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.manifest import Postprocess, TensorSpec, Tokenization
from models.preparation import TextPreparation
from models.tokenization import END, UNKNOWN, Tokenizer
from training.architectures.committee import Committee
from training.classifier import TextClassifier
from training.config import TextClassificationOptions
from training.datasets.labelled_texts import LabelledText
from training.datasets.ragged import Ragged, batches_by_length
from training.optimizing.sample import Sample, of_texts
from training.tasks.classification import ClassificationTask, description_of

EVALUATED_AT_ONCE = 512
TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True)
class TextDataset:
    """Texts in three parts; `test` is never used for choosing weights.

    Attributes:
        labels: The K names.
        targets_NK: What the training texts are to be scored, where more is known of them than their label.
        weight_N: How much each training text counts, where not all count the same.
        sha256: Of the data.
    """

    labels: tuple[str, ...]
    train: Sequence[LabelledText]
    validation: Sequence[LabelledText]
    test: Sequence[LabelledText]
    sha256: str
    targets_NK: Tensor | None = None
    weight_N: Tensor | None = None


class TextClassification(ClassificationTask):
    """Texts with one label each.

    Args:
        dataset: No text of it is longer than the options allow.
        tokenizer: The bytes of `tokenizer.json`, trained on the training part.
        network: Token ids of shape NL -> logits of shape NK.
        options: The run's.
    """

    def __init__(
        self, dataset: TextDataset, tokenizer: bytes, network: nn.Module, options: TextClassificationOptions
    ) -> None:
        self.dataset = dataset
        self.data_sha256 = dataset.sha256
        self.labels = dataset.labels
        self.model: nn.Module = TextClassifier(network)
        self.least_accuracy = options.min_accuracy
        self.train_size = len(dataset.train)
        self._options = options
        self._tokenizer_json = tokenizer
        self._tokenization = Tokenization(
            file=TOKENIZER_FILE, max_tokens=options.max_tokens, truncate=options.truncate
        )
        rules = Tokenizer(tokenizer)
        self.preparation: TextPreparation = TextPreparation(rules, self._tokenization)
        self._train = self._encoded(rules, dataset.train)
        self._validation = self._encoded(rules, dataset.validation)
        # Labels of shape N, or shares of shape NK: of many labels, one-hot rows would take K times the room.
        self._targets = _labels(dataset.train) if dataset.targets_NK is None else dataset.targets_NK
        self._weight_N = torch.ones(len(dataset.train)) if dataset.weight_N is None else dataset.weight_N
        self._device = torch.device("cpu")

    def count(self) -> None:
        """Have what is counted and not trained take note of the training part."""
        network = self.model.network
        if isinstance(network, Committee):
            network.bayes.count(self._train, self._targets, self._weight_N)

    def weight(self, indices_N: Tensor) -> float:
        """Every text counts as the data set says."""
        return self._weight_N[indices_N].sum().item()

    def to(self, device: torch.device) -> None:
        """Move the model there; batches follow one by one."""
        self.model.to(device)
        self._device = device

    def batches(self, order_N: Tensor, batch_size: int) -> Sequence[Tensor]:
        """Cut the order into batches of texts of like length."""
        return batches_by_length(order_N, self._train.length_N, batch_size)

    def loss(self, model: nn.Module, indices_N: Tensor, *, augment: bool) -> tuple[Tensor, Tensor]:
        """Return summed cross entropy, of each network its own, and the weight of right answers."""
        assert isinstance(model, TextClassifier)  # noqa: S101 (the loop passes this task's own model, or a copy)
        tokens_NL = self._train.padded(indices_N)
        if augment and self._options.word_dropout:
            tokens_NL = drop_words(tokens_NL, self._options.word_dropout)
        targets = self._targets[indices_N].to(self._device)
        weight_N = self._weight_N[indices_N].to(self._device)
        smoothing = self._options.label_smoothing
        logits_PNK = model.member_logits(tokens_NL.to(self._device))
        losses = [
            F.cross_entropy(logits_NK, targets, label_smoothing=smoothing, reduction="none")
            for logits_NK in logits_PNK
        ]
        loss = (torch.stack(losses).sum(0) * weight_N).sum()
        wanted_N = targets if targets.ndim == 1 else targets.argmax(1)
        right_N = logits_PNK.detach().sum(0).argmax(1) == wanted_N
        return loss, (right_N * weight_N).sum()

    def validation_logits(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """Return the validation part's logits NK, and its labels N."""
        assert isinstance(model, TextClassifier)  # noqa: S101 (likewise)
        parts = torch.arange(len(self._validation)).split(EVALUATED_AT_ONCE)
        logits = [model.logits(self._validation.padded(part_N).to(self._device)) for part_N in parts]
        return torch.cat(logits).cpu(), _labels(self.dataset.validation)

    def test_content(self, index: int) -> bytes:
        """Return a test text as UTF-8."""
        return self.dataset.test[index].text.encode()

    def test_labels(self) -> Tensor:
        """Return the test part's labels, int64 of shape N."""
        return _labels(self.dataset.test)

    def golden_name(self, index: int) -> str:
        """Return the file name of a golden input."""
        return f"{index}.txt"

    def description(self) -> Mapping[str, Any]:
        """Return the manifest's fields that say what the model takes and gives."""
        return description_of(
            TensorSpec(name="tokens", dtype="int64", shape=("N", "L")),
            self.score_spec(),
            task="text-classification",
            tokenize=self._tokenization,
            labels=self.labels,
            postprocess=Postprocess(temperature=self.temperature.item()),
        )

    def files(self) -> Mapping[str, bytes]:
        """Return the tokenizer."""
        return {TOKENIZER_FILE: self._tokenizer_json}

    def sizes(self) -> Mapping[str, int]:
        """Return the number of texts of each part."""
        dataset = self.dataset
        return {"train": len(dataset.train), "validation": len(dataset.validation), "test": len(dataset.test)}

    def sample(self) -> Sample:
        """Return texts of the training part, without words of a lexicon among them, and the test part."""
        whole = [
            text for text, weight in zip(self.dataset.train, self._weight_N.tolist(), strict=True) if weight >= 1
        ]
        return of_texts(whole, self.dataset.test, self.preparation)

    def _encoded(self, rules: Tokenizer, texts: Sequence[LabelledText]) -> Ragged:
        longest = self._tokenization.max_tokens
        return Ragged([ids[:longest] for ids in rules.encode_all(text.text for text in texts)])


def drop_words(tokens_NL: Tensor, share: float) -> Tensor:
    """Make a share of the tokens unknown, but for padding and the marks of beginning and end."""
    dropped_NL = (torch.rand(tokens_NL.shape) < share) & (tokens_NL > END)
    return tokens_NL.masked_fill(dropped_NL, UNKNOWN)


def _labels(texts: Sequence[LabelledText]) -> Tensor:
    return torch.tensor([text.label for text in texts], dtype=torch.int64)
