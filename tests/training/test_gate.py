from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.golden import Outputs
from models.preparation import ImagePreparation
from models.repository import Repository
from tests.bundles import Always, decoding, publish, stage
from tests.training.small import options
from training.architectures.convolutional import ConvNet
from training.classifier import Classifier
from training.datasets.images import ImageDataset, LabelledImages
from training.errors import GateFailed
from training.evaluate import Answers, evaluate
from training.export import Exported, script
from training.fresh_check import check_in_fresh_process
from training.gate import PARITY_BATCH_SIZES, check_parity
from training.tasks.images import ImageClassification, encode_png

IMAGES = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def classifier() -> Classifier:
    torch.manual_seed(0)
    network = ConvNet((1, 8, 8), 4, 3, widths=(2, 3, 4))
    untrained = Classifier(network, torch.tensor([0.5]), torch.tensor([0.3])).eval()
    # Untrained, its scores are all alike: settled statistics and a low temperature set them apart.
    untrained.network.train()
    for _ in range(50):
        untrained.logits(IMAGES)
    untrained.temperature.fill_(0.3)
    return untrained.eval()


@pytest.fixture
def small(classifier: Classifier) -> ImageClassification:
    """A test set on which the untrained classifier happens to be right nine times in ten."""
    with torch.inference_mode():
        labels_N = classifier(IMAGES).argmax(1)
    labels_N = labels_N.clone()
    labels_N[::10] = (labels_N[::10] + 1) % 3
    images = LabelledImages(IMAGES, labels_N)
    data = ImageDataset(("a", "b", "c"), images, images, images, "0" * 64)
    given = options(min_accuracy=0.9)
    task = ImageClassification(data, classifier.network, torch.zeros(1), torch.ones(1), decoding(), given)
    task.model = classifier
    return task


class Altered(Exported):
    """An export whose scores are changed on the way out."""

    def __init__(self, content: bytes, change: Any) -> None:
        super().__init__(content)
        self.change = change
        self.sizes: set[int] = set()

    def run(self, batch: Tensor) -> Outputs:
        self.sizes.add(len(batch))
        outputs: Outputs = self.change(super().run(batch))
        return outputs


def test_a_faithful_export_passes_at_every_batch_size(classifier: Classifier) -> None:
    exported = Altered(script(classifier), lambda scores_NK: scores_NK)
    assert check_parity(classifier, exported, IMAGES.repeat(7, 1, 1, 1)[:256]) < 1e-4
    assert set(PARITY_BATCH_SIZES) <= exported.sizes


@pytest.mark.parametrize("distance", [2e-4, float("nan")])
def test_scores_that_differ_fail_the_parity_check(classifier: Classifier, distance: float) -> None:
    with pytest.raises(GateFailed, match="parity: at batch size 1 an exported score differs"):
        check_parity(classifier, Altered(script(classifier), lambda scores_NK: scores_NK + distance), IMAGES)


def test_another_label_fails_the_parity_check(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    # However far scores may differ, a label that was clearly not the best must not become it.
    content = script(classifier)
    monkeypatch.setattr("training.gate.SCORE_ATOL", 0.6)
    check_parity(classifier, Altered(content, lambda scores_NK: scores_NK), IMAGES)
    turned = Altered(content, lambda scores_NK: 0.45 * scores_NK + 0.55 * scores_NK.roll(1, dims=1))
    with pytest.raises(GateFailed, match="gives another label"):
        check_parity(classifier, turned, IMAGES)


def test_an_export_that_gives_another_kind_of_output_fails_the_parity_check(classifier: Classifier) -> None:
    pair = Altered(script(classifier), lambda scores_NK: (scores_NK, scores_NK))
    with pytest.raises(GateFailed, match="another kind of output"):
        check_parity(classifier, pair, IMAGES)


def test_the_test_metric_is_measured_through_the_file(small: ImageClassification) -> None:
    judgement = small.judge(Exported(script(small.model)))
    assert judgement.metrics["test_accuracy"] == pytest.approx(0.9)
    assert judgement.calibration is not None
    assert judgement.calibration.ece_before != judgement.calibration.ece_after
    assert len(judgement.mistakes) == 4


@pytest.mark.parametrize("temperature", [0.002, 0.3, 20.0])
def test_the_figures_before_calibration_are_those_of_the_models_own_logits(
    small: ImageClassification, classifier: Classifier, temperature: float
) -> None:
    classifier.temperature.fill_(temperature)
    content = script(classifier)
    with torch.inference_mode():
        probabilities_NK = classifier.logits(IMAGES).softmax(1)
    expected = evaluate(Answers.of(probabilities_NK, small.test_labels()), small.labels)
    judgement = small.judge(Exported(content))
    assert judgement.calibration is not None
    assert judgement.calibration.nll_before == pytest.approx(expected.nll, rel=1e-5)
    assert judgement.calibration.ece_before == pytest.approx(expected.ece, rel=1e-5)


def test_figures_and_gate_follow_the_file_and_not_the_network(small: ImageClassification) -> None:
    broken = Altered(script(small.model), lambda scores_NK: scores_NK.roll(1, dims=1))
    with pytest.raises(GateFailed, match="accuracy"):
        small.judge(broken)
    small.least_accuracy = 0.0
    assert small.judge(broken).metrics["test_accuracy"] < 0.5


def test_an_accuracy_below_the_least_fails_the_gate(small: ImageClassification) -> None:
    small.least_accuracy = 0.901
    with pytest.raises(GateFailed, match=r"accuracy: 90\.00%.*--min-accuracy is 90\.10%"):
        small.judge(Exported(script(small.model)))


def test_the_test_set_is_judged_from_encoded_images(small: ImageClassification) -> None:
    seen: list[bytes] = []

    class Negative(ImagePreparation):
        def prepare(self, content: bytes) -> Tensor:
            seen.append(content)
            return 255 - super().prepare(content)

    small.least_accuracy = 0.0
    exported = Exported(script(small.model))
    as_it_is = small.judge(exported).metrics["test_nll"]
    small.preparation = Negative(decoding())
    assert abs(small.judge(exported).metrics["test_nll"] - as_it_is) > 1e-3
    assert [content[:4] for content in seen] == [b"\x89PNG"] * len(IMAGES)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_keeps_every_pixel(channels: int) -> None:
    from models.preprocessing import decode_image

    image_CHW = torch.randint(0, 256, (channels, 8, 8), dtype=torch.uint8)
    color = "L" if channels == 1 else "RGB"
    assert torch.equal(decode_image(encode_png(image_CHW), decoding(color=color)), image_CHW)


def test_a_whole_bundle_passes_in_a_fresh_process(repository: Repository) -> None:
    check_in_fresh_process(publish(repository, "shades").directory)


def test_a_bundle_that_gives_other_scores_fails_in_a_fresh_process(repository: Repository) -> None:
    golden = publish(repository, "shades").manifest.golden
    with repository.staging("shades") as staging, pytest.raises(GateFailed, match="fresh process: a golden score"):
        stage(staging, "shades", Always(0), golden=golden)
        check_in_fresh_process(staging.directory)


class Offset(nn.Module):
    """A large offset, added and taken away again: freezing folds the two, and finds what rounding had lost."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Conv2d(1, 1, 1)
        self.normal = nn.BatchNorm2d(1)
        nn.init.ones_(self.offset.weight)
        for offset in (self.offset.bias, self.normal.running_mean):
            assert offset is not None
            nn.init.constant_(offset, 1e7)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        brightness_N1 = self.normal(self.offset(images_NCHW.float() / 255)).mean((2, 3))
        return torch.cat([brightness_N1, 1 - brightness_N1, 0 * brightness_N1], dim=1)


class Overlapping(nn.Module):
    """Runs as it is, and cannot be frozen: one tensor is held in two places."""

    share_K: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("share_K", torch.tensor([0.5, 0.3, 0.2]))
        self.again = [self.share_K]

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return (self.share_K + 0 * self.again[0]).expand(len(images_NCHW), -1)


def test_a_file_that_cannot_be_frozen_fails_in_a_fresh_process(repository: Repository) -> None:
    with (
        repository.staging("again") as staging,
        pytest.raises(GateFailed, match="torchscript-fp32 cannot be loaded for serving: mod"),
    ):
        stage(staging, "again", Overlapping())
        check_in_fresh_process(staging.directory)


def test_a_file_that_freezing_breaks_fails_in_a_fresh_process(repository: Repository) -> None:
    with repository.staging("offset") as staging, pytest.raises(GateFailed, match="fresh process: a golden score"):
        stage(staging, "offset", Offset())
        check_in_fresh_process(staging.directory)


def test_a_harmed_bundle_fails_in_a_fresh_process(repository: Repository) -> None:
    bundle = publish(repository, "shades")
    (bundle.directory / "model.ts.pt").write_bytes(b"")
    with pytest.raises(GateFailed, match=r"model\.ts\.pt"):
        check_in_fresh_process(bundle.directory)
