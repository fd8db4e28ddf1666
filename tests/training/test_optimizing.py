"""Which other forms of a model are kept. Axes: N images, C, H, W, K labels."""

import io
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.accuracy import AccuracyLimits
from models.bundle import Bundle
from models.errors import ModelNotFound, SignatureInvalid, SignatureMissing
from models.manifest import Source, TensorSpec
from models.preparation import ImagePreparation
from models.repository import Repository
from models.signing_key import SigningKey
from models.tokenization import pad
from tests.bundles import decoding, openvino_files, publish, publish_texts, publish_writer
from tests.images import png
from tests.training.small_images import put
from training.commands import OptimizeOptions
from training.errors import DataInvalid, DataUnavailable, GateFailed, OptionInvalid
from training.export import Exported, script
from training.optimizing import backends
from training.optimizing import run as command
from training.optimizing.backends import Exporting, Optimized, optimized
from training.optimizing.openvino import convert
from training.optimizing.pictures import of_pictures
from training.optimizing.run import optimize
from training.optimizing.sample import Sample
from training.progress import Progress
from training.tasks.images import encode_png

SPEC = TensorSpec(name="images", dtype="uint8", shape=("N", 3, 16, 16))
DECODING = decoding(color="RGB", size=(16, 16))


class Edges(nn.Module):
    """Convolutions with weights of their own: enough for numbers of eight bits to show."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU())
        self.head = nn.Linear(16, 4)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        features_NC = self.layers(images_NCHW.float() / 255).mean((2, 3))
        return torch.softmax(20 * self.head(features_NC), dim=1)


class Steep(Edges):
    """So sure of itself that a small difference makes another label certain."""

    def forward(self, images_NCHW: Tensor) -> Tensor:
        features_NC = self.layers(images_NCHW.float() / 255).mean((2, 3))
        logits_NK = self.head(features_NC)
        return torch.softmax(3e4 * (logits_NK - logits_NK.mean(1, keepdim=True)), dim=1)


def pictures(count: int, seed: int = 0) -> Sequence[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    # Each has a colour of its own, or all would be the same grey on average.
    colour_N311 = torch.rand(count, 3, 1, 1, generator=generator)
    noise_NCHW = torch.rand(count, 3, 16, 16, generator=generator)
    return list((255 * (0.7 * colour_N311 + 0.3 * noise_NCHW)).to(torch.uint8))


@pytest.fixture(scope="module")
def exporting() -> Exporting:
    content = script(Edges())
    golden = [encode_png(picture) for picture in pictures(4, seed=9)]
    return Exporting(content, SPEC, ImagePreparation(DECODING), golden)


def sample(exporting: Exporting, *, labelled: bool = True) -> Sample:
    """Pictures whose right labels are those that the model gives, but for every tenth."""
    judge = pictures(200, seed=2)
    labels = Exported(exporting.content).scores(torch.stack(list(judge))).argmax(1)
    labels[::10] = (labels[::10] + 1) % 4
    return Sample(pictures(40, seed=1), judge, labels.tolist() if labelled else None)


Fast = Callable[[backends.Scores, Sequence[Tensor]], float]


def speeds(*of_graphs: float) -> Fast:
    """TorchScript does a hundred a second, and each other form in turn what is said here."""
    known: dict[backends.Scores, float] = {}

    def rate(run: backends.Scores, _batches: Sequence[Tensor]) -> float:
        if isinstance(getattr(run, "__self__", None), Exported):
            return 100.0
        if run not in known:
            known[run] = of_graphs[len(known)]
        return known[run]

    return rate


@pytest.fixture(autouse=True)
def every_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine has; the arithmetic is emulated where it has not."""
    monkeypatch.setattr(backends, "has_instructions", lambda _: True)


class Told:
    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.progress = Progress(self.stream)

    @property
    def text(self) -> str:
        return self.stream.getvalue()


def ids(found: Sequence[Optimized]) -> list[str]:
    return [each.backend.id for each in found]


EVERYTHING = AccuracyLimits(max_metric_loss=1.0, min_top1_agreement=0.0)
LOOSE = AccuracyLimits(max_metric_loss=0.2, min_top1_agreement=0.5)


def test_what_is_accurate_and_faster_is_kept_the_fastest_first(exporting: Exporting) -> None:
    told = Told()
    found = optimized(exporting, sample(exporting), LOOSE, told.progress, speeds(150, 200, 300))
    assert ids(found) == ["openvino-int8", "openvino-bf16", "openvino-fp32"]
    assert [each.backend.items_per_s for each in found] == [300, 200, 150]
    exact = found[-1].backend.accuracy
    assert exact is not None
    assert (exact.examples, exact.top1_agreement, exact.metric, exact.metric_loss) == (200, 1.0, 0.9, 0.0)
    assert "openvino-fp32: 150 items a second, top-1 agrees on 100.00% of 200, accuracy 90.00% (+0.00" in told.text
    int8 = found[0].backend
    assert int8.requires.isa is not None
    assert set(found[0].files) == {int8.file, int8.weights} != set(found[1].files)
    assert found[1].files == found[2].files
    assert int8.tolerance.atol > found[-1].backend.tolerance.atol == 1e-4


def test_what_loses_too_much_is_not_kept(exporting: Exporting) -> None:
    told = Told()
    # No form may differ at all, and eight bits do.
    strict = AccuracyLimits(max_metric_loss=0.0, min_top1_agreement=1.0)
    found = optimized(exporting, sample(exporting), strict, told.progress, speeds(150, 200, 300))
    assert "openvino-int8" not in ids(found)
    assert "openvino-int8: top-1 agrees on" in told.text
    assert "of 200 examples; 100.00% is wanted; tried again" in told.text
    assert "openvino-int8: not kept: of 3 layers none would be left in int8" in told.text


def test_labels_count_where_they_are_known(exporting: Exporting) -> None:
    told = Told()
    # Any label may differ, as long as no more are wrong: and of labels that are TorchScript's, any other is wrong.
    judged = sample(exporting)
    labels = Exported(exporting.content).scores(torch.stack(list(judged.judge))).argmax(1).tolist()
    right = Sample(judged.quantize, judged.judge, labels)
    limits = AccuracyLimits(max_metric_loss=0.0, min_top1_agreement=0.0)
    assert "openvino-int8" not in ids(optimized(exporting, right, limits, told.progress, speeds(150, 200, 300)))
    assert "openvino-int8: accuracy falls by" in told.text
    unknown = Sample(judged.quantize, judged.judge, None)
    found = optimized(exporting, unknown, limits, told.progress, speeds(150, 200, 300))
    assert "openvino-int8" in ids(found)
    assert found[0].backend.accuracy is not None
    assert found[0].backend.accuracy.metric is None


@pytest.mark.parametrize(
    ("rates", "kept"),
    [
        ((104, 200, 300), ["openvino-int8", "openvino-bf16"]),
        ((150, 150, 300), ["openvino-int8", "openvino-fp32"]),
        ((150, 200, 190), ["openvino-bf16", "openvino-fp32"]),
        ((90, 90, 90), []),
    ],
)
def test_what_is_no_faster_than_a_more_precise_form_is_not_kept(
    exporting: Exporting, rates: tuple[float, ...], kept: list[str]
) -> None:
    told = Told()
    assert ids(optimized(exporting, sample(exporting), LOOSE, told.progress, speeds(*rates))) == kept
    assert "are no more than" in told.text


def test_a_precision_that_the_processor_is_not_made_for_is_not_tried(
    exporting: Exporting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "has_instructions", lambda _: False)
    told = Told()
    assert ids(optimized(exporting, sample(exporting), LOOSE, told.progress, speeds(150))) == ["openvino-fp32"]
    assert told.text.count("not tried") == 2


def test_what_the_converter_does_not_know_is_told() -> None:
    class Strange(nn.Module):
        def forward(self, images_NCHW: Tensor) -> Tensor:
            values_NC: Tensor = torch.linalg.svdvals(images_NCHW.float().flatten(2))
            return values_NC

    with pytest.raises(GateFailed, match=r"OpenVINO cannot convert it: .*svdvals"):
        convert(script(Strange()), SPEC)


def test_without_the_quantizer_the_other_forms_are_left(
    exporting: Exporting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    told = Told()
    found = optimized(exporting, sample(exporting), LOOSE, told.progress, speeds(150, 200))
    assert ids(found) == ["openvino-bf16", "openvino-fp32"]
    assert "openvino-int8: not kept: NNCF is not installed" in told.text
    assert "extra `optimize`" in told.text


class Hashing(nn.Module):
    """Looks tokens up by a hash, as some text models do: whole numbers too large for 32 bits."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rows = nn.Embedding(200_000, 4)

    def forward(self, tokens_NL: Tensor) -> Tensor:
        return torch.softmax(self.rows((tokens_NL * 16_777_619 + 7) % 200_000).sum(1), dim=1)


def test_a_graph_that_reckons_something_else_is_refused_in_any_precision() -> None:
    generator = torch.Generator().manual_seed(3)
    texts = [torch.randint(1000, 30_000, (6,), generator=generator) for _ in range(200)]
    spec = TensorSpec(name="tokens", dtype="int64", shape=("N", "L"))

    class Padded:
        def prepare(self, content: bytes) -> Tensor:
            return texts[int(content)]

        def collate(self, examples: Sequence[Tensor]) -> Tensor:
            return pad(examples)

    hashing = Exporting(script(Hashing()), spec, Padded(), [b"0", b"1"])
    with pytest.raises(GateFailed, match="OpenVINO converts it to something else"):
        optimized(
            hashing, Sample(texts[:40], texts[40:], None), EVERYTHING, Told().progress, speeds(150, 200, 300)
        )


def test_a_form_whose_golden_scores_say_nothing_any_more_is_not_kept(exporting: Exporting) -> None:
    told = Told()

    # So steep that eight bits move probabilities from one label to another.
    golden = [encode_png(picture) for picture in pictures(100, seed=9)]
    steep = Exporting(script(Steep()), SPEC, exporting.preparation, golden)
    found = optimized(steep, sample(steep), EVERYTHING, told.progress, speeds(150, 200, 300))
    assert "openvino-int8" not in ids(found)
    assert "openvino-int8: a golden score is off by" in told.text


class Uneven(Edges):
    """What tells is a weight of its first layer so small beside the next that eight bits do not show it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        first, *others = (nn.Conv2d(channels, 16, 3, bias=channels == 3) for channels in (3, 16, 16, 16))
        weights = torch.zeros(16, 3, 3, 3)
        weights[:, :2] = 1e-3 * torch.randn(16, 2, 1, 1, generator=torch.Generator().manual_seed(1))
        # Of no consequence: every picture has the same in this channel, and the bias takes it away.
        weights[:, 2, 1, 1] = 1.0
        first.weight = nn.Parameter(weights)
        first.bias = nn.Parameter(torch.full((16,), -100 / 255))
        self.layers = nn.Sequential(*(step for layer in (first, *others) for step in (layer, nn.ReLU())))
        self.head = nn.Linear(16, 4, bias=False)
        self.head.weight = nn.Parameter(1e4 * self.head.weight)


def test_where_eight_bits_do_not_suffice_the_ends_are_spared() -> None:
    told = Told()

    def even(count: int, seed: int) -> Sequence[Tensor]:
        found = pictures(count, seed)
        for picture_CHW in found:
            picture_CHW[2] = 100
        return found

    golden = [encode_png(picture) for picture in even(4, seed=9)]
    uneven = Exporting(script(Uneven()), SPEC, ImagePreparation(DECODING), golden)
    strict = AccuracyLimits(max_metric_loss=1.0, min_top1_agreement=0.9)
    judged = Sample(even(40, seed=1), even(200, seed=2), None)
    found = optimized(uneven, judged, strict, told.progress, speeds(150, 200, 250, 300))
    assert "openvino-int8: top-1 agrees on" in told.text
    assert "tried again with the first and last layers in fp32" in told.text
    assert ids(found)[0] == "openvino-int8"


def test_a_handful_of_examples_is_not_enough(exporting: Exporting) -> None:
    with pytest.raises(DataInvalid, match="there are 99 held-out examples to judge by; at least 100"):
        Sample(pictures(40), pictures(99), None)


def fill(folder: Path, count: int, seed: int) -> None:
    for place, picture in enumerate(pictures(count, seed)):
        put(folder / f"{place}.png", encode_png(picture))


def test_pictures_are_shared_between_quantizing_and_judging(tmp_path: Path) -> None:
    fill(tmp_path / "some", 240, seed=3)
    fill(tmp_path / "more" / "deep", 5, seed=3)
    put(tmp_path / "some" / "notes.txt", b"no picture")
    put(tmp_path / "some" / ".hidden.png", b"nor this")
    told = Told()
    found = of_pictures(tmp_path / "some", DECODING, ("a", "b"), told.progress)
    assert (len(found.quantize), len(found.judge), found.labels) == (120, 120, None)
    assert "notes.txt" in told.text
    with pytest.raises(DataInvalid, match=r"more, some are none of the model's labels"):
        of_pictures(tmp_path, DECODING, ("a", "b"), told.progress)


def test_folders_named_by_label_tell_what_is_right(tmp_path: Path) -> None:
    fill(tmp_path / "b" / "deep", 120, seed=4)
    fill(tmp_path / "elsewhere", 120, seed=5)
    tmp_path = tmp_path.rename(tmp_path.with_name("pictures"))
    # A folder that is a link counts; one below it does not.
    (tmp_path / "elsewhere").rename(tmp_path.with_name("elsewhere"))
    (tmp_path / "a").symlink_to(tmp_path.with_name("elsewhere"))
    (tmp_path / "b" / "again").symlink_to(tmp_path.with_name("elsewhere"))
    found = of_pictures(tmp_path, DECODING, ("a", "b", "c"), Told().progress)
    assert found.labels is not None
    assert set(found.labels) == {0, 1}
    assert len(found.labels) == len(found.judge) == 120
    # Whichever is the larger half of which, each label is among those that are judged.
    assert 30 < sum(found.labels) < 90
    put(tmp_path / "loose.jpg", png(7))
    with pytest.raises(DataInvalid, match="others beside them"):
        of_pictures(tmp_path, DECODING, ("a", "b", "c"), Told().progress)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable, match="is not a folder"):
        of_pictures(tmp_path / "nowhere", DECODING, ("a", "b"), Told().progress)


@pytest.fixture
def edges(repository: Repository, tmp_path: Path) -> OptimizeOptions:
    """How to optimize a published model that was imported, as far as its manifest says."""
    publish(repository, "edges", Edges(), ("a", "b", "c", "d"), decode=DECODING)
    fill(tmp_path / "pictures", 240, seed=6)
    return OptimizeOptions(name="edges", models_dir=repository.root, data=tmp_path / "pictures", min_agreement=0.5)


def at(monkeypatch: pytest.MonkeyPatch, *of_graphs: float) -> None:
    monkeypatch.setattr(command, "optimized", partial(optimized, rate=speeds(*of_graphs)))


def test_the_next_version_has_all_of_the_one_before_and_the_forms_that_are_kept(
    repository: Repository, edges: OptimizeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = repository.open("edges").manifest
    at(monkeypatch, 150, 200, 300)
    optimize(edges, Told().progress)
    after = repository.open("edges").manifest
    assert after.version == before.version.replace(".1", ".2")
    assert [backend.id for backend in after.backends] == [
        "openvino-int8",
        "openvino-bf16",
        "openvino-fp32",
        "torchscript-fp32",
    ]
    assert {path: after.files[path] for path in before.files} == before.files
    assert (after.golden, after.source, after.metrics) == (before.golden, before.source, before.metrics)
    assert after.accuracy_limits.min_top1_agreement == 0.5
    # What was optimized once can be again; of the forms before, nothing is left.
    at(monkeypatch, 150, 90, 90)
    optimize(edges, Told().progress)
    again = repository.open("edges").manifest
    assert [backend.id for backend in again.backends] == ["openvino-fp32", "torchscript-fp32"]
    assert set(again.files) == {*before.files, "model.openvino.xml", "model.openvino.bin"}


def test_nothing_is_published_where_no_form_will_do(
    repository: Repository, edges: OptimizeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(monkeypatch, 90, 90, 90)
    with pytest.raises(GateFailed, match="none of the other forms is accurate enough and faster"):
        optimize(edges, Told().progress)
    with pytest.raises(OptionInvalid, match="--data: give pictures like those"):
        optimize(edges.model_copy(update={"data": None}), Told().progress)
    with pytest.raises(ModelNotFound, match="no model 'another'"):
        optimize(edges.model_copy(update={"name": "another"}), Told().progress)
    assert repository.versions("edges") == [repository.open("edges").manifest.version]


def test_a_version_that_was_published_meanwhile_is_not_rolled_back(
    repository: Repository, edges: OptimizeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = partial(optimized, rate=speeds(150, 200, 300))

    def meanwhile(*arguments: Any) -> Sequence[Optimized]:
        publish(repository, "edges", Edges(), ("a", "b", "c", "d"), decode=DECODING)
        return honest(*arguments)

    monkeypatch.setattr(command, "optimized", meanwhile)
    with pytest.raises(GateFailed, match="another version of edges was published meanwhile"):
        optimize(edges, Told().progress)
    assert len(repository.versions("edges")) == 2


def test_with_a_key_only_what_that_key_signed_is_published_anew_and_signed(
    repository: Repository, edges: OptimizeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = SigningKey.make()
    key.write(tmp_path / "signing.key")
    signing = edges.model_copy(update={"signing_key": tmp_path / "signing.key"})
    at(monkeypatch, 150, 90, 90)
    # Otherwise whoever can write there would have a model of theirs signed.
    with monkeypatch.context() as patched:
        patched.setattr(command, "sample_of", lambda *_: pytest.fail("read what nobody signed"))
        with pytest.raises(SignatureMissing):
            optimize(signing, Told().progress)
        repository.sign("edges", SigningKey.make())
        with pytest.raises(SignatureInvalid):
            optimize(signing, Told().progress)
    repository.sign("edges", key)
    bundle = optimize(signing, Told().progress)
    assert bundle.manifest.version == repository.versions("edges")[1]
    assert Bundle.open(bundle.directory, trusted=key.public) == bundle


def test_what_was_trained_before_recipes_were_recorded_is_not_judged_by_what_it_learned_from(
    repository: Repository, edges: OptimizeOptions
) -> None:
    source = Source(git=None, config={"epochs": 3}, data_sha256="0" * 64)
    publish(repository, "edges", Edges(), ("a", "b", "c", "d"), decode=DECODING, source=source)
    with pytest.raises(OptionInvalid, match="edges does not say what it was trained on"):
        optimize(edges, Told().progress)


def test_data_that_would_not_be_used_are_refused(repository: Repository, tmp_path: Path) -> None:
    source = Source(git=None, config={"recipe": "reviews", "epochs": 3, "split": 0}, data_sha256="0" * 64)
    publish_texts(repository, "mood", source=source)
    options = OptimizeOptions(name="mood", models_dir=repository.root, data=tmp_path)
    with pytest.raises(OptionInvalid, match="--data: mood is judged by the reviews of its package"):
        optimize(options, Told().progress)


def test_a_form_that_is_not_what_the_fresh_process_gets_is_not_published(
    repository: Repository, edges: OptimizeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = partial(optimized, rate=speeds(150, 90, 90))

    def falsified(*arguments: Any) -> Sequence[Optimized]:
        found = honest(*arguments)
        other = Edges()
        other.head.bias.data += torch.arange(4.0)
        graph, weights = openvino_files(script(other), SPEC).values()
        files = {"model.openvino.xml": graph, "model.openvino.bin": weights}
        return [Optimized(each.backend, files) for each in found]

    monkeypatch.setattr(command, "optimized", falsified)
    with pytest.raises(GateFailed, match="golden check in a fresh process"):
        optimize(edges, Told().progress)
    assert len(repository.versions("edges")) == 1


def test_models_that_write_and_models_of_unknown_texts_have_no_other_forms(repository: Repository) -> None:
    publish_writer(repository, "writer")
    publish_texts(repository, "mood")
    for name, reason in (("writer", "writer writes texts"), ("mood", "mood does not say what it was trained on")):
        with pytest.raises(OptionInvalid, match=reason):
            optimize(OptimizeOptions(name=name, models_dir=repository.root), Told().progress)
