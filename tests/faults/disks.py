"""Disks that are full, or cannot be written, for a service and for nobody else."""

import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.servers import ROOT

DISK_BYTES = 1024**2
CAP_DAC_OVERRIDE = 1  # <linux/capability.h>
# With every right over what is mounted there, and no more than before over anything else.
NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
SMALL = f'mount -t tmpfs -o size={DISK_BYTES} none "$0"'
# Bound to itself, and only that is read-only: others write to the directory as before. What may be forbidden there
# already must stay so.
READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,bind,ro,nosuid,nodev,noexec "$0"'


@dataclass(frozen=True)
class Mount:
    """A file system that is mounted for some processes only.

    Attributes:
        directory: Where they find it.
        through: What starts one of them.
        pid: Of one of them.
    """

    directory: Path
    through: tuple[str, ...]
    pid: int

    @property
    def seen(self) -> Path:
        """Where others find it."""
        return Path(f"/proc/{self.pid}/root{self.directory}")

    def fill(self, _pid: int, but_bytes: int = 0) -> None:
        """Leave room for so many bytes and what they want to a whole page, whoever writes."""
        with self._filler.open("ab", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(DISK_BYTES))
            except OSError:
                filler.truncate(filler.tell() - but_bytes)

    def free(self, _pid: int) -> None:
        """Make room."""
        self._filler.unlink()

    @property
    def _filler(self) -> Path:
        return self.seen / ".filler"


@contextmanager
def small_disk(directory: Path) -> Iterator[Mount]:
    """A file system of `DISK_BYTES` in an empty directory; skips where this machine lends none."""
    with _mounted(directory, SMALL) as mount:
        yield mount


@contextmanager
def read_only_mount(directory: Path) -> Iterator[Mount]:
    """A directory that some processes find read-only; skips where this machine lends none."""
    with _mounted(directory, READ_ONLY) as mount:
        yield mount


def unprivileged() -> tuple[str, ...]:
    """What starts a process for which files' modes count, though root starts it."""
    (effective,) = [
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff")
    ]
    if int(effective.split()[1], 16) & 1 << CAP_DAC_OVERRIDE:
        return ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
    return ()


class FileLimit:
    """What any machine has in the place of a small disk: a process writes no file beyond a limit.

    Attributes:
        directory, seen: Where to write, for processes and for the test.
        through: Nothing.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = self.seen = directory
        self.through: tuple[str, ...] = ()
        directory.mkdir()

    def fill(self, pid: int, but_bytes: int = 0) -> None:
        """Let a process write no more than so many bytes into a file."""
        self._limit(pid, but_bytes)

    def free(self, pid: int) -> None:
        """Let it write as much as it will."""
        self._limit(pid, None)

    def _limit(self, pid: int, most_bytes: int | None) -> None:
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard if most_bytes is None else most_bytes, hard))


@contextmanager
def _mounted(directory: Path, mount: str) -> Iterator[Mount]:
    if reason := _missing():
        pytest.skip(f"no file system can be mounted for some processes only: {reason}")
    directory.mkdir(exist_ok=True)
    # It stays until its input ends, and so does the file system.
    command = [*NAMESPACE, "sh", "-c", f"{mount} && echo mounted && exec cat", str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        if holder.stdout.readline() != "mounted\n":
            pytest.skip(f"the system does not let this be mounted: {mount}")
        enter = ("nsenter", f"--target={holder.pid}", "--user", "--mount", "--preserve-credentials")
        # Who enters begins at the root of all directories.
        yield Mount(directory, (*enter, "env", f"--chdir={ROOT}"), holder.pid)
        holder.communicate()


@cache
def _missing() -> str:
    """What stands in the way of mounting; empty if nothing does."""
    try:
        tried = subprocess.run(
            [*NAMESPACE, "sh", "-c", SMALL, str(ROOT)], capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        return str(error)
    return tried.stderr.strip() if tried.returncode else ""
