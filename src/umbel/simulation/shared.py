"""Memory that several processes share and nobody else can find: no name in a file system, nothing to clean up.

A name in /dev/shm is bounded by its size (64 MB in a container; beyond it a process dies of SIGBUS) and stays behind
when a process is killed. An anonymous file has neither fault. It can grow, and who has it mapped maps it anew.

Windows has no files without a name, and its anonymous memory, a *section*, cannot grow. So there it is a row of
sections, each as large as all before it together, and mapped one behind the other.
"""

from __future__ import annotations

import mmap
import sys
from typing import Any, final

Handle = int | str
PAGE = mmap.ALLOCATIONGRANULARITY

if sys.platform == "win32":
    import ctypes
    import secrets
    from collections.abc import Sequence
    from ctypes import wintypes

    _kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    _create = _kernel32.CreateFileMappingW
    _create.restype = wintypes.HANDLE
    _create.argtypes = [wintypes.HANDLE, wintypes.LPVOID, *[wintypes.DWORD] * 3, wintypes.LPCWSTR]
    _open = _kernel32.OpenFileMappingW
    _open.restype, _open.argtypes = wintypes.HANDLE, [wintypes.DWORD, wintypes.BOOL, wintypes.LPCWSTR]
    _map_at = _kernel32.MapViewOfFileEx
    _map_at.restype = wintypes.LPVOID
    _map_at.argtypes = [wintypes.HANDLE, *[wintypes.DWORD] * 3, ctypes.c_size_t, wintypes.LPVOID]
    _reserve = _kernel32.VirtualAlloc
    _reserve.restype = wintypes.LPVOID
    _reserve.argtypes = [wintypes.LPVOID, ctypes.c_size_t, wintypes.DWORD, wintypes.DWORD]
    _release = _kernel32.VirtualFree
    _release.argtypes = [wintypes.LPVOID, ctypes.c_size_t, wintypes.DWORD]
    _unmap = _kernel32.UnmapViewOfFile
    _unmap.argtypes = [wintypes.LPVOID]
    _close = _kernel32.CloseHandle
    _close.argtypes = [wintypes.HANDLE]
    _NO_FILE, _PAGE_READWRITE, _PAGE_NOACCESS, _MEM_RESERVE, _MEM_RELEASE = -1, 4, 1, 0x2000, 0x8000
    _READ, _READ_AND_WRITE = 4, 6  # FILE_MAP_READ, and FILE_MAP_WRITE with it
    _TRIES = 100  # to find free addresses, which another thread may take before us

    @final
    class _Row:
        """Sections, mapped one behind the other; as long as it lives."""

        def __init__(self, sections: Sequence[tuple[int, int]], access: int) -> None:
            self._mapped: list[int] = []
            for _ in range(_TRIES):
                self.address = _reserve(None, sum(size for _, size in sections), _MEM_RESERVE, _PAGE_NOACCESS)
                if not self.address:
                    break
                _release(self.address, 0, _MEM_RELEASE)
                at = self.address
                for section, size in sections:
                    if not _map_at(section, access, 0, 0, size, at):
                        break
                    self._mapped.append(at)
                    at += size
                else:
                    return
                self.__del__()
            raise ctypes.WinError(ctypes.get_last_error())

        def __del__(self) -> None:
            while self._mapped:
                _unmap(self._mapped.pop())

    @final
    class Shared:
        """The same as on other systems, see below: a row of sections."""

        def __init__(self, handle: Handle | None, *, writable: bool) -> None:
            self._mine = handle is None
            self.handle: Handle = f"umbel-{secrets.token_hex(16)}" if handle is None else handle
            self._access = _READ_AND_WRITE if writable else _READ
            self._sections: list[tuple[int, int]] = []  # handle and size of each

        def map(self, size: int) -> tuple[Any, int, int]:
            """Map at least so many bytes, as on other systems."""
            while (there := sum(size for _, size in self._sections)) < size:
                self._sections.append(self._section(there or size))
            row = _Row(self._sections, self._access)
            return row, row.address, there

        def _section(self, size: int) -> tuple[int, int]:
            name = f"{self.handle}-{len(self._sections)}"
            if self._mine:
                section = _create(_NO_FILE, None, _PAGE_READWRITE, size >> 32, size & 0xFFFFFFFF, name)
            else:
                section = _open(self._access, False, name)
            if not section:
                raise ctypes.WinError(ctypes.get_last_error())
            return section, size

        def close(self) -> None:
            """Let go of it; what is mapped stays."""
            for section, _ in self._sections:
                _close(section)
            self._sections = []

else:
    import os

    import numpy as np

    from umbel.simulation.nameless import nameless_file

    @final
    class Shared:
        """Memory that is there as long as any process has it open or mapped.

        Args:
            handle: what `handle` says in the process that made it; None makes a new one.
            writable: may this process write to it?

        Attributes:
            handle: what another process needs to see it.
        """

        def __init__(self, handle: Handle | None, *, writable: bool) -> None:
            self._mine = handle is None
            self._file = nameless_file("region") if handle is None else int(handle)
            self.handle: Handle = self._file
            self._access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ

        def map(self, size: int) -> tuple[Any, int, int]:
            """Map at least so many bytes; who made it makes it larger. Maps from before stay good.

            Returns:
                What holds the map, its address, and its size.
            """
            if self._mine:
                os.ftruncate(self._file, size)
            mapped = mmap.mmap(self._file, size, access=self._access)
            return mapped, np.frombuffer(mapped, np.uint8).ctypes.data, size

        def close(self) -> None:
            """Let go of it; what is mapped stays."""
            os.close(self._file)


__all__ = ["PAGE", "Handle", "Shared"]
