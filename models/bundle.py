"""A bundle: one immutable version directory, verified to the byte before any parser sees it."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from models.errors import FileCorrupt, FileMissing, FileUnexpected, ManifestInvalid, PathEscapes
from models.manifest import MANIFEST_NAME, FileEntry, Manifest

LARGEST_MANIFEST_BYTES = 16 * 1024**2


@dataclass(frozen=True)
class Bundle:
    """A version directory whose every file was seen to be the one its manifest lists."""

    directory: Path
    manifest: Manifest
    manifest_sha256: str

    @classmethod
    def open(cls, directory: Path, manifest_sha256: str | None = None) -> Self:
        """Verify the directory and return it as a bundle; nothing in it is parsed but the manifest.

        Args:
            directory: The version directory.
            manifest_sha256: What the manifest's own sha256 must be, where the caller knows it.

        Raises:
            BundleError: One of its kinds, naming the file that is off.
        """
        text = _read_manifest(directory)
        actual_sha256 = hashlib.sha256(text).hexdigest()
        if manifest_sha256 not in (None, actual_sha256):
            raise ManifestInvalid(f"{directory.name}/{MANIFEST_NAME} is not the one that was published")
        bundle = cls(directory, Manifest.parse(text), actual_sha256)
        bundle._verify()
        return bundle

    def read(self, path: str) -> bytes:
        """Return a listed file's bytes: those very bytes were hashed, so nothing can slip in between.

        Raises:
            FileMissing: The file is not listed, or has gone.
            FileCorrupt: Its bytes are not the listed ones.
        """
        entry = self.manifest.files.get(path)
        if entry is None:
            raise FileMissing(f"{path} is not in the manifest of {self.directory.name}")
        try:
            content = (self.directory / path).read_bytes()
        except OSError as error:
            raise FileMissing(f"{self.directory.name}/{path}: {error.strerror}") from error
        self._compare(path, entry, FileEntry(sha256=hashlib.sha256(content).hexdigest(), size=len(content)))
        return content

    def _verify(self) -> None:
        present = set(plain_files(self.directory)) - {MANIFEST_NAME}
        listed = self.manifest.files
        if missing := sorted(set(listed) - present):
            raise FileMissing(f"{self.directory.name}/{missing[0]} is listed but not there")
        if unexpected := sorted(present - set(listed)):
            raise FileUnexpected(f"{self.directory.name}/{unexpected[0]} is there but not listed")
        for path, entry in listed.items():
            # The size is compared first, so that a file grown to any length is never read.
            if (self.directory / path).stat().st_size != entry.size:
                raise FileCorrupt(f"{self.directory.name}/{path} has not the size that the manifest lists")
            self._compare(path, entry, describe(self.directory / path))

    def _compare(self, path: str, listed: FileEntry, found: FileEntry) -> None:
        if found != listed:
            raise FileCorrupt(f"{self.directory.name}/{path} has not the content that the manifest lists")


def describe(file: Path) -> FileEntry:
    """Measure a file: its sha256 and its size in bytes."""
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
        return FileEntry(sha256=digest.hexdigest(), size=stream.tell())


def describe_all(directory: Path) -> dict[str, FileEntry]:
    """Measure every file of a bundle in the making, but the manifest."""
    return {path: describe(directory / path) for path in sorted(plain_files(directory)) if path != MANIFEST_NAME}


def plain_files(directory: Path) -> Iterator[str]:
    """Yield the relative path of every file below `directory`.

    Raises:
        PathEscapes: Something there is neither a plain file nor a plain directory.
    """
    for folder, folders, files in os.walk(directory):
        here = Path(folder)
        for name in folders + files:
            path = here / name
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise PathEscapes(f"{path.relative_to(directory.parent)} is a link or a special file")
        yield from ((here / name).relative_to(directory).as_posix() for name in files)


def _read_manifest(directory: Path) -> bytes:
    path = directory / MANIFEST_NAME
    name = f"{directory.name}/{MANIFEST_NAME}"
    if path.is_symlink():
        raise PathEscapes(f"{name} is a link")
    try:
        if not path.is_file() or path.stat().st_size > LARGEST_MANIFEST_BYTES:
            raise ManifestInvalid(f"{name} is missing, no plain file, or over {LARGEST_MANIFEST_BYTES} bytes")
        return path.read_bytes()
    except OSError as error:
        raise ManifestInvalid(f"{name}: {error.strerror}") from error
