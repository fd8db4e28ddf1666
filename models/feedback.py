"""Corrections of answers: a service stores them, and the next training learns from them.

One SQLite file, to which rows are only ever added. A correction that is acknowledged is on the disk: SQLite syncs
its log at each commit. Several processes may add to one file.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from models.errors import FeedbackBusy, FeedbackFull, FeedbackUnavailable
from models.repository import InputKind

# Of one process, for another that writes.
PATIENCE_S = 5.0
# The file cannot grow, or that cannot which SQLite keeps beside it to write ahead.
FULL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMOPEN, sqlite3.SQLITE_IOERR_SHMSIZE})
BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_BUSY_RECOVERY, sqlite3.SQLITE_BUSY_SNAPSHOT})
TABLE = """
CREATE TABLE IF NOT EXISTS corrections (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    received_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    request_id TEXT NOT NULL,
    client TEXT NOT NULL,
    model TEXT NOT NULL,
    answer TEXT NOT NULL,
    kind TEXT,
    content BLOB
)
"""


@dataclass(frozen=True)
class Correction:
    """What should have been answered.

    Attributes:
        request_id: Of the request that was answered wrong.
        client: Who says so; empty where nobody is known.
        model: Which answered.
        answer: The right label, or text.
        kind: Of the input, if it is there.
        content: The input: an image file, or a text in UTF-8.
    """

    request_id: str
    client: str
    model: str
    answer: str
    kind: InputKind | None = None
    content: bytes | None = None


class FeedbackStore:
    """The corrections in a file.

    Args:
        file: Where; it is made if it is not there, its directory is not.
        max_bytes: Most that it may grow to.
    """

    def __init__(self, file: Path, max_bytes: int) -> None:
        self._file = file
        self._max_bytes = max_bytes

    def trouble(self) -> str | None:
        """Say what stands in the way of storing anything, as far as can be told beforehand; None: nothing."""
        try:
            file = self._file.resolve()
            if not file.parent.is_dir():
                return f"{file.parent} is no directory"
            # SQLite writes beside it what is not in it yet.
            for place in (file.parent, file):
                if place.exists() and not os.access(place, os.W_OK):
                    return f"{place} cannot be written"
        except OSError as error:
            return f"{self._file} cannot be looked at: {error.strerror}"
        return None

    def add(self, correction: Correction, patience_s: float = PATIENCE_S) -> int:
        """Store a correction, and return its number once it is on the disk.

        Args:
            correction: What to store.
            patience_s: How long to wait for somebody else who has the file.

        Raises:
            FeedbackFull: The file may not grow, or the disk is full.
            FeedbackBusy: Somebody else has it for too long.
            FeedbackUnavailable: It cannot be written.
        """
        with _open(self._file, patience_s) as connection:
            _log_ahead(connection, patience_s)
            (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
            connection.execute(f"PRAGMA max_page_count = {max(1, self._max_bytes // page_bytes)}")
            connection.execute(TABLE)
            row = (
                correction.request_id,
                correction.client,
                correction.model,
                correction.answer,
                correction.kind,
                correction.content,
            )
            added = connection.execute(
                "INSERT INTO corrections (request_id, client, model, answer, kind, content) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                row,
            )
            assert added.lastrowid is not None, "a row was added"  # noqa: S101
            return added.lastrowid


def corrections(file: Path, model: str) -> list[Correction]:
    """Read the corrections of a model whose inputs are there, the oldest first; of one input, the last.

    Raises:
        FeedbackUnavailable: It is no such file.
    """
    if not file.is_file():
        raise FeedbackUnavailable(f"{file} is not there; a service writes it as LANTERN_FEEDBACK_FILE")
    with _open(file) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'corrections'").fetchone():
            return []  # Nobody was corrected yet.
        rows = connection.execute(
            "SELECT request_id, client, model, answer, kind, content FROM corrections "
            "WHERE model = ? AND content IS NOT NULL ORDER BY id",
            (model,),
        ).fetchall()
    found = [Correction(*row) for row in rows]
    last = {(each.kind, each.content): each for each in found}
    return [each for each in found if last[each.kind, each.content] is each]


def _log_ahead(connection: sqlite3.Connection, patience_s: float) -> None:
    """Have a file written ahead in a log; SQLite waits for nobody else who does so just now, so this does."""
    give_up_s = time.monotonic() + patience_s
    while connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up_s:
                raise
            time.sleep(0.01)


@contextmanager
def _open(file: Path, patience_s: float = PATIENCE_S) -> Iterator[sqlite3.Connection]:
    try:
        # Each statement is its own transaction.
        with closing(sqlite3.connect(file, timeout=patience_s, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            yield connection
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) in FULL:
            raise FeedbackFull(
                f"{file.name} is full, or its disk is; raise LANTERN_FEEDBACK_MAX_BYTES, or take its corrections "
                "up into your data and move it away"
            ) from None
        if getattr(error, "sqlite_errorcode", None) in BUSY:
            raise FeedbackBusy(f"{file.name} is held by somebody else; try again later") from None
        raise FeedbackUnavailable(f"{file} cannot be used: {error}") from error
