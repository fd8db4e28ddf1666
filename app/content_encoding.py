"""Bodies that come compressed, unpacked piece by piece: a few kilobytes may hold gigabytes."""

import zlib
from collections.abc import Iterator

from app.errors import InvalidRequest, UnsupportedMediaType

PIECE_BYTES = 65_536
# Each costs its own start, and may hold nothing: limits of size do not see it. BGZF has one for 64 KiB.
MOST_GZIP_FILES = 10_000
# As zlib names what stands around the compressed bytes.
_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


def inflater(content_encoding: str) -> "Inflater | None":
    """Return what unpacks a body; None if it is not packed.

    Args:
        content_encoding: The header.

    Raises:
        UnsupportedMediaType: It is none of those taken.
    """
    encoding = content_encoding.strip().lower()
    if encoding in ("", "identity"):
        return None
    if encoding not in _WINDOW_BITS:
        raise UnsupportedMediaType(f"content encoding {encoding[:40]!r} is not taken; send gzip, deflate or none")
    return Inflater(encoding)


class Inflater:
    """Unpacks a body.

    Args:
        encoding: `gzip`, `x-gzip` or `deflate`.
    """

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._begun = 0
        self._begin()

    def unpack(self, packed: bytes) -> Iterator[bytes]:
        """Take the whole body; give what is unpacked of it, in small pieces.

        Raises:
            InvalidRequest: It is not what its encoding says, or ends before that does.
        """
        # What is left of each piece is copied once for each of what it unpacks to.
        for start in range(0, len(packed), PIECE_BYTES):
            yield from self._feed(packed[start : start + PIECE_BYTES])
        if not self._unpacking.eof:
            raise InvalidRequest(f"body: ends before its {self._encoding} data does")

    def _feed(self, data: bytes) -> Iterator[bytes]:
        more = bool(data)
        while more:
            if self._unpacking.eof:
                # gzip files may stand one behind the other (RFC 1952, section 2.2).
                self._begin()
            try:
                piece = self._unpacking.decompress(data, PIECE_BYTES)
            except zlib.error as error:
                raise InvalidRequest(
                    f"body: is not {self._encoding}, as its Content-Encoding says: {error}"
                ) from None
            data = self._unpacking.unused_data or self._unpacking.unconsumed_tail
            # A whole piece may leave more behind even where nothing is left to be read.
            more = bool(data) or (len(piece) == PIECE_BYTES and not self._unpacking.eof)
            yield piece

    def _begin(self) -> None:
        self._begun += 1
        if self._begun > MOST_GZIP_FILES:
            raise InvalidRequest(f"body: is over {MOST_GZIP_FILES} {self._encoding} files in a row; send one")
        self._unpacking = zlib.decompressobj(_WINDOW_BITS[self._encoding])
