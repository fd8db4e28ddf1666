"""Debian packages as a source of data: fetched and unpacked without root, installed nowhere."""

import os
import shutil
import subprocess
from pathlib import Path

from training.errors import DataUnavailable

TIMEOUT_S = 300


def unpack(package: str, into: Path) -> None:
    """Download a package with apt and unpack it below `into`.

    Package lists are kept below `into` too: the machine's own may be absent, and are root's to refresh.

    Raises:
        DataUnavailable: There is no apt here, or it failed; with its last line.
    """
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise DataUnavailable(f"{package} needs apt-get and dpkg-deb, which this machine does not have")
    work = (into / ".apt").absolute()
    options = [
        f"-oDir::State={work / 'state'}",
        f"-oDir::Cache={work / 'cache'}",
        "-oDir::State::status=/var/lib/dpkg/status",
        # As root, apt would else hand the download to a user who cannot write here.
        "-oAPT::Sandbox::User=",
    ]
    try:
        for folder in ("state/lists/partial", "cache/archives/partial"):
            (work / folder).mkdir(parents=True, exist_ok=True)
        _run(["apt-get", *options, "-qq", "update"], work)
        _run(["apt-get", *options, "-qq", "download", package], work)
        archive = max(work.glob(f"{package}_*.deb"), key=os.path.getmtime)
        _run(["dpkg-deb", "-x", str(archive), str(work / "tree")], work)
        _move(work / "tree", into)
    except OSError as error:
        raise DataUnavailable(f"{package} cannot be unpacked into {into}: {error.strerror}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _move(tree: Path, into: Path) -> None:
    # Whole or not at all: an unpacking that was cut off must not look like the data.
    for part in tree.iterdir():
        shutil.rmtree(into / part.name, ignore_errors=True)
        part.rename(into / part.name)


def _run(command: list[str], directory: Path) -> None:
    try:
        subprocess.run(  # noqa: S603 (fixed programs, no shell)
            command, cwd=directory, check=True, capture_output=True, text=True, timeout=TIMEOUT_S
        )
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise DataUnavailable(f"{command[0]} failed: {reason}") from error
    except subprocess.TimeoutExpired as error:
        raise DataUnavailable(f"{command[0]} took more than {TIMEOUT_S} s") from error
