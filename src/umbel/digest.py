"""The digest that names bytes: BLAKE3, 32 of them.

BLAKE3 (O'Connor, Aumasson, Neves, Wilcox-O'Hearn, 2020) takes a quarter of the time of SHA-256: docs/adr/0027. A name
is also good if it is the SHA-256 of the bytes: an earlier version wrote it, or a client in a language that has nothing
else. Nobody finds bytes for a name of the one kind in the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blake3 import blake3

Digest = blake3
"""A running digest: `update`, `digest`, `hexdigest`, `copy`."""

Data = bytes | bytearray | memoryview
_PIECE = 1 << 20  # bytes in one go; they take a fraction of a millisecond


def digest_of(data: Data, between: Callable[[], object] = lambda: None) -> bytes:
    """Of these bytes; something is called after each piece of them, which may raise to break off."""
    running, whole = Digest(), memoryview(data)
    for begin in range(0, len(whole), _PIECE):
        running.update(whole[begin : begin + _PIECE])
        between()
    return running.digest()


def is_named(name: bytes, data: Data) -> bool:
    """Is this a name of these bytes?"""
    return name == digest_of(data) or name == hashlib.sha256(data).digest()


def is_file_named(name: bytes, path: Path, found: bytes | None = None) -> bool:
    """Is this a name of a file's bytes?

    Args:
        name: 32 bytes.
        path: of the file. It is read, not mapped: whoever cuts it meanwhile does no harm.
        found: its digest, where that is known.
    """
    if name == found:
        return True
    kinds: tuple[Any, ...] = (Digest, "sha256")
    with path.open("rb") as file:
        for kind in kinds if found is None else kinds[1:]:
            file.seek(0)
            if name == hashlib.file_digest(file, kind).digest():
                return True
    return False


__all__ = ["Digest", "digest_of", "is_file_named", "is_named"]
