"""The signature of a bundle: Ed25519 over the very bytes of manifest.json, which lists every other file's sha256.

`manifest.sig` is its 64 bytes, and the only file beside the manifest that this does not list. Anyone verifies it:
openssl pkeyutl -verify -pubin -inkey KEY.pub -rawin -in manifest.json -sigfile manifest.sig
"""

import stat
from pathlib import Path

from models.errors import PathEscapes, SignatureInvalid, SignatureMissing
from models.public_keys import PublicKeys

SIGNATURE_NAME = "manifest.sig"
SIGNATURE_BYTES = 64


def check_signature(directory: Path, manifest: bytes, trusted: PublicKeys) -> None:
    """See that a trusted key signed a manifest.

    Args:
        directory: The version directory, which holds the signature.
        manifest: The bytes of its manifest.json.
        trusted: The keys.

    Raises:
        SignatureMissing: There is none.
        SignatureInvalid: None of the keys made it, or it is of other bytes.
        PathEscapes: It is a link.
    """
    if not trusted.verify(_read(directory), manifest):
        raise SignatureInvalid(
            f"{directory.name}/{SIGNATURE_NAME} is no trusted key's signature of its manifest: "
            "python -m training sign signs it anew, if you know where the version comes from"
        )


def _read(directory: Path) -> bytes:
    file, name = directory / SIGNATURE_NAME, f"{directory.name}/{SIGNATURE_NAME}"
    try:
        status = file.lstat()
        if stat.S_ISLNK(status.st_mode):
            raise PathEscapes(f"{name} is a link")
        if not stat.S_ISREG(status.st_mode) or status.st_size != SIGNATURE_BYTES:
            raise SignatureInvalid(f"{name} is no file of {SIGNATURE_BYTES} bytes, as a signature is")
        with file.open("rb") as stream:
            return stream.read(SIGNATURE_BYTES)
    except FileNotFoundError:
        raise SignatureMissing(
            f"{name} is not there, and only signed versions are trusted: "
            "python -m training sign signs what is published"
        ) from None
    except OSError as error:
        raise SignatureInvalid(f"{name} cannot be read: {error.strerror}") from error
