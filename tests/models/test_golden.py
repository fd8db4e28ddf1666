import pytest
import torch

from models.errors import GoldenMismatch
from models.golden import check_golden
from models.repository import Repository
from tests.bundles import Shades, publish

shades = Shades()


@pytest.mark.parametrize("distance", [0.0, 5e-5])
def test_scores_within_the_tolerance_pass(repository: Repository, distance: float) -> None:
    bundle = publish(repository, "shades")
    check_golden(bundle, bundle.manifest.backends[0], lambda images: shades(images) + distance)


@pytest.mark.parametrize("distance", [2e-4, -0.1, float("nan"), float("inf")])
def test_scores_outside_it_are_refused(repository: Repository, distance: float) -> None:
    bundle = publish(repository, "shades")
    with pytest.raises(GoldenMismatch, match="a golden score is off"):
        check_golden(bundle, bundle.manifest.backends[0], lambda images: shades(images) + distance)


def test_scores_of_another_shape_are_refused(repository: Repository) -> None:
    bundle = publish(repository, "shades")
    with pytest.raises(GoldenMismatch, match="shape"):
        check_golden(bundle, bundle.manifest.backends[0], lambda images: shades(images)[:, :2])


def test_another_top_label_is_refused_even_within_the_tolerance(repository: Repository) -> None:
    bundle = publish(repository, "shades")
    backend = bundle.manifest.backends[0]
    loose = backend.model_copy(update={"tolerance": backend.tolerance.model_copy(update={"atol": 0.3})})
    expected_K = torch.tensor(bundle.manifest.golden[0].scores)
    best, second = expected_K.topk(2).indices
    # Neither score moves by more than is allowed, but together they change places by more than a tie.
    turned_K = expected_K.clone()
    turned_K[best] -= 0.29
    turned_K[second] = turned_K[best] + 0.01
    assert expected_K[best] - expected_K[second] > 0.3
    assert (turned_K - expected_K).abs().max() <= 0.3
    with pytest.raises(GoldenMismatch, match="top-1 agrees"):
        check_golden(bundle, loose, lambda _: turned_K[None])
