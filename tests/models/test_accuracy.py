import pytest

from models.accuracy import Accuracy, AccuracyLimits


@pytest.mark.parametrize(
    ("accuracy", "passes"),
    [
        (Accuracy(examples=100, top1_agreement=0.98), True),
        (Accuracy(examples=100, top1_agreement=0.97), False),
        (Accuracy(examples=100, top1_agreement=0.98, metric=0.9, metric_loss=0.005), True),
        (Accuracy(examples=100, top1_agreement=0.98, metric=0.9, metric_loss=0.006), False),
        (Accuracy(examples=100, top1_agreement=1.0, metric=0.9, metric_loss=-0.5), True),
    ],
)
def test_the_limits_hold_to_the_last_example(accuracy: Accuracy, passes: bool) -> None:
    assert (AccuracyLimits().refusal(accuracy) is None) is passes
