"""What a request asks about, before anything is decoded."""

from dataclasses import dataclass

from app.errors import ServingError
from models.repository import InputKind


@dataclass(frozen=True)
class Item:
    """One image or text, as it came; `base64` if its bytes are so encoded."""

    kind: InputKind
    content: bytes
    base64: bool = False


@dataclass(frozen=True)
class ParsedBody:
    """A request's items in order, an error in the place of a bad one, and what its body asks for besides."""

    items: tuple[Item | ServingError, ...]
    model: str | None = None
    top_k: int | None = None
