import gzip
from pathlib import Path

from hypothesis import strategies as st

from training.datasets.tables import Table

# What a cell may hold: all but NUL and half surrogate pairs, which are no text.
cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


def written(tmp_path: Path, name: str, content: str | bytes) -> Path:
    file = tmp_path / name
    data = content.encode() if isinstance(content, str) else content
    file.write_bytes(gzip.compress(data) if name.lower().endswith(".gz") else data)
    return file


def contents(table: Table) -> list[tuple[str, ...]]:
    return [tuple(row.cells.values()) for row in table.rows]


def places(table: Table) -> list[str]:
    return [row.where for row in table.rows]
