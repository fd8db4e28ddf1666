"""A run's figures take the place of those of the same name, and leave all else on the page as it is."""

from pathlib import Path

from tests.faults.figures import BEGIN, END, PAGE, Figures, read


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
