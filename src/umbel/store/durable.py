"""Writing to the disk so that it stays written: whole files or nothing, and errors that people understand."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from umbel.errors import DiskFull, StoreError

TEMPORARY = ".tmp"  # what a file is called until it is whole
GO_ON = "free some space and run the same command again: it goes on from the last committed round"
BINARY = getattr(os, "O_BINARY", 0)  # Windows would change line ends
_PAST_CACHE = getattr(os, "O_DIRECT", 0)
_BLOCK = 4096  # bytes; disks have blocks of 512 or 4096
_LARGE = 1 << 20  # bytes, above which the copy is worth saving
_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def readable_errors(path: Path) -> Iterator[None]:
    """Turn the system's errors into ours, with the path.

    Raises:
        DiskFull: there is no room left.
        StoreError: anything else.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull(f"no room left on the disk while writing {path}", advice=GO_ON) from error
        raise StoreError(f"{path}: {error.strerror or error}", advice="check the path and its permissions") from error


def write_all(file: int, data: bytes | memoryview) -> None:
    """Write all of it; the system may take a part at a time."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def _write_past_cache(file: int, data: memoryview) -> memoryview:
    """Write what the system takes straight from memory, without a copy in its cache; gives the rest.

    It takes whole blocks that begin at whole blocks in memory, as what the engine computes does. The copy would cost
    the cores that train three times as much as all else in writing, but for the digest.
    """
    import fcntl  # there is none on Windows, nor what this is for

    flags = fcntl.fcntl(file, fcntl.F_GETFL)
    try:
        fcntl.fcntl(file, fcntl.F_SETFL, flags | _PAST_CACHE)
        while whole := data[: len(data) // _BLOCK * _BLOCK]:
            data = data[os.write(file, whole) :]
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        fcntl.fcntl(file, fcntl.F_SETFL, flags)
    return data


def replace_file(path: Path, data: bytes | memoryview, *, sync: bool = True) -> None:
    """Write a file; whoever reads the path sees the old file or the whole new one.

    Args:
        path: of the file.
        data: its bytes.
        sync: outlive a loss of power, not only the end of the process; so does the name after `sync_directory`.

    Raises:
        DiskFull: there is no room left; the file is as it was.
        StoreError: it cannot be written; the file is as it was.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    with readable_errors(path):
        try:
            file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | BINARY, 0o644)
            try:
                rest = memoryview(data)
                if sync and _PAST_CACHE and len(rest) >= _LARGE:
                    rest = _write_past_cache(file, rest)
                write_all(file, rest)
                if sync:
                    os.fsync(file)
            finally:
                os.close(file)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def sync_directory(directory: Path) -> None:
    """Make the names in a directory outlive a loss of power."""
    if os.name != "posix":  # elsewhere a directory cannot be opened
        return
    with readable_errors(directory):
        file = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


__all__ = ["BINARY", "GO_ON", "TEMPORARY", "readable_errors", "replace_file", "sync_directory", "write_all"]
