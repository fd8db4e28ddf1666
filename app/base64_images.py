"""Image files as JSON has them: in base64, perhaps wrapped in lines, perhaps as a `data:` URL."""

import base64
import binascii

from app.errors import InvalidRequest


def sent_base64(sent: str) -> bytes:
    """Return what of a string is base64, of a `data:` URL what it holds; nothing is unpacked yet.

    Raises:
        InvalidRequest: It has letters that no base64 has.
    """
    encoded = sent.rpartition(",")[2] if sent.startswith("data:") else sent
    if not encoded.isascii():
        raise InvalidRequest("is not base64")
    return encoded.encode("ascii")


def unpacked(content: bytes) -> bytes:
    """Return the file.

    Raises:
        InvalidRequest: It is no base64.
    """
    try:
        # Encoders wrap lines; anything else that is no base64 is an error, not skipped.
        return base64.b64decode(content.translate(None, b" \t\r\n"), validate=True)
    except binascii.Error as error:
        raise InvalidRequest(f"the image is not base64: {error}") from None
