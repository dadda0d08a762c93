"""A blob on its way in: straight into a file, checked as it comes, and continued where it broke off."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import final

from umbel.digest import Digest, is_file_named
from umbel.errors import Rejected
from umbel.store.durable import BINARY, begin_sync, readable_errors, sync_file, write_all
from umbel.store.sql.values import Kept

_BLOCK = 1 << 20  # bytes that are read at once of what came before
_BEGIN = 16 << 20  # bytes after which the disk begins with them


@final
class Incoming:
    """One upload. A later one of the same blob takes its place, and goes on with what has come.

    Args:
        path: of the file, which stays until the upload is finished or dropped.
        digest: of the whole, in hex.
        size: of the whole, in bytes.
        kept: takes the whole and synced file to its place.
        closed: is told when it is over: the file has been taken to its place, or waits for the next try.

    Attributes:
        path: the same.
        received: bytes that have come, from the first on.

    Raises:
        Rejected: more has come than the whole has; it was dropped.
        StoreError: the file cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        digest: str,
        size: int,
        *,
        kept: Callable[[Path, str, int], Kept],
        closed: Callable[[Incoming], None],
    ) -> None:
        self.path, self.digest, self.size = path, digest, size
        self._kept, self._closed = kept, closed
        self._sum: Digest | None = None
        self._lock = threading.Lock()
        with readable_errors(path):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | BINARY, 0o600)
        self.received = os.fstat(self._file).st_size
        if self.received > size:
            with self._lock:
                self._drop()
            raise Rejected(f"blob {digest[:12]} was to have {size:,} bytes, and has more", advice="send it anew")

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes.

        Raises:
            Rejected: there are more than the whole has, so that it was dropped; or another upload took its place.
            DiskFull: there is no room left; what came before is still there.
        """
        with self._lock:
            self._check()
            if self.received + len(data) > self.size:
                self._drop()
                raise Rejected(f"blob {self.digest[:12]} was to have {self.size:,} bytes, and has more")
            found = self._summed()
            try:
                with readable_errors(self.path):
                    os.lseek(self._file, self.received, os.SEEK_SET)
                    write_all(self._file, data)
            except BaseException:
                os.ftruncate(self._file, self.received)
                raise
            found.update(data)
            self.received += len(data)
            whole = self.received // _BEGIN * _BEGIN
            if self.received - len(data) < whole:  # each of them once: what the disk has could be forgotten
                begin_sync(self._file, whole - _BEGIN, _BEGIN)

    def finish(self) -> Kept:
        """All has come: check it, and keep it.

        Raises:
            Rejected: bytes are missing; or the whole has another digest, so that it was dropped.
        """
        with self._lock:
            self._check()
            if self.received < self.size:
                raise Rejected(
                    f"blob {self.digest[:12]}: {self.received:,} of {self.size:,} bytes have come",
                    advice="ask how many are here, and go on from there",
                )
            if not self._has_its_digest():
                self._drop()
                raise Rejected(
                    f"the bytes of blob {self.digest[:12]} do not have its digest; all of them were dropped",
                    advice="send it anew",
                )
            with readable_errors(self.path):
                sync_file(self._file)
            self._release()
            try:
                return self._kept(self.path, self.digest, self.size)
            finally:
                self._closed(self)

    def close(self) -> None:
        """Let go of the file; what has come stays for the next try."""
        with self._lock:
            self._close()

    def _has_its_digest(self) -> bool:
        found = self._summed().digest()
        with readable_errors(self.path):
            return is_file_named(bytes.fromhex(self.digest), self.path, found)

    def _check(self) -> None:
        if self._file < 0:
            raise Rejected(
                f"this upload of blob {self.digest[:12]} has ended; another one may have taken its place",
                advice="ask how many bytes are here, and go on from there",
            )

    def _summed(self) -> Digest:
        """The sum over what has come; over what came before this upload it is made when it is needed."""
        if self._sum is None:
            found = Digest()
            with readable_errors(self.path):
                os.lseek(self._file, 0, os.SEEK_SET)
                while block := os.read(self._file, _BLOCK):
                    found.update(block)
            self._sum = found
        return self._sum

    def _close(self) -> None:
        if self._file >= 0:
            self._release()
            self._closed(self)

    def _release(self) -> None:
        os.close(self._file)
        self._file = -1

    def _drop(self) -> None:
        self._close()
        self.received = 0
        with suppress(FileNotFoundError):
            os.unlink(self.path)


__all__ = ["Incoming"]
