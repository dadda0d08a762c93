"""Arrays in files that are named by the digest of their bytes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import final

from umbel.arrays import Arrays
from umbel.digest import is_named
from umbel.errors import CorruptFile, FormatError
from umbel.store.durable import TEMPORARY, readable_errors, remove, replace_file, sync_directory
from umbel.store.writer import GoOn

_SUFFIX = ".safetensors"
_OURS = re.compile(rf"[0-9a-f]{{64}}{re.escape(_SUFFIX)}({re.escape(TEMPORARY)})?")  # nothing else is ever removed


@final
class Blobs:
    """The blobs of one directory, which is made if it does not exist."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        with readable_errors(directory):
            directory.mkdir(exist_ok=True)
        self._kept: dict[str, bool] = {}  # what this process wrote, and whether that outlives a loss of power

    def path(self, digest: str) -> Path:
        """Where a blob lies."""
        return self._directory / f"{digest}{_SUFFIX}"

    def keep(self, arrays: Arrays, *, sync: bool, go_on: GoOn = lambda: None) -> str:
        """Write arrays down, once; returns their digest.

        Files that this process did not write are not trusted: a loss of power may have left them incomplete.

        Args:
            arrays: what to keep.
            sync: outlive a loss of power, after the next ``settle``.
            go_on: called now and then; may raise, to break off.
        """
        digest = arrays.digest(go_on)
        go_on()
        if self._kept.get(digest, -1) < sync:
            replace_file(self.path(digest), arrays.to_bytes(), sync=sync)
            self._kept[digest] = sync
        return digest

    def settle(self) -> None:
        """Make the names of what was kept outlive a loss of power."""
        sync_directory(self._directory)

    def fetch(self, digest: str, *, advice: str) -> Arrays:
        """The arrays with this digest.

        Raises:
            CorruptFile: the file is damaged; gives this advice.
        """
        path = self.path(digest)
        arrays = read_whole(path, digest)
        if arrays is None:
            state = "is damaged: its bytes do not have the digest that it is named for" if path.exists() else "is gone"
            raise CorruptFile(f"{path} {state}", advice=advice)
        return arrays

    def missing(self, digests: Iterable[str]) -> Path | None:
        """The first of these blobs that is not there."""
        return next((self.path(d) for d in digests if not self.path(d).is_file()), None)

    def sweep(self, needed: Iterable[str]) -> None:
        """Remove all blobs but these, and what a killed process left half written."""
        names = {self.path(digest).name for digest in needed}
        with readable_errors(self._directory):
            for entry in list(os.scandir(self._directory)):
                if entry.name not in names and _OURS.fullmatch(entry.name) and not entry.is_dir():
                    remove(entry.path)
        self._kept = {digest: synced for digest, synced in self._kept.items() if self.path(digest).name in names}


def read_whole(path: Path, digest: str) -> Arrays | None:
    """The arrays in a file, if it is there and its bytes have this digest."""
    try:
        arrays = Arrays.load(path)
    except (FileNotFoundError, FormatError):
        return None
    except OSError:
        with readable_errors(path):
            raise
    if not is_named(bytes.fromhex(digest), arrays.to_bytes()):
        return None
    return arrays.with_digest(digest)


__all__ = ["Blobs", "read_whole"]
