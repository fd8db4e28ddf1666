import gzip
import hashlib
import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.training.small_tables import cells, contents, places, written
from training.datasets.reading import Skipped
from training.datasets.tables import read_table
from training.errors import DataInvalid, DataUnavailable

REVIEWS = [("good", "yes"), ("bad", "no")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "text,label\ngood,yes\nbad,no\n"),
        ("a.CSV", "text,label\r\ngood,yes\r\nbad,no"),
        ("a.csv", "\ufefftext,label\ngood,yes\nbad,no\n"),
        ("a.csv", "text,label\rgood,yes\rbad,no\r"),
        ("a.csv", "\n text , label\n\ngood,yes\nbad,no\n\n"),
        ("a.csv.gz", "text,label\ngood,yes\nbad,no\n"),
        ("a.tsv", "text\tlabel\ngood\tyes\nbad\tno\n"),
        ("a.TSV.GZ", "text\tlabel\ngood\tyes\nbad\tno\n"),
        ("a.jsonl", '{"text": "good", "label": "yes"}\n{"text": "bad", "label": "no"}\n'),
        ("a.ndjson", '\ufeff{"text": "good", "label": "yes"}\r\n\r\n{"text": "bad", "label": "no"}'),
        ("a.json.gz", '{"text": "good", "label": "yes"}\n{"text": "bad", "label": "no"}\n'),
    ],
)
def test_every_text_format_gives_the_same_rows(tmp_path: Path, name: str, content: str) -> None:
    file = written(tmp_path, name, content)
    table = read_table(file)
    assert table.columns == ("text", "label")
    assert contents(table) == REVIEWS
    assert table.skipped == []
    assert table.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(cells, cells), min_size=1))
def test_what_was_written_as_json_is_read_back(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    lines = [json.dumps({"a": a, "b": b}) for a, b in rows]
    assert contents(read_table(written(tmp_path, "table.jsonl", "\n".join(lines)))) == rows


def test_a_doubled_column_that_nobody_asks_for_does_no_harm(tmp_path: Path) -> None:
    file = written(tmp_path, "a.csv", "a,x,b,x\n0,1,2,3\n")
    assert read_table(file, ["a", "b"]).rows[0].cells == {"a": "0", "b": "2"}
    for wanted in (["a", "x"], None):
        with pytest.raises(DataInvalid, match="more than one column is called 'x'"):
            read_table(file, wanted)


def test_only_the_wanted_columns_are_kept(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "a.csv", ",b,,a\n0,1,2,3\n"), ["a", "b"])
    assert table.rows[0].cells == {"a": "3", "b": "1"}
    assert table.columns == ("b", "a")


@pytest.mark.parametrize(
    ("name", "content", "skipped"),
    [
        ("a.csv", b"a,b\nx\xff,1\nx,1\n", [("line 2", "is not UTF-8")]),
        ("a.csv", b'a,b\n"\n\xe9\n",1\nx,1\n', [("line 2", "is not UTF-8")]),
        ("a.csv", b"a,b\nx,1\nx\0,1\n", [("line 3", "holds a NUL byte")]),
        ("a.csv", b"a,b\nx\nx,1\n", [("line 2", "has 1 fields where the header has 2")]),
        ("a.tsv", b"a\tb\nx\t1\nx\t1\t2\n", [("line 3", "has 3 fields where the header has 2")]),
        ("a.csv", b'a,b\n"x"y,1\nx,1\n', [("line 2", "has quotes that do not match")]),
        ("a.csv", b'a,b\nx,1\n"x,1\n', [("line 3", "has quotes that do not match")]),
        ("a.jsonl", b'{"a": "\xff", "b": 1}\n{"a": "x", "b": 1}\n', [("line 1", "is not UTF-8")]),
        (
            "a.jsonl",
            b'{"a": "\\ud800", "b": 1}\n{"a": "x", "b": 1}\n',
            [("line 1", "holds half of a surrogate pair, which is no character")],
        ),
        ("a.jsonl", b'{"a": "\\u0000", "b": 1}\n{"a": "x", "b": 1}\n', [("line 1", "holds a NUL byte")]),
        ("a.jsonl", b'{"a": "x", "b": 1}\n\n{"a": \n', [("line 3", "is not JSON")]),
        ("a.jsonl", b'{"a": "x", "b": 1}\n' + b'{"a":' * 100_000, [("line 2", "is not JSON")]),
        ("a.jsonl", b'{"a": "x", "b": 1}\n{"a": ' + b"1" * 5000 + b"}", [("line 2", "is not JSON")]),
        ("a.jsonl", b'{"a": "x", "b": 1}\n7\n', [("line 2", "is not a JSON object")]),
        (
            "a.json",
            b'[\n{"a": "y", "b": 2},\n{"a": "x", "b": 1}\n]\n',
            [
                ("line 1", "is a list, or begins one; an object a line is wanted"),
                ("line 2", "is not JSON"),
                ("line 4", "is not JSON"),
            ],
        ),
        (
            "a.jsonl",
            b'{"a": ["x"], "b": 1}\n{"a": "x", "b": 1}\n',
            [("line 1", "holds a list where 'a' should be a text")],
        ),
    ],
)
def test_a_row_that_cannot_be_read_is_skipped_and_told(
    tmp_path: Path, name: str, content: bytes, skipped: list[tuple[str, str]]
) -> None:
    table = read_table(written(tmp_path, name, content))
    assert table.skipped == [Skipped(*expected) for expected in skipped]
    assert contents(table) == [("x", "1")]


def test_values_that_are_no_text_are_spelled_out(tmp_path: Path) -> None:
    lines = '{"a": 1, "b": true}\n{"a": 0.5, "b": false}\n{"a": null}\n{"a": NaN, "b": "", "c": ""}\n'
    table = read_table(written(tmp_path, "a.jsonl", lines), ["a", "b"])
    assert contents(table) == [("1", "true"), ("0.5", "false"), ("", ""), ("", "")]
    assert table.columns == ("a", "b", "c")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"\n\r\n\n", "is empty"),
        ("a.csv", b"\xef\xbb\xbf", "is empty"),
        ("a.csv.gz", b"", "is empty"),
        ("a.jsonl", b"\n", "is empty"),
        ("a.csv", b"a,b\n", "has a header but no rows"),
        ("a.csv", b" ,\nx,1\n", "has no header"),
        ("a.csv", b"a,b,a\nx,1,2\n", "more than one column is called 'a'"),
        ("a.csv", b"a,a \nx,1\n", "more than one column is called 'a'"),
        ("a.csv", b"\xe9,b\nx,1\n", "its header is not UTF-8"),
        ("a.csv", "a,b\nx,1\n".encode("utf-16"), "its header is not UTF-8|its header holds a NUL"),
        ("a.csv", "a,b\nx,1\n".encode("utf-16-le"), "its header holds a NUL byte; save the file as UTF-8"),
        ("a.csv", b'"a"b,c\nx,1\n', "its header cannot be read"),
        ("a.csv", b"a,b\nx\ny\n", r"no row that can be read; 2 skipped: has 1 fields .* \(line 2, line 3\)"),
        (
            "a.json",
            b'[\n{"a": 1}\n]',
            r"has no column 'b'; its columns are 'a'; 1 skipped: is a list, .*; 1 skipped: is not JSON",
        ),
        (
            "a.json",
            b'[{"a": 1, "b": 2}]',
            "no row that can be read; 1 skipped: is a list, or begins one; an object a line is wanted",
        ),
        ("a.csv", b"a,b\n\xe9,1\n", r"no row that can be read; .*is not UTF-8 \(line 2\); save the file as UTF-8"),
        ("a.txt", b"a,b\nx,1\n", r"unknown ending; known are \.csv, \.tsv, "),
        ("a", b"a,b\nx,1\n", "unknown ending"),
        ("a.gz", b"a,b\nx,1\n", "unknown ending"),
        ("a.parquet.gz", b"", "unknown ending"),
        ("a.parquet", b"", "not a whole Parquet file"),
        ("a.parquet", b"PAR1 cut short", "not a whole Parquet file"),
    ],
)
def test_a_file_that_is_no_table_stops_with_the_reason(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    with pytest.raises(DataInvalid, match=reason) as stopped:
        read_table(written(tmp_path, name, content), ["a", "b"])
    assert str(tmp_path / name) in str(stopped.value)
    assert "\n" not in str(stopped.value)


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(b"a,b\nx,1\n")[:-4], b"\x1f\x8b\x08" + b"\0" * 40])
def test_a_damaged_archive_stops(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.csv.gz"
    file.write_bytes(content)
    with pytest.raises(DataInvalid, match="cannot be decompressed"):
        read_table(file)


def test_a_file_that_is_not_there_stops(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable, match=r"nowhere\.csv cannot be read: No such file"):
        read_table(tmp_path / "nowhere.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataUnavailable, match="Is a directory"):
        read_table(tmp_path / "folder.csv")


@pytest.mark.parametrize(
    ("name", "content"), [("a.csv", "text,label\nx,1\n"), ("a.jsonl", '{"text": 1, "label": 1}')]
)
def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path, name: str, content: str) -> None:
    file = written(tmp_path, name, content)
    with pytest.raises(
        DataInvalid, match=r"no column 'txet'; its columns are 'text', 'label'; did you mean 'text'\?"
    ):
        read_table(file, ["txet"])
    with pytest.raises(DataInvalid, match=r"no column 'zzz'; its columns are 'text', 'label'$"):
        read_table(file, ["zzz"])


def test_a_first_row_in_place_of_a_header_is_told_in_short(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match=r"its columns are 'ssssssss+\.\.\.', '1'$") as stopped:
        read_table(written(tmp_path, "a.csv", f"{'s' * 5000},1\nx,2\n"), ["text"])
    assert len(str(stopped.value)) < 300


def parquet(file: Path, columns: dict[str, Sequence[object]], types: dict[str, str] | None = None) -> Path:
    arrow = pytest.importorskip("pyarrow")
    arrays = [arrow.array(values, type=(types or {}).get(name)) for name, values in columns.items()]
    importlib.import_module("pyarrow.parquet").write_table(arrow.table(arrays, names=list(columns)), file)
    return file


def test_parquet_gives_the_same_rows_and_numbers_them(tmp_path: Path) -> None:
    nested: Sequence[object] = ["yes", "no"]
    file = parquet(tmp_path / "a.parquet", {"text": ["good", "bad"], "label": nested, "tags": [["x"], []]})
    table = read_table(file, ["text", "label"])
    assert contents(table) == REVIEWS
    assert places(table) == ["row 1", "row 2"]
    assert table.columns == ("text", "label", "tags")
    assert table.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_parquet_values_are_spelled_as_in_the_other_formats(tmp_path: Path) -> None:
    columns: dict[str, Sequence[object]] = {"a": [1, None], "b": [True, None], "c": [0.5, float("nan")]}
    assert contents(read_table(parquet(tmp_path / "a.parquet", columns))) == [("1", "true", "0.5"), ("", "", "")]
    whole: dict[str, Sequence[object]] = {"a": [1.0, -0.0], "b": [None, 2.0], "c": [1e300, float("inf")]}
    first, second = contents(read_table(parquet(tmp_path / "b.parquet", whole)))
    assert (first[:2], second) == (("1", ""), ("0", "2", "inf"))


def test_parquet_times_finer_than_pythons_are_spelled_out(tmp_path: Path) -> None:
    file = parquet(tmp_path / "a.parquet", {"a": [1]}, {"a": "timestamp[ns]"})
    [(said,)] = contents(read_table(file))
    assert said.startswith("1970-01-01 00:00:00.000000001")


def test_parquet_rows_that_cannot_be_read_are_skipped(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    raw = arrow.array([b"x", b"\xff", b"y\0", b"z"])
    broken = arrow.Array.from_buffers(arrow.string(), len(raw), raw.buffers())
    structs = arrow.array(["1", "1", "1", "1"])
    file = tmp_path / "a.parquet"
    importlib.import_module("pyarrow.parquet").write_table(arrow.table([broken, structs], names=["a", "b"]), file)
    table = read_table(file)
    assert contents(table) == [("x", "1"), ("z", "1")]
    assert table.skipped == [Skipped("row 2", "is not UTF-8"), Skipped("row 3", "holds a NUL byte")]


@pytest.mark.parametrize("value", [["x"], {"x": "y"}, b"x"])
def test_parquet_values_that_are_no_text_are_skipped(tmp_path: Path, value: object) -> None:
    file = parquet(tmp_path / "a.parquet", {"a": [value, None], "b": ["1", "2"]})
    table = read_table(file)
    assert contents(table) == [("", "2")]
    assert table.skipped == [Skipped("row 1", f"holds a {type(value).__name__} where 'a' should be a text")]


def test_parquet_with_wrong_columns_stops(tmp_path: Path) -> None:
    file = parquet(tmp_path / "a.parquet", {"text": ["x"], "label": ["1"]})
    with pytest.raises(DataInvalid, match="did you mean 'label'"):
        read_table(file, ["labels"])
    with pytest.raises(DataInvalid, match="has a header but no rows"):
        read_table(parquet(tmp_path / "b.parquet", {"text": []}, {"text": "string"}))


def test_a_parquet_file_cut_in_its_middle_stops(tmp_path: Path) -> None:
    file = parquet(tmp_path / "a.parquet", {"a": [str(number) for number in range(1000)]})
    content = bytearray(file.read_bytes())
    content[4:40] = b"\xff" * 36
    file.write_bytes(content)
    with pytest.raises(DataInvalid, match="not a whole Parquet file"):
        read_table(file)


def test_without_pyarrow_parquet_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ModuleType:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr("training.datasets.table_formats.import_module", missing)
    with pytest.raises(DataUnavailable, match=r"a\.parquet: reading Parquet needs pyarrow: pip install pyarrow"):
        read_table(written(tmp_path, "a.parquet", b""))
