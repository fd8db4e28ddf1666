"""A version that is to prove itself: which, and how much of its model's traffic it answers."""

import hashlib
from typing import Annotated, Self

from pydantic import Field, ValidationError, model_validator

from models.errors import CandidateInvalid
from models.part import Part, Sha256
from models.versions import VersionName

CANDIDATE_NAME = "CANDIDATE"


class Candidate(Part):
    """What a model's CANDIDATE says, as JSON.

    Attributes:
        share: Of the requests that name no version, which it answers.
        shadow: Of those requests, which it is asked too, and others answer.
    """

    version: VersionName
    manifest_sha256: Sha256
    share: Annotated[float, Field(ge=0, le=1)]
    shadow: Annotated[float, Field(ge=0, le=1)] = 0.0

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        if self.share + self.shadow > 1:
            raise ValueError("share and shadow are over 1 together: a request is answered or only copied")
        return self

    def answers(self, name: str, key: str) -> bool:
        """Whether it answers the requests of a key: always the same way, and still so with a larger share.

        Args:
            name: The model's.
            key: Whatever stays the same for those that are to be answered alike.
        """
        return self._place(name, key) < self.share

    def shadows(self, name: str, key: str) -> bool:
        """Whether the requests of a key are copied to it; as of `answers`."""
        return self.share <= self._place(name, key) < self.share + self.shadow

    def _place(self, name: str, key: str) -> float:
        digest = hashlib.blake2b(f"{name}/{self.version}/{key}".encode(), digest_size=8).digest()
        return int.from_bytes(digest) / 2**64

    @classmethod
    def parse(cls, name: str, text: bytes) -> Self:
        """Read a model's file.

        Raises:
            CandidateInvalid: It is not what `python -m models.rollout` writes.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(str(step) for step in first["loc"]) or "its JSON"
            raise CandidateInvalid(
                f"{name}/{CANDIDATE_NAME}: {field}: {first['msg']}; "
                f"python -m models.rollout {name} --stop removes the file"
            ) from None
