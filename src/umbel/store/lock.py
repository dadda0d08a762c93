"""One process at a time works in a run directory; the system frees the lock when the process ends, however."""

from __future__ import annotations

import errno
import os
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import final

from umbel.errors import InUse, StoreError
from umbel.store.durable import readable_errors

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

NAME = "umbel.lock"
_TAKEN = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}  # what the systems call it


@final
class DirectoryLock:
    """Holds a directory until it is closed.

    Raises:
        InUse: another process holds it, or another run in this one.
        StoreError: the file system has no locks.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / NAME
        with readable_errors(path):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(self._file)
        except OSError as error:
            os.close(self._file)
            if error.errno not in _TAKEN:
                raise StoreError(
                    f"{path} cannot be locked: {error.strerror}", advice="give a dir= on another file system"
                ) from error
            raise InUse(
                f"{directory} is in use by another run",
                advice="wait until that run ends, or stop it; or give another dir=",
            ) from error
        _held.add(self)

    def close(self) -> None:
        """Let go of the directory."""
        _held.discard(self)
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


_held: weakref.WeakSet[DirectoryLock] = weakref.WeakSet()


def _after_fork() -> None:
    """A forked child, such as a data loader's worker, would hold the lock when its parent is killed."""
    for lock in list(_held):
        lock.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def copying(directory: Path) -> Iterator[None]:
    """While this lasts, in whatever process, `is_copied` says so.

    The lock is the directory's own, so that it needs no file and no right to write. Windows has none of that kind.

    Raises:
        StoreError: the directory cannot be read.
    """
    with readable_errors(directory):
        file = _shared(directory)
    try:
        yield
    finally:
        if file >= 0:
            os.close(file)


def is_copied(directory: Path) -> bool:
    """Does somebody copy it who counts on nothing being removed?"""
    if sys.platform == "win32":
        return False
    else:  # noqa: RET505  # mypy looks at one system at a time
        try:
            file = os.open(directory, os.O_RDONLY)
        except OSError:
            return True  # as when too many files are open: that is not known, and what stays does no harm
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in _TAKEN
        finally:
            os.close(file)
        return False


def _shared(directory: Path) -> int:
    """The directory, opened and locked so that others may lock it alike; -1: there are no such locks."""
    if sys.platform == "win32":
        return -1
    else:  # noqa: RET505  # mypy looks at one system at a time
        file = os.open(directory, os.O_RDONLY)
        try:
            fcntl.flock(file, fcntl.LOCK_SH)
        except BaseException:
            os.close(file)
            raise
        return file


def _lock(file: int) -> None:
    if sys.platform == "win32":
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


__all__ = ["NAME", "DirectoryLock", "copying", "is_copied"]
