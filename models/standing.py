"""What the files of a name say of its versions, and what a change made of that, so that it can be taken back."""

from dataclasses import dataclass

from models.candidate import Candidate
from models.current import Current


@dataclass(frozen=True)
class Standing:
    """Which version is current, and which is tried."""

    current: Current
    candidate: Candidate | None


@dataclass(frozen=True)
class Change:
    """A version that got another place, and what its name's files said before and after, if that was whole."""

    version: str
    before: Standing | None
    after: Standing | None
