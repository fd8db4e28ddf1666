"""The private key that signs bundles: Ed25519, in PEM (PKCS8)."""

import os
from pathlib import Path
from typing import Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from models.errors import KeyFileInvalid
from models.public_keys import PublicKeys, read_key_file

SIGNING_KEY_VARIABLE = "LANTERN_SIGNING_KEY_FILE"
PUBLIC_SUFFIX = ".pub"
OF_OTHERS = 0o077
HINT = "python -m training keygen writes one"


def default_signing_key() -> Path | None:
    """The file of the key that signs, unless another is named: LANTERN_SIGNING_KEY_FILE, if that is set."""
    file = os.environ.get(SIGNING_KEY_VARIABLE)
    return Path(file) if file else None


def public_file(file: Path) -> Path:
    """Where the public key is written that belongs to the private one of a file."""
    return file.with_name(file.name + PUBLIC_SUFFIX)


def signing_key_of(file: Path | None) -> "SigningKey | None":
    """Read the key that signs, if one is named.

    Raises:
        KeyFileInvalid: As `SigningKey.read`.
    """
    return None if file is None else SigningKey.read(file)


class SigningKey:
    """A private key, read or freshly made.

    Args:
        key: As the library has it.
    """

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def make(cls) -> Self:
        """Make a new one."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read one from its file, which must be kept from others, as ssh wants it of its keys.

        Raises:
            KeyFileInvalid: It cannot be read, others may read it, or it is no such key.
        """
        content = read_key_file(file)
        if b"PUBLIC KEY-----" in content:
            raise KeyFileInvalid(
                f"{file} is a public key; the private one signs: the file without {PUBLIC_SUFFIX}"
            )
        _check_kept(file)
        try:
            key = load_pem_private_key(content, password=None)
        except TypeError:
            raise KeyFileInvalid(
                f"{file} is encrypted, and nobody is asked for its password; openssl pkey writes it without one"
            ) from None
        except (ValueError, UnsupportedAlgorithm):
            raise KeyFileInvalid(f"{file} is no private key in PEM (PKCS8); {HINT}") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyFileInvalid(f"{file} is a key of another kind than Ed25519; {HINT}")
        return cls(key)

    def write(self, file: Path) -> None:
        """Write it for its owner only, and its public key beside it, in FILE.pub; over neither if it is there.

        Raises:
            KeyFileInvalid: One of them is there, or cannot be written; then neither is.
        """
        public = public_file(file)
        for each in (file, public):
            if os.path.lexists(each):
                raise KeyFileInvalid(f"{each} is there already, and is not written over; name another file")
        private_pem = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _write_new(file, private_pem, 0o600)
        try:
            _write_new(public, self.public.to_pem(), 0o644)
        except KeyFileInvalid:
            file.unlink()
            raise

    @property
    def public(self) -> PublicKeys:
        """The key that tells what this one signed."""
        return PublicKeys((self._key.public_key(),))

    def sign(self, content: bytes) -> bytes:
        """Return the signature of these bytes."""
        return self._key.sign(content)


def _check_kept(file: Path) -> None:
    try:
        status = file.stat()
    except OSError as error:
        raise KeyFileInvalid(f"{file} cannot be read: {error.strerror}") from None
    # Somebody else's file, as an orchestrator mounts secrets, is not this one's to keep.
    if status.st_uid == os.geteuid() and status.st_mode & OF_OTHERS:
        raise KeyFileInvalid(f"{file} may be read or written by others than its owner: chmod 600 {file}")


def _write_new(file: Path, content: bytes, mode: int) -> None:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(descriptor)
        except OSError:
            file.unlink()  # Its beginning is no key, and would be in the way of the next try.
            raise
    except OSError as error:
        raise KeyFileInvalid(f"{file} cannot be written: {error.strerror}") from None
