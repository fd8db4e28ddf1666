"""Which part an example falls in: train, validation or test.

The part follows from the example's key alone, so it stays the same when rows are moved or added, on any
machine, and copies of an example are always together: none is trained on and measured on. Where that leaves a
class without an example to train or to test on, `strata` moves one.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from training.errors import DataInvalid

Part = Literal["train", "validation", "test"]

PARTS: tuple[Part, ...] = ("train", "validation", "test")
PART_NAMES: dict[str, Part] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    # Training loops evaluate on `eval`; those who publish `validation` beside `evaluation` test on the latter.
    "eval": "validation",
    "evaluation": "test",
    "test": "test",
    "testing": "test",
}
VALIDATION_FRACTION = 0.1
TEST_FRACTION = 0.2


def part_of(key: bytes, validation_fraction: float, test_fraction: float) -> Part:
    """Return the part that a key always falls in.

    The test part depends on `test_fraction` alone, and a larger fraction only adds to it.

    Args:
        key: What makes two examples the same.
        validation_fraction: Share of all keys, 0 to 1.
        test_fraction: Share of all keys, 0 to 1; with the other one less than 1.

    Raises:
        DataInvalid: The fractions leave nothing to train on.
    """
    check_fractions(validation_fraction, test_fraction)
    place = place_of(key)
    if place < test_fraction:
        return "test"
    return "validation" if place < test_fraction + validation_fraction else "train"


def place_of(key: bytes) -> float:
    """Return where a key always lies, from 0 to less than 1: test comes first, then validation, then train."""
    # As many bits as a float holds exactly: more could round up to 1.
    return (int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 11) / 2**53


def check_fractions(validation_fraction: float, test_fraction: float) -> None:
    """Refuse shares that cannot be.

    Raises:
        DataInvalid: They leave nothing to train on.
    """
    if not (validation_fraction >= 0 and test_fraction >= 0 and validation_fraction + test_fraction < 1):
        raise DataInvalid(
            f"--validation-fraction {validation_fraction} and --test-fraction {test_fraction} "
            "leave nothing to train on"
        )


def part_named(name: str) -> Part | None:
    """Return the part that people call `name`, whatever its case; None if it is no name of a part."""
    return PART_NAMES.get(name.strip().casefold())


def check_parts(source: Path, sizes: Mapping[Part, int]) -> None:
    """Refuse a data set with an empty part.

    Raises:
        DataInvalid: Naming the part, and what to do.
    """
    for part in PARTS:
        if not sizes[part]:
            raise DataInvalid(
                f"{source}: none of the {sum(sizes.values())} examples falls in {part}; "
                "add examples, or say which part each is in"
            )
