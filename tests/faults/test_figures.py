"""A run's figures take the place of those of the same name, and leave all else on the page as it is."""

import re
from pathlib import Path

import pytest

from tests.faults import LONG
from tests.faults.figures import BEGIN, END, HEADS, PAGE, Figures, read
from training.machine import git_commit

DAY, MACHINE = r"\d{4}-\d{2}-\d{2}", r"\d+ x \S.*, torch \d\S*"
OF_A_COMMIT = re.compile(rf"{DAY}, [0-9a-f]{{8}}, {MACHINE}")
OF_A_RUN = re.compile(rf"{DAY}, [0-9a-f]{{8}}\+?, {MACHINE}")


def test_figures_replace_their_own_and_no_others(tmp_path: Path) -> None:
    page = tmp_path / "reliability.md"
    page.write_text(f"before\n{BEGIN}{END}after\n")
    first, second = Figures(page, "today"), Figures(page, "tomorrow")
    first.tell("soak", "flat", "flat")
    first.tell("kill", "none lost", "one lost")
    second.tell("kill", "none lost", "none lost")
    assert [(each.what, each.reached, each.when) for each in read(page.read_text())] == [
        ("soak", "flat", "today"),
        ("kill", "none lost", "tomorrow"),
    ]
    assert page.read_text().startswith(f"before\n{BEGIN}| what | wanted | reached | when |\n|---|---|---|---|\n")
    assert page.read_text().endswith(f"{END}after\n")


def test_the_page_is_as_a_run_leaves_it() -> None:
    text = PAGE.read_text()
    assert text.count(BEGIN) == text.count(END) == 1


def test_each_row_of_the_page_says_of_which_day_commit_and_machine_it_is() -> None:
    rows = PAGE.read_text().partition(BEGIN)[2].partition(END)[0].splitlines()[2:]
    assert rows
    # What was changed since a commit, nobody can go back to; a long run may be writing the page just now.
    when = OF_A_RUN if LONG else OF_A_COMMIT
    for row in rows:
        before, *cells, after = row.split("|")
        assert (before, len(cells), after) == ("", len(HEADS), ""), row
        assert all(cell.strip() for cell in cells), row
        assert when.fullmatch(cells[-1].strip()), row


def test_what_a_run_tells_is_of_its_day_commit_and_machine(figures: Figures) -> None:
    if git_commit() is None:
        pytest.skip("outside of a checkout there is no commit")
    assert OF_A_RUN.fullmatch(figures._when), figures._when
