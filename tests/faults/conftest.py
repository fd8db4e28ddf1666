"""Where the figures of a long run go."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from tests.faults import LONG
from tests.faults.figures import BEGIN, END, PAGE, Figures
from training.machine import this_machine

SHORT_COMMIT = 8


@pytest.fixture(scope="session")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Figures:
    """The page's of a long run; of a short one, which says little, a page of its own."""
    page = PAGE if LONG else _empty_page(tmp_path_factory.mktemp("figures"))
    machine = this_machine(torch.device("cpu"))
    commit = machine.commit or "no commit"
    changed = "+" if commit.endswith("-dirty") else ""
    where = f"{machine.cores} x {machine.cpu}, torch {machine.torch}"
    return Figures(page, f"{datetime.now(UTC):%Y-%m-%d}, {commit[:SHORT_COMMIT]}{changed}, {where}")


def _empty_page(folder: Path) -> Path:
    page = folder / "reliability.md"
    page.write_text(f"{BEGIN}{END}")
    return page
