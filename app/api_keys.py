"""API keys: who may ask. Stored as hashes, compared in constant time, taken over from the file while serving.

A key is 256 random bits, so that SHA-256 without salt or stretching keeps it: there is nothing to guess.
"""

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

logger = logging.getLogger(__name__)

KEY_PREFIX = "lantern_"  # so that secret scanners can tell a leaked one
LINE = re.compile(r"(?P<client>[A-Za-z0-9][A-Za-z0-9._-]{0,63})\s+(?P<sha256>[0-9a-f]{64})")


class ApiKeysInvalid(Exception):
    """The file of keys cannot be used; the message says which line, and what is expected."""


class ApiKeys:
    """The keys of a file, with a line `CLIENT SHA256` for each; several lines may name one client.

    Args:
        file: Where the keys are.

    Raises:
        ApiKeysInvalid: The file cannot be read, holds no key, or has a line that is none.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._content = _read(file)
        self._client_by_digest = _parse(file, self._content)
        self._trouble = ""

    def client_of(self, key: bytes) -> str | None:
        """Return whose key it is, or None; every key is compared, so that time tells nothing."""
        digest = hashlib.sha256(key).digest()
        found = None
        for known, client in self._client_by_digest.items():
            if hmac.compare_digest(known, digest):
                found = client
        return found

    async def watch(self, interval_s: float) -> None:
        """Take over what changes, looking every `interval_s` seconds, for ever."""
        while True:
            await asyncio.sleep(interval_s)
            try:
                await asyncio.to_thread(self.reread)
            except Exception:
                # The watch must outlive whatever it meets, a system that has no more threads to give for one: else
                # a key that was taken away would stay valid for good.
                logger.exception("looking for changed API keys failed")

    def reread(self) -> None:
        """Take over a changed file; one that cannot be used changes nothing, and is logged once."""
        try:
            content = _read(self._file)
            if content == self._content and not self._trouble:
                return
            self._client_by_digest, self._content = _parse(self._file, content), content
        except ApiKeysInvalid as error:
            if str(error) != self._trouble:
                logger.error("the API keys of before are kept: %s", error)
                self._trouble = str(error)
            return
        self._trouble = ""
        logger.info("%d API keys are in force", len(self._client_by_digest))


def new_key() -> str:
    """Make a key; it is to be shown once and never stored."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def line_of(client: str, key: str) -> str:
    """The line by which a file knows a client's key.

    Raises:
        ApiKeysInvalid: The client's name cannot stand in such a line.
    """
    line = f"{client} {hashlib.sha256(key.encode()).hexdigest()}"
    if not LINE.fullmatch(line):
        raise ApiKeysInvalid(f"{client!r} is no client's name: letters, digits, '.', '_' and '-', at most 64")
    return line


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ApiKeysInvalid(f"{file} cannot be read: {error.strerror}") from None


def _parse(file: Path, content: bytes) -> Mapping[bytes, str]:
    client_by_digest = {}
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        found = LINE.fullmatch(text)
        if found is None:
            # The line is not quoted: it may be a key that someone put there in the clear.
            raise ApiKeysInvalid(
                f"{file}, line {number}: expected CLIENT SHA256; python -m app.new_key writes one"
            )
        client_by_digest[bytes.fromhex(found["sha256"])] = found["client"]
    if not client_by_digest:
        raise ApiKeysInvalid(f"{file} holds no key; python -m app.new_key writes one")
    return client_by_digest
