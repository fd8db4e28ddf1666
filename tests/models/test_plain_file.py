import os
from collections.abc import Callable
from pathlib import Path

import pytest

from models.candidate import CANDIDATE_NAME
from models.errors import CandidateInvalid, CurrentInvalid
from models.plain_file import MOST_BYTES, open_mark, read_plain
from models.repository import Repository


def grown(file: Path) -> None:
    # Larger than any memory, and none of it on the disk.
    with file.open("wb") as stream:
        stream.truncate(2**36)


HARMS: list[Callable[[Path], None]] = [
    os.mkfifo,
    lambda file: file.symlink_to("/dev/zero"),
    grown,
    Path.mkdir,
]


@pytest.mark.parametrize("harm", HARMS)
def test_what_is_no_small_plain_file_is_refused_at_once(shades: Repository, harm: Callable[[Path], None]) -> None:
    current, candidate, defaults = (
        shades.root / name for name in ("shades/CURRENT", f"shades/{CANDIDATE_NAME}", "defaults.json")
    )
    current.unlink()
    for file in (current, candidate, defaults):
        harm(file)
    with pytest.raises(CurrentInvalid, match="shades/CURRENT cannot be read"):
        shades.current("shades")
    with pytest.raises(CandidateInvalid, match=f"shades/{CANDIDATE_NAME} cannot be read"):
        shades.candidate("shades")
    with pytest.raises(CurrentInvalid, match=r"defaults\.json"):
        shades.defaults()


@pytest.mark.parametrize("harm", HARMS)
def test_nothing_stays_open_of_what_is_refused(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    harm(tmp_path / "file")
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        with pytest.raises(OSError, match=r"plain file|over"):
            read_plain(tmp_path / "file")
    assert len(list(Path("/proc/self/fd").iterdir())) < open_before + 10


def test_a_file_is_read_up_to_the_limit(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(MOST_BYTES))
    assert read_plain(file) == bytes(MOST_BYTES)
    file.write_bytes(bytes(MOST_BYTES + 1))
    with pytest.raises(OSError, match=str(MOST_BYTES)):
        read_plain(file)


def test_a_mark_is_made_and_no_link_followed(tmp_path: Path) -> None:
    for _ in range(2):
        os.close(open_mark(tmp_path / "mark"))
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        open_mark(tmp_path / "link")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "mark"]
