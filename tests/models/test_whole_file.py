from pathlib import Path

import pytest

from models.whole_file import whole_file


def test_what_was_written_takes_the_place_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "CURRENT"
    for content in (b"first", b"second"):
        with whole_file(file) as stream:
            stream.write(content)
        assert file.read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["CURRENT"]


def test_a_writer_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "CURRENT"
    file.write_bytes(b"first")
    with pytest.raises(KeyError), whole_file(file) as stream:
        stream.write(b"half of the sec")
        raise KeyError
    assert file.read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["CURRENT"]


def test_what_a_killed_writer_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / ".CURRENT.tmp").write_bytes(b"half of something long")
    with whole_file(tmp_path / "CURRENT") as stream:
        stream.write(b"x")
    assert (tmp_path / "CURRENT").read_bytes() == b"x"
    assert [path.name for path in tmp_path.iterdir()] == ["CURRENT"]


def test_a_link_that_somebody_left_is_not_written_through(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"not ours")
    (tmp_path / ".CURRENT.tmp").symlink_to(other)
    with whole_file(tmp_path / "CURRENT") as stream:
        stream.write(b"x")
    assert other.read_bytes() == b"not ours"
    assert not (tmp_path / "CURRENT").is_symlink()
