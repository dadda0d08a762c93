"""Writing to the disk so that it stays written: whole files or nothing, and errors that people understand."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from umbel.errors import DiskFull, StoreError

TEMPORARY = ".tmp"  # what a file is called until it is whole
GO_ON = "free some space and run the same command again: it goes on from the last committed round"
BINARY = getattr(os, "O_BINARY", 0)  # Windows would change line ends
_PAST_CACHE = getattr(os, "O_DIRECT", 0)  # of Linux
_MOMENTS = (0.01, 0.03, 0.1, 0.3, 1.0)  # seconds; whoever looks at a new file to see what it is has done so by then
_PART = 1 << 17  # bytes that are written at once; with 256 KiB it is as slow as with all of it
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
    """Write all of it; in parts of a size for which the system finds memory easily.

    Linux caches what is written at once in as few pieces of memory as it can. In a virtual machine large pieces are
    those that its host has taken back, and has to find and clear again: that took three times as long as all else.
    """
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest[:_PART]) :]


if sys.platform == "linux":

    def begin_sync(file: int, offset: int, size: int) -> None:
        """Let the disk begin with what was written there, so that there is little left to wait for in `sync_file`.

        Linux begins to write what one says is not needed, and keeps in memory what is being written.
        """
        os.posix_fadvise(file, offset, size, os.POSIX_FADV_DONTNEED)

else:

    def begin_sync(file: int, offset: int, size: int) -> None:
        """Elsewhere it begins when it is told to sync."""
        del file, offset, size


if sys.platform == "win32":

    def _write_past_cache(file: int, data: memoryview) -> memoryview:
        raise AssertionError(f"{file} takes {len(data)} bytes like any other")

    def _rename(old: Path, new: Path) -> None:
        """Rename a file over another one, if need be as soon as those let go of both that look at every new file."""
        for seconds in _MOMENTS:
            with suppress(PermissionError):
                os.replace(old, new)
                return
            time.sleep(seconds)
        os.replace(old, new)

    def remove(path: str | Path) -> None:
        """Remove a file; one that somebody looks at cannot be removed, and stays."""
        with suppress(PermissionError):
            os.unlink(path)

    def sync_file(file: int) -> None:
        """Make what was written to a file outlive a loss of power."""
        os.fsync(file)

    def sync_directory(directory: Path) -> None:
        """Make the names in a directory outlive a loss of power; here a directory cannot be opened."""
        del directory

else:
    import fcntl

    def _write_past_cache(file: int, data: memoryview) -> memoryview:
        """Write what the system takes straight from memory, without a copy in its cache; gives the rest.

        It takes whole blocks that begin at whole blocks in memory, as what the engine computes does. The copy would
        cost the cores that train three times as much as all else in writing, but for the digest.
        """
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

    def _rename(old: Path, new: Path) -> None:
        """Rename a file over another one."""
        os.replace(old, new)

    def remove(path: str | Path) -> None:
        """Remove a file."""
        os.unlink(path)

    def sync_file(file: int) -> None:
        """Make what was written to a file outlive a loss of power."""
        os.fsync(file)
        if sys.platform == "darwin":  # there it does not wait for what the disk itself holds back
            with suppress(OSError):  # a file system that does not know this
                fcntl.fcntl(file, fcntl.F_FULLFSYNC)

    def sync_directory(directory: Path) -> None:
        """Make the names in a directory outlive a loss of power."""
        with readable_errors(directory):
            file = os.open(directory, os.O_RDONLY)
            try:
                sync_file(file)
            finally:
                os.close(file)


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
                    sync_file(file)
            finally:
                os.close(file)
            _rename(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def replace_secret(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """The same of a file that, from its first byte on, nobody else may read; it and its name outlive a loss of power.

    Args:
        path: of the file.
        data: its bytes.
        mode: who may read it.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    with readable_errors(path):
        temporary.unlink(missing_ok=True)
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, mode)
        try:
            write_all(file, data)
            sync_file(file)
        finally:
            os.close(file)
        _rename(temporary, path)
    sync_directory(path.parent)


__all__ = [
    "BINARY",
    "GO_ON",
    "TEMPORARY",
    "begin_sync",
    "readable_errors",
    "remove",
    "replace_file",
    "replace_secret",
    "sync_directory",
    "sync_file",
    "write_all",
]
