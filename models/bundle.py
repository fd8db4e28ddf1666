"""A bundle: one immutable version directory, verified to the byte before any parser sees it."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from models.errors import FileCorrupt, FileMissing, FileUnexpected, ManifestInvalid, PathEscapes
from models.manifest import MANIFEST_NAME, FileEntry, Manifest
from models.public_keys import PublicKeys
from models.signature import SIGNATURE_NAME, check_signature

LARGEST_MANIFEST_BYTES = 16 * 1024**2
UNLISTED = frozenset({MANIFEST_NAME, SIGNATURE_NAME})


@dataclass(frozen=True)
class Bundle:
    """A version directory whose every file was seen to be the one its manifest lists."""

    directory: Path
    manifest: Manifest
    manifest_sha256: str

    @classmethod
    def open(cls, directory: Path, manifest_sha256: str | None = None, trusted: PublicKeys | None = None) -> Self:
        """Verify the directory and return it as a bundle; nothing in it is parsed but the manifest.

        The signature comes first: of what nobody trusted made, the manifest is not parsed either.

        Args:
            directory: The version directory.
            manifest_sha256: What the manifest's own sha256 must be, where the caller knows it.
            trusted: Keys of which one must have signed it; None: a signature is not looked at.

        Raises:
            BundleError: One of its kinds, naming the file that is off.
        """
        text = read_manifest(directory)
        if trusted is not None:
            check_signature(directory, text, trusted)
        actual_sha256 = hashlib.sha256(text).hexdigest()
        if manifest_sha256 not in (None, actual_sha256):
            raise ManifestInvalid(f"{directory.name}/{MANIFEST_NAME} is not the one that was published")
        bundle = cls(directory, Manifest.parse(text), actual_sha256)
        bundle._verify()
        return bundle

    def read(self, path: str) -> bytes:
        """Return a listed file's bytes: those very bytes were hashed, so nothing can slip in between.

        Raises:
            FileMissing: The file is not listed, has gone, or cannot be read.
            FileCorrupt: Its bytes are not the listed ones.
        """
        entry = self.manifest.files.get(path)
        if entry is None:
            raise FileMissing(f"{path} is not in the manifest of {self.directory.name}")
        try:
            content = (self.directory / path).read_bytes()
        except OSError as error:
            raise _unreadable(f"{self.directory.name}/{path}", error) from error
        self._compare(path, entry, FileEntry(sha256=hashlib.sha256(content).hexdigest(), size=len(content)))
        return content

    def _verify(self) -> None:
        present = set(plain_files(self.directory)) - UNLISTED
        listed = self.manifest.files
        if missing := sorted(set(listed) - present):
            raise FileMissing(f"{self.directory.name}/{missing[0]} is listed but not there")
        if unexpected := sorted(present - set(listed)):
            raise FileUnexpected(f"{self.directory.name}/{unexpected[0]} is there but not listed")
        for path, entry in listed.items():
            self._compare(path, entry, self._measure(path, entry.size))

    def _measure(self, path: str, listed_bytes: int) -> FileEntry:
        file, name = self.directory / path, f"{self.directory.name}/{path}"
        try:
            # The size is compared first, so that a file grown to any length is never read.
            if file.stat().st_size != listed_bytes:
                raise FileCorrupt(f"{name} has not the size that the manifest lists")
            return describe(file)
        except OSError as error:
            raise _unreadable(name, error) from error

    def _compare(self, path: str, listed: FileEntry, found: FileEntry) -> None:
        if found != listed:
            raise FileCorrupt(f"{self.directory.name}/{path} has not the content that the manifest lists")


def describe(file: Path) -> FileEntry:
    """Measure a file: its sha256 and its size in bytes."""
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
        return FileEntry(sha256=digest.hexdigest(), size=stream.tell())


def describe_all(directory: Path) -> dict[str, FileEntry]:
    """Measure every file of a bundle in the making, but the manifest and its signature."""
    return {path: describe(directory / path) for path in sorted(set(plain_files(directory)) - UNLISTED)}


def plain_files(directory: Path) -> Iterator[str]:
    """Yield the relative path of every file below `directory`.

    Raises:
        PathEscapes: Something there is neither a plain file nor a plain directory.
        FileMissing: Something there may not be looked at.
    """
    for folder, folders, files in os.walk(directory):
        here = Path(folder)
        for name in folders + files:
            _check_plain(here / name, (here / name).relative_to(directory.parent))
        yield from ((here / name).relative_to(directory).as_posix() for name in files)


def _check_plain(path: Path, name: Path) -> None:
    try:
        is_plain = not path.is_symlink() and (path.is_file() or path.is_dir())
    except OSError as error:
        raise _unreadable(name, error) from error
    if not is_plain:
        raise PathEscapes(f"{name} is a link or a special file")


def _unreadable(name: str | Path, error: OSError) -> FileMissing:
    return FileMissing(f"{name} cannot be read: {error.strerror}")


def read_manifest(directory: Path) -> bytes:
    """Read the bytes of a version's manifest, which nothing has verified yet.

    Raises:
        ManifestInvalid: It cannot be read, is no plain file, or too large.
        PathEscapes: It is a link.
    """
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
