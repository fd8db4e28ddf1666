"""A bundle in the making, in a directory of its own until it is renamed into place."""

import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from models.candidate import CANDIDATE_NAME
from models.current import CURRENT_NAME
from models.manifest import MANIFEST_NAME, Manifest
from models.signature import SIGNATURE_NAME
from models.signing_key import SigningKey
from models.whole_file import sync


@dataclass(frozen=True)
class Staging:
    """A directory to fill, and the version that it will be."""

    directory: Path
    version: str

    @classmethod
    def make(cls, model_directory: Path, version: str) -> Self:
        """Make an empty one among a model's versions."""
        staging = cls(model_directory / f".staging-{uuid.uuid4().hex}", version)
        staging.directory.mkdir()
        return staging

    def write_manifest(self, manifest: Manifest, key: SigningKey | None = None) -> None:
        """Put manifest.json into the bundle: last of its files, since it lists the others.

        Args:
            manifest: What it is to say.
            key: Signs it; None: the bundle is not signed.
        """
        text = manifest.to_json()
        (self.directory / MANIFEST_NAME).write_bytes(text)
        if key is not None:
            (self.directory / SIGNATURE_NAME).write_bytes(key.sign(text))

    def sync(self) -> None:
        """Have all of it written to disk."""
        for folder, _, files in os.walk(self.directory):
            for name in files:
                sync(Path(folder) / name)
            sync(Path(folder))

    def remove(self) -> None:
        """Remove what is left of it: nothing, once it was renamed into place."""
        shutil.rmtree(self.directory, ignore_errors=True)


def sweep(model_directory: Path) -> None:
    """Remove what writers left unfinished among a model's versions; call it while nobody else may write there."""
    for abandoned in model_directory.glob(".staging-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    for abandoned in (
        *(model_directory / f".{name}.tmp" for name in (CURRENT_NAME, CANDIDATE_NAME, SIGNATURE_NAME)),
        *model_directory.glob(".probe-*"),
    ):
        abandoned.unlink(missing_ok=True)
