"""An append-only journal of JSON lines, each behind its checksum.

A line that was only half written when the process died is the last one; it is dropped. A damaged line in the
middle is an error: something else than a crash happened to the file.
"""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

from umbel.errors import CorruptFile, DiskFull, StoreError

_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def readable_errors(path: Path) -> Iterator[None]:
    """Turn the system's errors into ours, with the path."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull(
                f"no room left on the disk while writing {path}",
                advice="free some space and run the same command again: it goes on from the last committed round",
            ) from error
        raise StoreError(f"{path}: {error.strerror or error}", advice="check the path and its permissions") from error


def line(value: Any) -> bytes:
    """A value as a line of the journal."""
    text = json.dumps(value, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


@final
class Journal:
    """The journal in one file. One process writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with readable_errors(path):
            self._file = open(path, "a+b", buffering=0)  # noqa: SIM115  # closed in close()
        self.end = 0

    def read(self) -> list[tuple[int, Any]]:
        """All entries, each with the offset behind it; drops a last line that is not whole.

        Raises:
            CorruptFile: a line that is not the last is damaged.
        """
        with readable_errors(self._path):
            self._file.seek(0)
            data = self._file.read()
        entries: list[tuple[int, Any]] = []
        position = 0
        for number, raw in enumerate(data.splitlines(keepends=True), 1):
            position += len(raw)
            value = _parse(raw)
            if value is None:
                if position < len(data):
                    raise CorruptFile(
                        f"{self._path}, line {number} is damaged",
                        advice=f"restore the file from a backup, or cut it off before line {number}: "
                        "the run then goes on from the last commit above it",
                    )
                break
            entries.append((position, value))
        self.cut(entries[-1][0] if entries else 0)
        return entries

    def cut(self, end: int) -> None:
        """Drop what lies behind an offset."""
        with readable_errors(self._path):
            self._file.truncate(end)
        self.end = end

    def append(self, value: Any, *, sync: bool) -> None:
        """Write one entry; all of it or nothing.

        Raises:
            DiskFull: there is no room; the journal is as it was.
        """
        data = line(value)
        try:
            with readable_errors(self._path):
                written = 0
                while written < len(data):
                    written += self._file.write(data[written:]) or 0
                if sync:
                    os.fsync(self._file.fileno())
        except StoreError:
            self.cut(self.end)
            raise
        self.end += len(data)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _parse(raw: bytes) -> Any:
    checksum, _, text = raw.rstrip(b"\n").partition(b" ")
    if not raw.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text):
        return None
    return json.loads(text)


__all__ = ["Journal", "readable_errors"]
