import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.training.small_tables import cells, contents, places, written
from training.datasets.reading import Skipped
from training.datasets.tables import read_table


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(cells, cells), min_size=1))
def test_what_was_written_with_quotes_is_read_back(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    buffer = io.StringIO()
    csv.writer(buffer).writerows([("a", "b"), *rows])
    table = read_table(written(tmp_path, "table.csv", buffer.getvalue()))
    assert contents(table) == rows
    assert table.skipped == []


def is_plain_in_tsv(cell: str) -> bool:
    return "\t" not in cell or not set("\r\n") & set(cell)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(*[cells.filter(is_plain_in_tsv)] * 2), min_size=1))
@example([("a", "of\ntwo\rlines"), ('"', "a\ttab")])
def test_a_tsv_that_was_written_with_quotes_is_read_back(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, dialect="excel-tab").writerows([("a", "b"), *rows])
    table = read_table(written(tmp_path, "table.tsv", buffer.getvalue()))
    assert contents(table) == rows
    assert table.skipped == []


# A text in quotes is read without them, so that one cannot be told from one that was quoted.
unquoted = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\t\r\n")).filter(
    lambda text: not text.endswith('"')
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(unquoted, min_size=1))
@example(['"So', "it", 'goes" she'])
@example(['"'])
def test_a_tsv_that_was_written_without_quotes_keeps_every_line(tmp_path: Path, texts: list[str]) -> None:
    lines = [f"{text}\t1\n" for text in texts]
    table = read_table(written(tmp_path, "table.tsv", "text\tlabel\n" + "".join(lines)))
    assert contents(table) == [(text, "1") for text in texts]
    assert table.skipped == []


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ('a\tb\n"x\t1\ny\t2\nz\t3\n', [('"x', "1"), ("y", "2"), ("z", "3")]),
        ('a\tb\n"x\t1\ny"\t2\nz\t3\n', [('"x', "1"), ('y"', "2"), ("z", "3")]),
        ('a\tb\n"x" he said\t1\r\ny\t2\r\n', [('"x" he said', "1"), ("y", "2")]),
        ('a\tb\n1\t"x\n2\ty\n3\tz\n', [("1", '"x'), ("2", "y"), ("3", "z")]),
        ('a\tb\tc\n"x\t1"\t2\n', [('"x', '1"', "2")]),
        ('a\tb\n"x\ny"\t1\n"z ""w"""\t2\n', [("x\ny", "1"), ('z "w"', "2")]),
    ],
)
def test_a_stray_quote_in_a_tsv_is_a_character(tmp_path: Path, content: str, rows: list[tuple[str, ...]]) -> None:
    table = read_table(written(tmp_path, "a.tsv", content))
    assert contents(table) == rows
    assert table.skipped == []


def test_space_after_a_comma_is_no_part_of_what_follows(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "a.csv", 'text, label\n"good, film", "pos"\npos, "good, film"\n'))
    assert contents(table) == [("good, film", "pos"), ("pos", "good, film")]
    table = read_table(written(tmp_path, "b.csv", 'label,text\n5, "Great" film\n'))
    assert contents(table) == [("5", ' "Great" film')]


def test_a_stray_quote_in_a_csv_costs_its_own_line_only(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "a.csv", 'a,b\n"x,1\ny,2\n"z"w,3\n\n"v,4\n'))
    assert contents(table) == [("y", "2")]
    assert table.skipped == [Skipped(f"line {n}", "has quotes that do not match") for n in (2, 4, 6)]


def test_every_line_of_a_row_that_does_not_fit_is_counted(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "a.csv", 'a,b\n"x\ny\nz",1,2\nx,1\n'))
    assert contents(table) == [("x", "1")]
    assert table.skipped == [Skipped(f"line {n}", "has 3 fields where the header has 2") for n in (2, 3, 4)]


def test_many_stray_quotes_take_no_longer(tmp_path: Path) -> None:
    lines = "".join(f'"x "" {number},1\n' for number in range(20_000))
    table = read_table(written(tmp_path, "a.csv", f"a,b\n{lines}x,1\n"))
    assert len(table.rows) + len(table.skipped) == 20_001


def test_a_row_is_named_by_the_line_it_starts_on(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "a.csv", 'a,b\n"x\ny\r\nz",1\n\nlast,2\n'))
    assert contents(table) == [("x\ny\r\nz", "1"), ("last", "2")]
    assert places(table) == ["line 2", "line 6"]


def test_a_cell_may_be_a_whole_book(tmp_path: Path) -> None:
    book = "word " * 100_000
    assert contents(read_table(written(tmp_path, "a.csv", f"a,b\n{book},1\n"))) == [(book, "1")]
