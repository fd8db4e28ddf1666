"""A wrong data file of every kind: one clear line, and nothing published."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import training.__main__ as command_line

ROWS = "".join(f"{text} {number},{label}\n" for number in range(20) for text, label in (("a", "x"), ("b", "y")))
TEXT, PAIRS = ("text", "--text-column", "t", "--label-column", "l"), ("seq2seq", "--source-column", "t")
WRONG_TABLES = [
    (TEXT, "own.csv", None, "own.csv cannot be read: No such file"),
    (TEXT, "own.csv", "", "own.csv is empty"),
    (TEXT, "own.tsv", "t\tl\n", "own.tsv has a header but no rows"),
    (
        TEXT,
        "own.csv",
        "t,l\nhello,x\nhello there,x\n",
        "own.csv has one class, 'x'; a classifier needs two or more",
    ),
    (TEXT, "own.csv", f"text,l\n{ROWS}", "own.csv has no column 't'; its columns are 'text', 'l'"),
    (
        TEXT,
        "own.csv",
        "t,l\n,x\n , y\n",
        "own.csv has no row that can be used; 2 skipped: 't' is empty (line 2, line 3)",
    ),
    (TEXT, "own.csv", f"t,l\n{ROWS}only,z\n", "no test example of 'z' (1 in all)"),
    (TEXT, "own.jsonl", '{"t": "hello"}\n{"t": "there"}\n', "own.jsonl has no column 'l'; its columns are 't'"),
    (TEXT, "own.parquet", "no parquet", "own.parquet is not a whole Parquet file"),
    (TEXT, "own.xlsx", "t,l\n", "own.xlsx has an unknown ending"),
    (PAIRS, "own.tsv", "t\tl\na\tb\n", "own.tsv has no column 'target'; its columns are 't', 'l'"),
    (PAIRS, "own.csv", "t,target\n,b\n", "has no row that can be used; 1 skipped: 't' is empty (line 2)"),
    (
        ("image",),
        "own.csv",
        "path,label\na.png,x\nb.png,y\n",
        "not one image of 'x', 'y' can be read; line 2: a.png",
    ),
    (("image",), "own.parquet", "no parquet", "own.parquet is not a whole Parquet file"),
    (("image",), "own", None, "own is not there"),
]


@pytest.mark.parametrize(("command", "name", "content", "complaint"), WRONG_TABLES)
def test_wrong_data_end_with_one_clear_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: Sequence[str],
    name: str,
    content: str | None,
    complaint: str,
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    places = ("--models-dir", str(tmp_path / "models"), "--runs-dir", str(tmp_path / "runs"))
    arguments = [*command, "--data", str(tmp_path / name), "--name", "own", *places]
    monkeypatch.setattr(sys, "argv", ["python -m training", *arguments])
    assert command_line.main() == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("nothing was published: ")
    assert complaint in last
