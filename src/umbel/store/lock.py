"""One process at a time works in a run directory; the system frees the lock when the process ends, however."""

from __future__ import annotations

import os
from pathlib import Path
from typing import final

from umbel.errors import InUse
from umbel.store.journal import readable_errors

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # the other branch below


@final
class DirectoryLock:
    """Holds a directory until it is closed.

    Raises:
        InUse: another process holds it.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / "lock"
        with readable_errors(path):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(self._file)
        except OSError as error:
            os.close(self._file)
            raise InUse(
                f"{directory} is in use by another process",
                advice="wait until that run ends, or stop it; or give another dir=",
            ) from error

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self._file)


def _lock(file: int) -> None:
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        import msvcrt

        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)


__all__ = ["DirectoryLock"]
