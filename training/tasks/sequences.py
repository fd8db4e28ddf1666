"""Writing a text for a text. Axes: N pairs, S source and T target tokens, B beams, V target vocabulary."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.manifest import Calibration, TensorSpec, Tokenization, Writing
from models.preparation import Preparation, TextPreparation
from models.tokenization import PAD, UNKNOWN, Tokenizer
from training.architectures.seq2seq import Seq2Seq
from training.calibrate import fit_confidence, log_odds
from training.config import Seq2SeqOptions
from training.datasets.ragged import Ragged, batches_by_length
from training.datasets.sequence_pairs import SequencePair
from training.errors import GateFailed
from training.evaluate import CALIBRATION_BINS, calibration_error
from training.evaluate_texts import error_rate, token_error_rate
from training.export import Exported
from training.pictures import draw_calibration
from training.randomness import permutation
from training.tasks.classification import GOLDEN_EXAMPLES, MOST_MISTAKES, PARITY_SAMPLES, description_of
from training.tasks.task import Judgement, Mistake, Phase, all_at_once
from training.tasks.texts import drop_words

VALIDATED = 2000
AT_ONCE = 256
JUDGED_AT_ONCE = 64
SOURCE_FILE = "tokenizer.json"
TARGET_FILE = "target_tokenizer.json"
# A text that nearly lost against the next is no golden one: the last bits of another machine's sums may decide.
GOLDEN_CANDIDATES = 64


@dataclass(frozen=True)
class PairDataset:
    """Pairs in three parts; `test` is never used for choosing weights.

    Attributes:
        views: Name -> what of a text counts in a further error rate, such as all but its stress marks.
        sha256: Of the data.
    """

    train: Sequence[SequencePair]
    validation: Sequence[SequencePair]
    test: Sequence[SequencePair]
    sha256: str
    views: Mapping[str, Callable[[str], str]] = field(default_factory=dict)


class TextToText:
    """Sources, and the targets accepted for each.

    Args:
        dataset: No text of it is longer than the options allow.
        source_rules: The bytes of the sources' tokenizer, trained on the training part.
        target_rules: Likewise of the targets'.
        network: What is trained.
        options: The run's.
    """

    metric = "accuracy"
    model: nn.Module

    def __init__(
        self,
        dataset: PairDataset,
        source_rules: bytes,
        target_rules: bytes,
        network: Seq2Seq,
        options: Seq2SeqOptions,
    ) -> None:
        self.dataset = dataset
        self.data_sha256 = dataset.sha256
        self.model = network
        self._options = options
        self._rules = {SOURCE_FILE: source_rules, TARGET_FILE: target_rules}
        self._tokenization = Tokenization(
            file=SOURCE_FILE, max_tokens=options.max_tokens, truncate=options.truncate
        )
        self._reader, self._writer = Tokenizer(source_rules), Tokenizer(target_rules)
        self.preparation: Preparation = TextPreparation(self._reader, self._tokenization)
        # Every accepted target is an example of its own.
        told = [(pair.source, target) for pair in dataset.train for target in pair.targets]
        self.train_size = len(told)
        self._sources = self._encoded(source for source, _ in told)
        targets = self._writer.encode_all(target for _, target in told)
        self._targets = Ragged(targets)
        self._learned_N = torch.tensor([_learned(ids) for ids in targets])
        # The same ones in every run; not the first so many, for files are often sorted.
        some_N = permutation(len(dataset.validation), "validated")[:VALIDATED]
        self._validated = [dataset.validation[index] for index in some_N.tolist()]
        self._asked = self._encoded(pair.source for pair in self._validated)
        answers = self._writer.encode_all(target for pair in self._validated for target in pair.targets)
        # A text that goes on beyond the longest of them is wrong whatever it says; the beginning is not written.
        self._longest = min(max(map(len, answers)) - 1, options.max_steps)
        first = self._writer.encode_all(pair.targets[0] for pair in self._validated)
        cut = [ids[: options.max_steps + 1] for ids in first]
        self._answers = Ragged(cut)
        self._learned_of_answers = sum(map(_learned, cut))
        self._device = torch.device("cpu")

    def to(self, device: torch.device) -> None:
        """Move the model there; batches follow one by one."""
        self.model.to(device)
        self._device = device

    def batches(self, order_N: Tensor, batch_size: int) -> Sequence[Tensor]:
        """Cut the order into batches of pairs of like length."""
        return batches_by_length(order_N, self._sources.length_N + self._targets.length_N, batch_size)

    def phases(self) -> Sequence[Phase]:
        """Everything is trained from the start."""
        return all_at_once()

    def rate(self, parameter: str) -> float:  # noqa: ARG002 (all alike)
        """Every parameter takes the whole learning rate."""
        return 1.0

    def weight(self, indices_N: Tensor) -> float:
        """Every token to be written counts the same."""
        return max(1.0, float(self._learned_N[indices_N].sum()))

    def loss(self, model: nn.Module, indices_N: Tensor, *, augment: bool) -> tuple[Tensor, Tensor]:
        """Return summed cross entropy of the tokens, and the number of right ones."""
        sources_NS = self._sources.padded(indices_N)
        if augment and self._options.word_dropout:
            sources_NS = drop_words(sources_NS, self._options.word_dropout)
        targets_NT = self._targets.padded(indices_N)
        return self._token_loss(model, sources_NS, targets_NT, self._options.label_smoothing)

    def validate(self, model: nn.Module) -> tuple[float, float]:
        """Return cross entropy a token, and the share of sources for which the greedy search writes a target."""
        assert isinstance(model, Seq2Seq)  # noqa: S101 (the loop passes this task's own model, or a copy)
        losses, written = 0.0, list[str]()
        parts = torch.arange(len(self._asked)).split(AT_ONCE)
        for part_N in parts:
            sources_NS = self._asked.padded(part_N)
            loss, _ = self._token_loss(model, sources_NS, self._answers.padded(part_N), 0.0)
            losses += loss.item()
            tokens_NT, _ = model.greedy_search(sources_NS.to(self._device), self._longest)
            written += [self._writer.decode(row) for row in tokens_NT.tolist()]
        tokens = max(1, self._learned_of_answers)
        accepted = [pair.targets for pair in self._validated]
        return losses / tokens, 1 - error_rate(written, accepted)

    def calibrate(self) -> None:
        """Make the scores of texts that the beam search writes for the validation part the share that is right."""
        model = self._writing
        log_scores, right = list[Tensor](), list[bool]()
        with torch.inference_mode():
            # Like length together, as where it is judged.
            for part_N in self._asked.length_N.argsort(stable=True).split(JUDGED_AT_ONCE):
                sources_NS = self._asked.padded(part_N).to(self._device)
                tokens_NBT, log_scores_NB = model.eval().beam_search(sources_NS, model.beams)
                log_scores.append(log_scores_NB[:, 0].cpu())
                written = [self._writer.decode(tokens_BT[0].tolist()) for tokens_BT in tokens_NBT]
                accepted = [self._validated[index].targets for index in part_N.tolist()]
                right += [text in targets for text, targets in zip(written, accepted, strict=True)]
        scale, offset = fit_confidence(torch.cat(log_scores).clone(), torch.tensor(right))
        model.score_scale.fill_(scale)
        model.score_offset.fill_(offset)

    @property
    def _writing(self) -> Seq2Seq:
        assert isinstance(self.model, Seq2Seq)  # noqa: S101 (it was made with one)
        return self.model

    def parity_batch(self) -> Tensor:
        """Return test sources as one batch, repeated if there are few."""
        test = self.dataset.test
        return self._test_batch([index % len(test) for index in range(PARITY_SAMPLES)])

    def judge(self, exported: Exported) -> Judgement:
        """Let the file write for the test part, as the service would.

        Raises:
            GateFailed: More of its texts are wrong than `max_error_rate` allows.
        """
        test = self.dataset.test
        # Sources of like length together: padding is computed for nothing.
        order = sorted(range(len(test)), key=lambda index: len(test[index].source))
        written, scores = [""] * len(test), [0.0] * len(test)
        for start in range(0, len(order), JUDGED_AT_ONCE):
            indices = order[start : start + JUDGED_AT_ONCE]
            tokens_NBT, scores_NB = _written(exported, self._test_batch(indices))
            for index, tokens_BT, scores_B in zip(indices, tokens_NBT, scores_NB, strict=True):
                written[index], scores[index] = self._writer.decode(tokens_BT[0].tolist()), scores_B[0].item()
        metrics = self._metrics(written)
        if not metrics["test_error_rate"] <= self._options.max_error_rate:
            raise GateFailed(
                f"error rate: {metrics['test_error_rate']:.2%} on the test set, through the exported file; "
                f"--max-error-rate is {self._options.max_error_rate:.2%}"
            )
        right = [text in pair.targets for text, pair in zip(written, test, strict=True)]
        return self._judgement(metrics, torch.tensor(scores), torch.tensor(right), self._worst(written, scores))

    def _judgement(
        self, metrics: Mapping[str, float], score_N: Tensor, right_N: Tensor, mistakes: Sequence[Mistake]
    ) -> Judgement:
        scale, offset = self._writing.score_scale.item(), self._writing.score_offset.item()
        # What the model itself said: the file scales and moves its log-odds.
        before_N = ((log_odds(score_N.double().log()) - offset) / scale).sigmoid()
        calibration = Calibration(
            bins=CALIBRATION_BINS,
            ece_before=calibration_error(before_N, right_N),
            ece_after=calibration_error(score_N, right_N),
            nll_before=_nll(before_N, right_N),
            nll_after=_nll(score_N, right_N),
        )
        rates = [f"{name.replace('_', ' ')} {value:.2%}" for name, value in metrics.items()]
        return Judgement(
            metrics={**metrics, "test_ece": calibration.ece_after},
            figures={
                "test": dict(metrics),
                "beams": self._options.beams,
                "score": {"scale": scale, "offset": offset},
                "calibration": calibration.model_dump(),
            },
            table="\n".join([*rates, f"ECE {calibration.ece_before:.4f} -> {calibration.ece_after:.4f}"]),
            pictures={
                "calibration": draw_calibration({"before": (before_N, right_N), "after": (score_N, right_N)})
            },
            mistakes=mistakes,
            calibration=calibration,
        )

    def golden_inputs(self) -> Mapping[str, bytes]:
        """Return the test sources, of the first few dozen, whose best text leads the next by most."""
        sources = [pair.source.encode() for pair in self.dataset.test[:GOLDEN_CANDIDATES]]
        with torch.inference_mode():
            batch = self._test_batch(range(len(sources)))
            _, log_scores_NB = self._writing.eval().beam_search(batch, self._writing.beams)
        surest = _lead(log_scores_NB).argsort(descending=True, stable=True)[:GOLDEN_EXAMPLES].tolist()
        return {f"{number}.txt": sources[index] for number, index in enumerate(surest)}

    def description(self) -> Mapping[str, Any]:
        """Return the manifest's fields that say what the model takes and gives."""
        described = description_of(
            TensorSpec(name="tokens", dtype="int64", shape=("N", "L")),
            TensorSpec(name="written", dtype="int64", shape=("N", "B", "T")),
            task="text-to-text",
            tokenize=self._tokenization,
            write=Writing(file=TARGET_FILE, beams=self._options.beams, max_tokens=self._options.max_steps),
        )
        scores = TensorSpec(name="scores", dtype="float32", shape=("N", "B"))
        return described | {"outputs": (*described["outputs"], scores)}

    def files(self) -> Mapping[str, bytes]:
        """Return both tokenizers."""
        return self._rules

    def sizes(self) -> Mapping[str, int]:
        """Return the number of sources of each part, and of pairs that are trained on."""
        dataset = self.dataset
        return {
            "train": len(dataset.train),
            "train_pairs": self.train_size,
            "validation": len(dataset.validation),
            "test": len(dataset.test),
        }

    def sample(self) -> None:
        """There are no other forms of a model that writes."""

    def _encoded(self, sources: Iterable[str]) -> Ragged:
        # Cut as the service cuts them; without `truncate` none is longer.
        return Ragged([ids[: self._options.max_tokens] for ids in self._reader.encode_all(sources)])

    def _token_loss(
        self, model: nn.Module, sources_NS: Tensor, targets_NT: Tensor, smoothing: float
    ) -> tuple[Tensor, Tensor]:
        assert isinstance(model, Seq2Seq)  # noqa: S101 (likewise)
        targets_NT = targets_NT.to(self._device)
        logits_NTV = model.logits(sources_NS.to(self._device), targets_NT[:, :-1]).float()
        next_NT = targets_NT[:, 1:]
        # What the vocabulary has no token for cannot be written, so it is nothing to learn.
        next_NT = next_NT.masked_fill(next_NT == UNKNOWN, PAD)
        loss = F.cross_entropy(
            logits_NTV.flatten(0, 1),
            next_NT.flatten(),
            ignore_index=PAD,
            label_smoothing=smoothing,
            reduction="sum",
        )
        right = (logits_NTV.detach().argmax(2) == next_NT) & (next_NT != PAD)
        return loss, right.sum()

    def _metrics(self, written: Sequence[str]) -> dict[str, float]:
        accepted = [pair.targets for pair in self.dataset.test]
        metrics = {
            "test_error_rate": error_rate(written, accepted),
            "test_token_error_rate": token_error_rate(written, accepted),
        }
        for name, view in self.dataset.views.items():
            seen = [view(text) for text in written]
            wanted = [tuple(view(target) for target in targets) for targets in accepted]
            metrics[f"test_error_rate_{name}"] = error_rate(seen, wanted)
            metrics[f"test_token_error_rate_{name}"] = token_error_rate(seen, wanted)
        return metrics

    def _worst(self, written: Sequence[str], scores: Sequence[float]) -> list[Mistake]:
        test = self.dataset.test
        wrong = [index for index, text in enumerate(written) if text not in test[index].targets]
        return [
            Mistake(test[index].source.encode(), " | ".join(test[index].targets), written[index], scores[index])
            for index in sorted(wrong, key=lambda index: -scores[index])[:MOST_MISTAKES]
        ]

    def _test_batch(self, indices: Sequence[int]) -> Tensor:
        contents = [self.dataset.test[index].source.encode() for index in indices]
        return self.preparation.collate([self.preparation.prepare(content) for content in contents])


def _learned(ids: Sequence[int]) -> int:
    """Return how many tokens there are to learn: not the beginning, nor what the vocabulary has no token for."""
    return len(ids) - 1 - ids.count(UNKNOWN)


def _lead(log_scores_NB: Tensor) -> Tensor:
    """Return by how much the best text's score exceeds the next one's, of shape N."""
    if log_scores_NB.shape[1] == 1:
        return torch.zeros(len(log_scores_NB))
    return log_scores_NB[:, 0] - log_scores_NB[:, 1]


def _nll(score_N: Tensor, right_N: Tensor) -> float:
    return F.binary_cross_entropy(score_N.double(), right_N.double()).item()


def _written(exported: Exported, batch: Tensor) -> tuple[Tensor, Tensor]:
    outputs = exported.run(batch)
    if isinstance(outputs, Tensor):
        raise GateFailed("export: the file does not give tokens and scores")
    return outputs
