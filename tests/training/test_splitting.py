from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.datasets.splitting import PARTS, part_named, part_of
from training.errors import DataInvalid

fractions = st.floats(0, 0.49)


@pytest.mark.parametrize(
    ("key", "part"), [(b"a", "train"), (b"b", "validation"), (b"c", "test"), (b"lantern", "train"), (b"", "train")]
)
def test_the_split_is_the_same_on_every_machine(key: bytes, part: str) -> None:
    # Their sha256 begin with ca, 3e, 2e, c5 and e3: 0.79, 0.24, 0.18, 0.77 and 0.89 of the way.
    assert part_of(key, 0.1, 0.2) == part


@given(st.binary(), fractions, fractions)
def test_a_larger_test_fraction_only_adds_to_the_test_part(key: bytes, smaller: float, more: float) -> None:
    if part_of(key, 0, smaller) == "test":
        assert part_of(key, 0, smaller + more) == "test"


@given(st.binary(), fractions, fractions, fractions)
def test_the_test_part_does_not_depend_on_the_validation_fraction(
    key: bytes, test: float, first: float, second: float
) -> None:
    assert (part_of(key, first, test) == "test") == (part_of(key, second, test) == "test")


@given(st.binary())
def test_without_fractions_all_is_train(key: bytes) -> None:
    assert part_of(key, 0, 0) == "train"


def test_the_parts_have_about_their_shares() -> None:
    counts = Counter(part_of(str(number).encode(), 0.1, 0.2) for number in range(20_000))
    assert {part: counts[part] / 20_000 for part in PARTS} == pytest.approx(
        {"train": 0.7, "validation": 0.1, "test": 0.2}, abs=0.01
    )


@pytest.mark.parametrize(("validation", "test"), [(0.5, 0.5), (-0.1, 0.2), (0.1, -0.2), (float("nan"), 0.2)])
def test_fractions_that_leave_nothing_to_train_on_stop(validation: float, test: float) -> None:
    with pytest.raises(DataInvalid, match="leave nothing to train on"):
        part_of(b"key", validation, test)


def test_parts_go_by_the_names_people_use() -> None:
    assert {part_named(name) for name in (" Train ", "Training")} == {"train"}
    assert {part_named(name) for name in ("val", "VALID", "Validation", "dev", "eval")} == {"validation"}
    assert {part_named(name) for name in ("TEST", "Testing", "evaluation")} == {"test"}
    assert [part_named(name) for name in ("", "trained", "holdout")] == [None] * 3
