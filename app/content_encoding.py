"""Bodies that come compressed, unpacked piece by piece: a few kilobytes may hold gigabytes."""

import zlib
from collections.abc import Iterator

from app.errors import InvalidRequest, UnsupportedMediaType

PIECE_BYTES = 65_536
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
        self._begin()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take some more of the body; give what is unpacked of it, in small pieces.

        Raises:
            InvalidRequest: It is not what its encoding says.
        """
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

    def end(self) -> None:
        """Take note that this was all.

        Raises:
            InvalidRequest: There should be more.
        """
        if not self._unpacking.eof:
            raise InvalidRequest(f"body: ends before its {self._encoding} data does")

    def _begin(self) -> None:
        self._unpacking = zlib.decompressobj(_WINDOW_BITS[self._encoding])
