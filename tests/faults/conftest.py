"""Where the figures of a long run go."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from tests.faults import LONG
from tests.faults.figures import BEGIN, END, PAGE, Figures
from training.machine import this_machine

SHORT_COMMIT = 8
LONGEST_S = 3600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the long forms of these tests more time than a test has."""
    for item in items:
        if LONG and item.path.parent == Path(__file__).parent and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(LONGEST_S))


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
