"""Public keys in PEM: what one of them signed is trusted."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from models.errors import KeyFileInvalid

LARGEST_FILE_BYTES = 64 * 1024
COMMENT = re.compile(rb"^[ \t]*#.*$", re.MULTILINE)
BLOCK = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)
HINT = "python -m training keygen writes one that ends in .pub"


@dataclass(frozen=True)
class PublicKeys:
    """One Ed25519 key or several; several while one takes the place of another."""

    keys: tuple[Ed25519PublicKey, ...]

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read the keys of a file, one after the other; lines that begin with # are comments.

        Raises:
            KeyFileInvalid: It cannot be read, holds no key, or something that is no such key.
        """
        content = read_key_file(file)
        # Nothing of the file is quoted: it may be a private key that somebody put there.
        if b"PRIVATE KEY-----" in content:
            raise KeyFileInvalid(f"{file} holds a private key: keep that to who signs, and put the .pub file here")
        lines = COMMENT.sub(b"", content)
        if BLOCK.sub(b"", lines).strip():
            raise KeyFileInvalid(f"{file} holds something that is no public key in PEM; {HINT}")
        blocks = BLOCK.findall(lines)
        if not blocks:
            raise KeyFileInvalid(f"{file} holds no public key; {HINT}")
        return cls(tuple(_parse(file, number, block) for number, block in enumerate(blocks, start=1)))

    def verify(self, signature: bytes, content: bytes) -> bool:
        """Whether one of the keys signed these bytes."""
        return any(_verifies(key, signature, content) for key in self.keys)

    def to_pem(self) -> bytes:
        """Write the keys as `read` reads them."""
        return b"".join(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) for key in self.keys)


def read_key_file(file: Path) -> bytes:
    """Read a file that is no larger than one of keys can be.

    Raises:
        KeyFileInvalid: It cannot be read, or is larger.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise KeyFileInvalid(f"{file} cannot be read: {error.strerror}") from None
    if len(content) > LARGEST_FILE_BYTES:
        raise KeyFileInvalid(f"{file} is over {LARGEST_FILE_BYTES} bytes, and so no file of keys")
    return content


def _parse(file: Path, number: int, block: bytes) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(block)
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFileInvalid(f"{file}: key {number} is damaged; {HINT}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileInvalid(f"{file}: key {number} is not of the kind Ed25519; {HINT}")
    return key


def _verifies(key: Ed25519PublicKey, signature: bytes, content: bytes) -> bool:
    try:
        key.verify(signature, content)
    except InvalidSignature:
        return False
    return True
