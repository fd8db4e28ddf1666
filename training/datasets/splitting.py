"""Which part an example falls in: train, validation or test.

The part follows from the example's key alone, so it stays the same when rows are moved or added, on any
machine, and copies of an example are always together: none is trained on and measured on.
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
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
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
    if not (validation_fraction >= 0 and test_fraction >= 0 and validation_fraction + test_fraction < 1):
        raise DataInvalid(
            f"a validation fraction of {validation_fraction} and a test fraction of {test_fraction} "
            "leave nothing to train on"
        )
    # As many bits as a float holds exactly: more could round up to 1.
    place = (int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 11) / 2**53
    if place < test_fraction:
        return "test"
    return "validation" if place < test_fraction + validation_fraction else "train"


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
