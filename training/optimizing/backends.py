"""Which other forms of an exported model are accurate enough and faster. Axes: N examples, K labels."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.accuracy import Accuracy, AccuracyLimits
from models.backend import Backend, Form, Requires, Tolerance
from models.errors import BackendUnavailable
from models.golden import same_top_label
from models.instructions import BF16, INT8, architecture, has_instructions
from models.manifest import TensorSpec
from models.operators import NO_OTHERS
from models.preparation import Preparation
from models.runnable import runnable
from training.errors import GateFailed, NotAccurate
from training.export import Exported
from training.gate import SCORE_ATOL
from training.optimizing.openvino import Graph, convert, quantize, reason_of, serialized, versions
from training.optimizing.sample import Sample
from training.progress import Progress

AT_ONCE = 32
TIMED_BATCH = 8
TIMED_ROUNDS = 5
TIMED_S = 0.2
# Of different examples: texts differ in length, for each of which a graph may be prepared anew.
TIMED_BATCHES = 8
# What is less than this faster is not worth its room.
FASTER = 1.05
# A score in fp32 is further off than this only if the graph is not the same: OpenVINO reckons whole numbers of
# 64 bits in 32, and so misplaces what is hashed.
SAME_ATOL = 1e-3
# How much further off than on this machine, at most twice as far, a golden score may be on another of the same
# instructions; and how far in all.
GOLDEN_SLACK = 0.1
MOST_GOLDEN_ATOL = 0.5

Scores = Callable[[Tensor], Tensor]
# What runs a batch, and batches -> items a second.
Rate = Callable[[Scores, Sequence[Tensor]], float]


@dataclass(frozen=True)
class Exporting:
    """An exported classifier, and what is needed to judge another form of it.

    Attributes:
        content: The TorchScript file.
        spec: Of its input.
        preparation: How its raw inputs become a batch.
        golden: Raw inputs whose scores the service will compare.
        allowed: Operators that it may use besides `models.operators.OPERATORS`.
    """

    content: bytes
    spec: TensorSpec
    preparation: Preparation
    golden: Sequence[bytes]
    allowed: frozenset[str] = NO_OTHERS


@dataclass(frozen=True)
class Optimized:
    """A backend that is accurate enough, and faster.

    Attributes:
        backend: For the manifest.
        files: Path -> content.
    """

    backend: Backend
    files: Mapping[str, bytes]


def measured_rate(run: Scores, batches: Sequence[Tensor]) -> float:
    """Return how many items a second a form does, on as many threads as torch may use."""
    for batch in batches:
        run(batch)
    done, start_s = 0, time.perf_counter()
    while (elapsed_s := time.perf_counter() - start_s) < TIMED_S:
        for batch in batches:
            run(batch)
            done += len(batch)
    return done / elapsed_s


def optimized(
    exporting: Exporting, sample: Sample, limits: AccuracyLimits, progress: Progress, rate: Rate = measured_rate
) -> Sequence[Optimized]:
    """Try the other forms of a model, and return those worth publishing, the fastest first.

    Args:
        exporting: The model.
        sample: Of the data that it is for.
        limits: How much less accurate they may be.
        progress: Told of each form, why it is kept or not.
        rate: How fast one is.

    Raises:
        BackendUnavailable: OpenVINO is not installed.
        GateFailed: OpenVINO cannot convert it, or gives something else; with the reason.
    """
    trial = _Trial(exporting, sample, limits, rate)
    progress.say(f"torchscript-fp32: {trial.torchscript_per_s:.0f} items a second on one thread")
    graph = convert(exporting.content, exporting.spec, exporting.allowed)
    plain = _files("model.openvino", serialized(graph))
    trial.check_same(plain)
    kept: list[Optimized] = []
    for precision, instructions in (("fp32", None), ("bf16", BF16), ("int8", INT8)):
        if instructions and not has_instructions(instructions):
            progress.say(f"openvino-{precision}: not tried, for this processor is not made for it")
            continue
        requires = Requires(arch=architecture(), isa=instructions)
        try:
            if precision == "int8":
                found = _quantized(trial, graph, sample.quantize, requires, progress)
            else:
                found = trial.judge(precision, plain, requires)
        except (GateFailed, BackendUnavailable) as error:
            progress.say(f"openvino-{precision}: not kept: {error}")
            continue
        progress.say(f"{found.backend.id}: {_told(found.backend)}")
        kept.insert(0, found)
    return kept


def _quantized(
    trial: "_Trial", graph: Graph, examples: Sequence[Tensor], requires: Requires, progress: Progress
) -> Optimized:
    """Return the int8 form: all of it, or where that is not accurate enough all but its first and last layers."""

    def judged(*, spare_ends: bool) -> Optimized:
        files = _files("model.openvino-int8", serialized(quantize(graph, examples, spare_ends=spare_ends)))
        return trial.judge("int8", files, requires)

    try:
        return judged(spare_ends=False)
    except NotAccurate as error:
        progress.say(f"openvino-int8: {error}; tried again with the first and last layers in fp32")
        return judged(spare_ends=True)


class _Trial:
    """The TorchScript form, and others beside it.

    Args:
        exporting: The model.
        sample: What it is judged by.
        limits: How much less accurate another form may be.
        rate: How fast one is.
    """

    def __init__(self, exporting: Exporting, sample: Sample, limits: AccuracyLimits, rate: Rate) -> None:
        self._limits = limits
        self._rate = rate
        self._built_with = versions()
        self._data_sha256 = sample.sha256
        self._collate = exporting.preparation.collate
        self._sample = sample
        self._golden = self._collate([exporting.preparation.prepare(content) for content in exporting.golden])
        reference = Exported(exporting.content, exporting.allowed)
        self._golden_NK = reference.scores(self._golden)
        reference.freeze(torch.device("cpu"))
        self._reference: Scores = reference.scores
        self._reference_NK = self._scores(reference.scores)
        self._fastest_per_s = self.torchscript_per_s = self._items_per_s(reference.scores)[0]

    def check_same(self, files: Mapping[str, bytes]) -> None:
        """Have the converted graph give TorchScript's scores, before it is made less precise on purpose.

        Raises:
            GateFailed: A score is off by more than rounding explains.
        """
        scores_NK = self._scores(_running(_form("fp32", files, Requires()), files))
        distance = (scores_NK - self._reference_NK).abs().max().item()
        if not distance <= SAME_ATOL:
            raise GateFailed(
                f"OpenVINO converts it to something else: a score differs from TorchScript's by {distance:.2g}"
            )

    def judge(self, precision: str, files: Mapping[str, bytes], requires: Requires) -> Optimized:
        """Return a form of the model that is worth publishing.

        Raises:
            GateFailed: It is not accurate enough, or not faster than those before; with the figures.
        """
        form = _form(precision, files, requires)
        run = _running(form, files)
        accuracy = self._accuracy(self._scores(run))
        if refusal := self._limits.refusal(accuracy):
            raise NotAccurate(refusal)
        tolerance = self._tolerance(run(self._golden))
        torchscript_per_s, items_per_s = self._items_per_s(self._reference, run)
        # By what TorchScript did in the same seconds: the machine's speed is not always the same.
        items_per_s *= self.torchscript_per_s / torchscript_per_s
        if items_per_s < FASTER * self._fastest_per_s:
            raise GateFailed(
                f"{items_per_s:.0f} items a second on one thread are no more than the {self._fastest_per_s:.0f} "
                "of a more precise one"
            )
        self._fastest_per_s = items_per_s
        backend = Backend(
            **dict(form),
            tolerance=tolerance,
            accuracy=accuracy,
            items_per_s=items_per_s,
            built_with=self._built_with,
        )
        return Optimized(backend, files)

    def _scores(self, run: Scores) -> Tensor:
        examples = self._sample.judge
        return torch.cat(
            [run(self._collate(examples[start : start + AT_ONCE])) for start in range(0, len(examples), AT_ONCE)]
        )

    def _accuracy(self, scores_NK: Tensor) -> Accuracy:
        found_N, reference_N = scores_NK.argmax(1), self._reference_NK.argmax(1)
        agreement = (found_N == reference_N).double().mean().item()
        if not scores_NK.isfinite().all():
            raise GateFailed("some of its scores are no numbers")
        if self._sample.labels is None:
            return Accuracy(examples=len(found_N), top1_agreement=agreement, data_sha256=self._data_sha256)
        labels_N = torch.tensor(self._sample.labels)
        metric, reference = ((each_N == labels_N).double().mean().item() for each_N in (found_N, reference_N))
        return Accuracy(
            examples=len(found_N),
            top1_agreement=agreement,
            metric=metric,
            metric_loss=reference - metric,
            data_sha256=self._data_sha256,
        )

    def _tolerance(self, golden_NK: Tensor) -> Tolerance:
        distance = (golden_NK - self._golden_NK).abs().max().item()
        atol = max(SCORE_ATOL, distance + min(distance, GOLDEN_SLACK))
        if not atol <= MOST_GOLDEN_ATOL:
            raise NotAccurate(
                f"a golden score is off by {distance:.2g}; at most {MOST_GOLDEN_ATOL - GOLDEN_SLACK} is allowed"
            )
        agreement = same_top_label(golden_NK, self._golden_NK, atol).double().mean().item()
        return Tolerance(atol=atol, min_top1_agreement=agreement)

    def _items_per_s(self, *runs: Scores) -> list[float]:
        """Return what each form does on one thread, in turn: what the machine does meanwhile meets all of them."""
        judge = self._sample.judge
        starts = range(0, min(len(judge), TIMED_BATCHES * TIMED_BATCH), TIMED_BATCH)
        batches = [self._collate(judge[start : start + TIMED_BATCH]) for start in starts]
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            rates = [[self._rate(run, batches) for run in runs] for _ in range(TIMED_ROUNDS)]
        finally:
            torch.set_num_threads(threads)
        return [statistics.median(column) for column in zip(*rates, strict=True)]


def _form(precision: str, files: Mapping[str, bytes], requires: Requires) -> Form:
    file, weights = files
    return Form(
        id=f"openvino-{precision}",
        format="openvino",
        file=file,
        weights=weights,
        devices=("cpu",),
        precision=precision,
        requires=requires,
    )


def _running(form: Form, files: Mapping[str, bytes]) -> Scores:
    """Load a form; whatever the library raises of it, then or when it runs, is told as the gate's."""

    def run(batch: Tensor) -> Tensor:
        try:
            scores_NK = graph(batch)
        except RuntimeError as error:
            raise GateFailed(f"OpenVINO cannot run it: {reason_of(error)}") from error
        assert isinstance(scores_NK, Tensor), "no other form is made of what writes texts"  # noqa: S101
        return scores_NK

    try:
        graph = runnable(form, files.__getitem__, torch.device("cpu"))
    except RuntimeError as error:
        raise GateFailed(f"OpenVINO cannot compile it: {reason_of(error)}") from error
    return run


def _files(stem: str, contents: tuple[bytes, bytes]) -> Mapping[str, bytes]:
    return {f"{stem}.xml": contents[0], f"{stem}.bin": contents[1]}


def _told(backend: Backend) -> str:
    accuracy = backend.accuracy
    assert accuracy is not None, "the manifest's own check: all but TorchScript have it"  # noqa: S101
    told = f"{backend.items_per_s:.0f} items a second, top-1 agrees on {accuracy.top1_agreement:.2%}"
    told += f" of {accuracy.examples}"
    if accuracy.metric is None or accuracy.metric_loss is None:
        return told
    # Not "-0.00" where it lost nothing.
    return f"{told}, accuracy {accuracy.metric:.2%} ({0.0 - 100 * accuracy.metric_loss:+.2f} points)"
