from pathlib import Path

import pytest

from tests.images import png
from tests.training.small_images import SHADES, put


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """A directory of two class folders, with enough in each."""
    data = tmp_path / "data"
    for label, greys in SHADES.items():
        for grey in greys:
            put(data / label / f"{grey:03}.png", png(grey))
    return data


@pytest.fixture
def part_folders(tmp_path: Path) -> Path:
    """A directory of three part folders; the greys below 10 are for training, then come the other two."""
    data = tmp_path / "parts"
    for first, part in ((0, "train"), (10, "val"), (20, "Test")):
        for label, greys in SHADES.items():
            for grey in greys[first : first + 10]:
                put(data / part / label / f"{grey:03}.png", png(grey))
    return data
