"""The version that a name stands for, as its CURRENT says."""

from dataclasses import dataclass
from typing import Self

from pydantic import TypeAdapter, ValidationError

from models.errors import CurrentInvalid
from models.part import Sha256
from models.versions import VersionName

CURRENT_NAME = "CURRENT"

_words = TypeAdapter(tuple[VersionName, Sha256])


@dataclass(frozen=True)
class Current:
    """What a model's CURRENT says: "<version> <sha256 of its manifest>"."""

    version: str
    manifest_sha256: str

    def to_text(self) -> bytes:
        """What `parse` reads."""
        return f"{self.version} {self.manifest_sha256}\n".encode()

    @classmethod
    def parse(cls, name: str, text: bytes) -> Self:
        """Read a model's file.

        Raises:
            CurrentInvalid: It is not what a publisher writes.
        """
        try:
            return cls(*_words.validate_python(tuple(text.decode().split())))
        except UnicodeDecodeError as error:
            raise CurrentInvalid(f"{name}/{CURRENT_NAME} cannot be read: {error}") from error
        except ValidationError as error:
            raise CurrentInvalid(f"{name}/{CURRENT_NAME} is not a version and a sha256") from error
