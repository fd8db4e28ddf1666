import pytest

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
    loose = backend.model_copy(update={"tolerance": backend.tolerance.model_copy(update={"atol": 0.999})})
    with pytest.raises(GoldenMismatch, match="top-1 agrees"):
        check_golden(bundle, loose, lambda images: shades(images).flip(1))
