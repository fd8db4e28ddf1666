"""A version that is to prove itself: which, and how much of its model's traffic it answers."""

import hashlib
from typing import Annotated, Self

from pydantic import Field, ValidationError

from models.errors import CandidateInvalid
from models.part import Part, Sha256
from models.versions import VersionName

CANDIDATE_NAME = "CANDIDATE"


class Candidate(Part):
    """What a model's CANDIDATE says, as JSON.

    Attributes:
        share: Of the requests that name no version.
    """

    version: VersionName
    manifest_sha256: Sha256
    share: Annotated[float, Field(ge=0, le=1)]

    def answers(self, name: str, key: str) -> bool:
        """Whether it answers the requests of a key: always the same way, and still so with a larger share.

        Args:
            name: The model's.
            key: Whatever stays the same for those that are to be answered alike.
        """
        digest = hashlib.blake2b(f"{name}/{self.version}/{key}".encode(), digest_size=8).digest()
        return int.from_bytes(digest) < self.share * 2**64

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
