"""A lock between processes that the system frees when its holder dies."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import final

from umbel.simulation.shared import Handle

if sys.platform == "win32":
    import ctypes
    import secrets
    from ctypes import wintypes

    _kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    _create = _kernel32.CreateMutexW
    _create.restype, _create.argtypes = wintypes.HANDLE, [wintypes.LPVOID, wintypes.BOOL, wintypes.LPCWSTR]
    _wait = _kernel32.WaitForSingleObject
    _wait.restype, _wait.argtypes = wintypes.DWORD, [wintypes.HANDLE, wintypes.DWORD]
    _release = _kernel32.ReleaseMutex
    _release.argtypes = [wintypes.HANDLE]
    _close = _kernel32.CloseHandle
    _close.argtypes = [wintypes.HANDLE]
    _FOR_EVER = _FAILED = 0xFFFFFFFF

    @final
    class _Mutex:
        """That of Windows; if its holder died, whoever waits gets it."""

        def __init__(self, handle: Handle | None) -> None:
            self.handle: Handle = f"umbel-lock-{secrets.token_hex(16)}" if handle is None else handle
            self._mutex = _create(None, False, self.handle)
            if not self._mutex:
                raise ctypes.WinError(ctypes.get_last_error())

        def take(self) -> None:
            if _wait(self._mutex, _FOR_EVER) == _FAILED:
                raise ctypes.WinError(ctypes.get_last_error())

        def free(self) -> None:
            _release(self._mutex)

        def close(self) -> None:
            _close(self._mutex)

else:
    import fcntl
    import os

    from umbel.simulation.nameless import nameless_file

    @final
    class _Mutex:
        """A lock on a file that has no name."""

        def __init__(self, handle: Handle | None) -> None:
            self._file = nameless_file("lock") if handle is None else int(handle)
            self.handle: Handle = self._file

        def take(self) -> None:
            fcntl.lockf(self._file, fcntl.LOCK_EX)

        def free(self) -> None:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

        def close(self) -> None:
            os.close(self._file)


@final
class ProcessLock:
    """Held inside a ``with``; not between threads of one process.

    Args:
        handle: what `handle` says in the process that made it; None makes a new one.
    """

    def __init__(self, handle: Handle | None = None) -> None:
        self._mutex = _Mutex(handle)
        self.handle = self._mutex.handle

    def __enter__(self) -> None:
        self._mutex.take()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mutex.free()

    def close(self) -> None:
        """Let go of it for good."""
        self._mutex.close()


__all__ = ["ProcessLock"]
