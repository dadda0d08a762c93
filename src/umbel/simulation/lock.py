"""A lock between processes that the system frees when its holder dies."""

from __future__ import annotations

import os
import secrets
import sys
from types import TracebackType
from typing import Any, final

from umbel.simulation.nameless import nameless_file
from umbel.simulation.region import Handle


@final
class ProcessLock:
    """Held inside a ``with``; not between threads of one process.

    Args:
        handle: what `handle` says in the process that made it; None makes a new one.
    """

    def __init__(self, handle: Handle | None = None) -> None:
        self.handle = _make() if handle is None else handle
        self._mutex: Any = _mutex(self.handle) if isinstance(self.handle, str) else None

    def __enter__(self) -> None:
        if isinstance(self.handle, int):
            _lock(self.handle, True)
        else:  # an abandoned one is ours all the same
            self._mutex.kernel32.WaitForSingleObject(self._mutex.handle, 0xFFFFFFFF)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(self.handle, int):
            _lock(self.handle, False)
        else:
            self._mutex.kernel32.ReleaseMutex(self._mutex.handle)

    def close(self) -> None:
        """Let go of it for good."""
        if isinstance(self.handle, int):
            os.close(self.handle)


def _make() -> Handle:
    if sys.platform == "win32":
        return f"umbel-lock-{secrets.token_hex(16)}"
    return nameless_file("lock")


if sys.platform == "win32":

    def _lock(file: int, wanted: bool) -> None:
        raise AssertionError(f"{file} is a handle elsewhere, wanted or not: {wanted}")

    @final
    class _Mutex:
        def __init__(self, name: str) -> None:
            import ctypes

            self.kernel32 = ctypes.windll.kernel32
            self.handle = self.kernel32.CreateMutexW(None, False, name)

    def _mutex(name: str) -> Any:
        return _Mutex(name)

else:
    import fcntl

    def _lock(file: int, wanted: bool) -> None:
        fcntl.lockf(file, fcntl.LOCK_EX if wanted else fcntl.LOCK_UN)

    def _mutex(name: str) -> Any:
        raise AssertionError(f"{name} is a handle on Windows alone")


__all__ = ["ProcessLock"]
