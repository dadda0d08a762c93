"""Who a node is: a key of its own, made once, that never leaves its directory."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from umbel.errors import CorruptFile, UsageError


@final
class Identity:
    """An Ed25519 key.

    Attributes:
        public: its public half, 32 bytes.
    """

    __slots__ = ("_key", "public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public: bytes = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @classmethod
    def make(cls) -> Identity:
        """A new key, kept nowhere."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def at(cls, path: Path) -> Identity:
        """The key in this file; it is made if there is none. Of two processes that make it at once, one wins.

        Raises:
            CorruptFile: the file holds no Ed25519 key.
            UsageError: others than its owner may read it.
        """
        if not path.exists():
            _write_once(path, cls.make())
        return cls._load(path)

    @classmethod
    def _load(cls, path: Path) -> Identity:
        mode = stat.S_IMODE(path.stat().st_mode)
        if os.name == "posix" and mode & 0o077:
            raise UsageError(f"the key in {path} can be read by others", advice=f"chmod 600 {path}")
        cause: Exception | None = None
        key: object = None
        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            cause = error
        if not isinstance(key, Ed25519PrivateKey):
            raise CorruptFile(
                f"{path} holds no Ed25519 key",
                advice="restore it from a backup; or move it away, have this node revoked, and join again",
            ) from cause
        return cls(key)

    def sign(self, data: bytes) -> bytes:
        """The signature of these bytes, 64 bytes."""
        return self._key.sign(data)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the public half, in hex: what people compare."""
        return hashlib.sha256(self.public).hexdigest()


@final
class PublicKey:
    """The public half of somebody's key.

    Args:
        public: 32 bytes; by none that are no key anything is signed.
    """

    def __init__(self, public: bytes) -> None:
        self._key: Ed25519PublicKey | None = None
        with suppress(ValueError):
            self._key = Ed25519PublicKey.from_public_bytes(public)

    def has_signed(self, data: bytes, signature: bytes) -> bool:
        """Did the owner of the key sign these bytes?"""
        if self._key is None:
            return False
        try:
            self._key.verify(signature, data)
        except InvalidSignature:
            return False
        return True


def _write_once(path: Path, identity: Identity) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = identity._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # nobody else may read it
    temporary = Path(name)
    try:
        with open(file, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(file)
        with suppress(FileExistsError):  # another process was first: its key is the node's
            _publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _publish(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        temporary.rename(path)


__all__ = ["Identity", "PublicKey"]
