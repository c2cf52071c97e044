"""Secrets at rest: AES-256-GCM over the columns of a job that may hold one.

seal(text) -> `enc:` + base64(nonce + ciphertext) -> open(sealed) -> text
The key is the SHA-256 of [jobs] encryption_key, or 32 random bytes in <data directory>/secrets/jobs.key.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from functools import cached_property
from typing import TYPE_CHECKING

from arc.errors import ArcError, ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PREFIX = "enc:"
KEY_BYTES = 32
NONCE_BYTES = 12


class WrongKey(ArcError):
    def __init__(self) -> None:
        super().__init__("sealed with another key: [jobs] encryption_key or secrets/jobs.key has changed")


class Sealer:
    """Any thread may call it."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def seal(self, text: str) -> str:
        nonce = secrets.token_bytes(NONCE_BYTES)
        return PREFIX + base64.b64encode(nonce + self._cipher.encrypt(nonce, text.encode(), None)).decode()

    def open(self, sealed: str) -> str:
        """Raises WrongKey."""
        from cryptography.exceptions import InvalidTag

        data = base64.b64decode(sealed.removeprefix(PREFIX))
        try:
            return self._cipher.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], None).decode()
        except InvalidTag:
            raise WrongKey from None

    @cached_property
    def _cipher(self) -> AESGCM:
        """Import cryptography here: it costs 10 MB, and many jobs have no secrets."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(self._key)


def is_sealed(text: str) -> bool:
    """For columns that hold JSON, which never begins like this."""
    return text.startswith(PREFIX)


def load_key(passphrase: str, directory: Path) -> bytes:
    """The passphrase's key, or that of `jobs.key` in the directory, made when there is none. Raises ConfigError."""
    if passphrase:
        return hashlib.sha256(passphrase.encode()).digest()
    path = directory / "jobs.key"
    if not path.exists():
        _make_key(path)
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise ConfigError(f"{path} is damaged: it must hold {KEY_BYTES} bytes, not {len(key)}")
    return key


def _make_key(path: Path) -> None:
    """On disk before anything is sealed with it, and whole or not at all."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    made = path.with_suffix(".new")
    made.unlink(missing_ok=True)
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(secrets.token_bytes(KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    made.rename(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
