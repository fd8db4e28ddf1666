"""What may become of a file."""

import os
from pathlib import Path


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def replace_with_link(file: Path) -> None:
    target = file.parent.parent / "elsewhere"
    file.rename(target)
    file.symlink_to(target)


def replace_with_directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def replace_with_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)
