"""The blobs of a server: small ones in the database, large ones in files beside it.

    blobs/<digest>.safetensors     whole: written beside, synced and renamed before anything names them
    incoming/<digest>.<sender>     what nodes and people are about to send, each for itself

A blob that nothing names is removed by a sweep, unless somebody has kept it within the last hour.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, final

from sqlalchemy import RowMapping, Select, bindparam, select

from umbel.arrays import Arrays
from umbel.digest import digest_of, is_named
from umbel.errors import CorruptFile, FormatError, NotThere, Rejected
from umbel.store.blobs import read_whole
from umbel.store.durable import TEMPORARY, readable_errors, remove, replace_file, sync_directory, sync_file
from umbel.store.lock import is_copied
from umbel.store.sql.incoming import Incoming
from umbel.store.sql.reading import Reader
from umbel.store.sql.tables import blob
from umbel.store.sql.values import INLINE, Kept
from umbel.store.writer import GoOn

BLOBS = "blobs"  # the directory of whole ones in that of the server
SUFFIX = ".safetensors"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ARRIVING = re.compile(r"[0-9a-f]{64}\.[0-9a-f]{16}")
_FILE = re.compile(rf"([0-9a-f]{{64}}){re.escape(SUFFIX)}({re.escape(TEMPORARY)})?")  # nothing else is ever removed
_ONE = select(blob.c.size, blob.c.content).where(blob.c.digest == bindparam("digest"))
_SIZE = select(blob.c.size, blob.c.content.is_(None).label("is_file")).where(blob.c.digest == bindparam("digest"))
_BACKUP = "restore the server's directory from a backup"


@final
class _Fresh(NamedTuple):
    """A blob that was kept, and that perhaps nothing names yet.

    Attributes:
        time: when it was kept.
        content: of a small one.
        times: how often it was kept, without being named since.
    """

    time: float
    content: bytes | None
    times: int


@final
class ServerBlobs:
    """The blobs of one server. Any thread may call it.

    Args:
        directory: of the server.
        read: reads from the database.
        now: seconds since 1970.

    Attributes:
        grown: bytes that have come in files since the last sweep.
    """

    def __init__(self, directory: Path, read: Reader, now: Callable[[], float]) -> None:
        self.directory, self._arriving = directory / BLOBS, directory / "incoming"
        self._read, self._now = read, now
        for place in (self.directory, self._arriving):
            with readable_errors(place):
                place.mkdir(parents=True, exist_ok=True)
        sync_directory(directory)
        self._lock = threading.RLock()  # what is removed, and what must not be; held for moments only
        self._writing = tuple(threading.Lock() for _ in range(16))  # one writes a file at a time, by its first digit
        self._summing = tuple(threading.Lock() for _ in range(16))  # one computes a digest at a time
        self._fresh: dict[str, _Fresh] = {}
        self._synced: dict[str, bool] = {}  # files that this process wrote, and whether they outlive a loss of power
        self._whole: set[str] = set()  # files that this process has seen to have their digest
        self._uploads: dict[str, Incoming] = {}  # those that are open, by the name of the file
        self._lately: set[str] | None = None  # what was named since a sweep began that is under way
        self.grown = 0

    def path(self, digest: str) -> Path:
        """Where a large blob lies.

        Raises:
            Rejected: this is no digest.
        """
        return self.directory / f"{_checked(digest)}{SUFFIX}"

    # --- reading -----------------------------------------------------------------------------

    def find(self, digest: str) -> int | None:
        """How large a blob is, in bytes; None: it is not here."""
        path = self.path(digest)
        fresh = self._fresh.get(digest)
        if fresh is not None and fresh.content is not None:
            return len(fresh.content)
        row = self._row(_SIZE, digest)
        if row is not None and not row["is_file"]:
            return int(row["size"])
        try:
            size = path.stat().st_size
        except OSError:
            return None
        return size if row is None or size == row["size"] else None  # else a loss of power has cut it; it is sent again

    def read(self, digest: str) -> bytes | Path | None:
        """The bytes of a small blob, the file of a large one; None: it is not here."""
        path = self.path(digest)
        fresh = self._fresh.get(digest)
        if fresh is not None and fresh.content is not None:
            return fresh.content
        row = self._row(_ONE, digest)
        if row is not None and row["content"] is not None:
            return bytes(row["content"])
        return path if path.is_file() else None

    def held(self, digest: str) -> Kept | None:
        """A blob that was sent on its own, for something that is about to name it; None: it is not here."""
        with self._lock:  # from here on nobody removes it
            if new := digest not in self._fresh:
                self._note(digest, None)
        found = self.read(digest)
        if isinstance(found, bytes):
            return Kept(digest, len(found), found)
        size = self.find(digest)
        if size is not None:
            return Kept(digest, size, None)
        if new:
            self.named([digest])
        return None

    def fetch(self, digest: str) -> Arrays:
        """The arrays with this digest; a large blob is mapped, and checked the first time that this process reads it.

        Raises:
            NotThere: there is no such blob.
            CorruptFile: its bytes do not have its digest.
        """
        found = self.read(digest)
        if found is None:
            raise NotThere(f"there is no blob {digest[:12]}", advice="its run may have gone on, or was removed")
        if isinstance(found, bytes):
            arrays = Arrays.from_bytes(found, source=f"blob {digest[:12]}")
            if not is_named(bytes.fromhex(digest), found):
                raise CorruptFile(f"blob {digest[:12]} in {self._read.name} is damaged", advice=_BACKUP)
            return arrays.with_digest(digest)
        return self._mapped(found, digest)

    def _mapped(self, path: Path, digest: str) -> Arrays:
        known = digest in self._whole
        try:
            arrays = Arrays.load(path).with_digest(digest) if known else read_whole(path, digest)
        except FileNotFoundError:
            arrays = None
        except FormatError:
            arrays = None
        if arrays is None:
            state = "is damaged: its bytes do not have the digest that it is named for" if path.exists() else "is gone"
            raise CorruptFile(f"{path} {state}", advice=_BACKUP)
        self._whole.add(digest)
        return arrays

    def _row(self, query: Select[Any], digest: str) -> RowMapping | None:
        return self._read(lambda connection: connection.execute(query, {"digest": digest}).mappings().first())

    def free(self) -> int:
        """Bytes that are free on the disk."""
        with readable_errors(self.directory):
            return shutil.disk_usage(self.directory).free

    # --- keeping -----------------------------------------------------------------------------

    def keep(self, arrays: Arrays, sync: bool = True, go_on: GoOn = lambda: None) -> Kept:
        """Keep arrays, for something that is about to name them.

        Args:
            arrays: what to keep.
            sync: outlive a loss of power, if it is a file. Without this the file is synced when it is named by
                anything but an open exchange.
            go_on: called now and then; may raise, to break off.
        """
        data = arrays.to_bytes()
        if len(data) > INLINE and not arrays.known_digest:
            with self._summing[id(arrays) // 64 % len(self._summing)]:  # a round's model is asked and committed at once
                if not arrays.known_digest:
                    self._write_beside(arrays, data, go_on)
        return self.keep_bytes(data, arrays.digest(go_on), sync=sync)

    def _write_beside(self, arrays: Arrays, data: memoryview, go_on: GoOn) -> None:
        """Write a file while its digest is computed, so at first it has another name of this form."""
        path = self.path(secrets.token_hex(32))
        try:
            with ThreadPoolExecutor(1) as beside:
                written = beside.submit(replace_file, path, data, sync=False)
                digest = arrays.digest(go_on)
                written.result()
            with self._alone(digest):
                if digest not in self._synced:
                    os.replace(path, self.path(digest))
                    self._synced[digest] = False
                    self._whole.add(digest)
                    self.grown += len(data)
        finally:
            path.unlink(missing_ok=True)

    def keep_bytes(self, data: bytes | memoryview, digest: str = "", *, sync: bool = True) -> Kept:
        """The same of any bytes; their digest is computed if it is not given."""
        digest, size = digest or digest_of(data).hex(), len(data)
        if size <= INLINE:
            content = bytes(data)
            self._note(digest, content)
            return Kept(digest, size, content)
        self._note(digest, None)
        if self._synced.get(digest, -1) >= sync:  # nor need one wait for somebody who syncs it
            return Kept(digest, size, None)
        # files that this process did not write are not trusted: a loss of power may have cut them
        with self._alone(digest):
            if self._synced.get(digest, -1) < sync:
                if sync and digest in self._synced:
                    self._sync(digest)
                else:
                    replace_file(self.path(digest), data, sync=sync)
                    self._synced[digest] = False
                    self.grown += size
                if sync:
                    sync_directory(self.directory)
                self._synced[digest] = sync
                self._whole.add(digest)
        return Kept(digest, size, None)

    def _alone(self, digest: str) -> threading.Lock:
        return self._writing[int(digest[0], 16)]

    def _sync(self, digest: str) -> None:
        path = self.path(digest)
        with readable_errors(path):
            file = os.open(path, os.O_RDONLY)
            try:
                sync_file(file)
            finally:
                os.close(file)

    def _note(self, digest: str, content: bytes | None) -> None:
        with self._lock:
            before = self._fresh.get(_checked(digest))
            self._fresh[digest] = _Fresh(self._now(), content, 1 if before is None else before.times + 1)

    def incoming(self, digest: str, size: int, sender: str) -> Incoming:
        """Begin an upload, or go on with one that broke off. An earlier one of the same sender that is open ends.

        Args:
            digest: of the whole.
            size: of the whole, bytes.
            sender: who sends it; nobody else's upload of the same blob is touched.
        """
        path = self._arrival(digest, sender)
        with self._alone(digest):
            before = self._uploads.get(path.name)
            if before is not None:
                before.close()
            made = self._uploads[path.name] = Incoming(path, digest, size, kept=self._take, closed=self._closed)
            with suppress(OSError):
                os.utime(path, (self._now(), self._now()))
        return made

    def received(self, digest: str, sender: str) -> int:
        """How many bytes of an unfinished upload are here, from the first on."""
        try:
            return self._arrival(digest, sender).stat().st_size
        except OSError:
            return 0

    def _arrival(self, digest: str, sender: str) -> Path:
        return self._arriving / f"{_checked(digest)}.{hashlib.sha256(sender.encode()).hexdigest()[:16]}"

    def _take(self, path: Path, digest: str, size: int) -> Kept:
        content = None
        with readable_errors(path):
            if size <= INLINE:
                content = path.read_bytes()
            self._note(digest, content)
            if content is None:
                os.utime(path, (self._now(), self._now()))
                os.replace(path, self.path(digest))
            else:
                os.unlink(path)
        if content is None:
            sync_directory(self.directory)
            self._synced[digest] = True
            self._whole.add(digest)
            self.grown += size
        return Kept(digest, size, content)

    def _closed(self, upload: Incoming) -> None:
        name = upload.path.name
        with self._lock:
            if self._uploads.get(name) is upload:  # and not one that has taken its place
                del self._uploads[name]

    # --- what is named, and what is not ------------------------------------------------------

    def settle(self, kept: Iterable[Kept]) -> None:
        """Make the files among these outlive a loss of power: they are about to be named."""
        # what another process left may not have been synced either
        late = [one.digest for one in kept if one.content is None and not self._synced.get(one.digest)]
        for digest in late:
            with self._alone(digest):
                self._sync(digest)
        if late:
            sync_directory(self.directory)
        for digest in late:
            self._synced[digest] = True

    def named(self, digests: Iterable[str]) -> None:
        """These are named in the database now, and durable."""
        with self._lock:
            for digest in digests:
                if self._lately is not None:
                    self._lately.add(digest)
                fresh = self._fresh.pop(digest, None)
                if fresh is not None and fresh.times > 1:  # somebody else is about to name it
                    self._fresh[digest] = fresh._replace(times=fresh.times - 1)

    def let_go(self, digest: str, sender: str) -> None:
        """Who has sent this needs it no more. It goes, if nobody else has kept it and nothing names it."""
        self._give_up(self._arrival(digest, sender).name, math.inf)
        self.named([digest])
        with self._lock:
            aside = self._aside(digest) if self._row(_SIZE, digest) is None else None
        self._remove(aside)

    def fresh(self, age: float) -> frozenset[str]:
        """What was kept within so many seconds, or is being sent; what is older is forgotten."""
        with self._lock:
            since = self._now() - age
            self._fresh = {digest: kept for digest, kept in self._fresh.items() if kept.time > since}
            return frozenset(self._fresh)

    def sweep(self, gone: Iterable[str], named: Callable[[], frozenset[str]], age: float) -> tuple[int, int]:
        """Remove files. One thread at a time; others go on meanwhile.

        Args:
            gone: blobs that nothing names any more.
            named: gives the digests of all files that something names.
            age: seconds after which a file goes that nothing has named yet.

        Returns:
            Bytes of files that were not in the database, and how many unfinished uploads went.
        """
        with self._lock:
            self.grown, self._lately = 0, set()
            self.fresh(age)
        try:
            needed, before = named(), self._now() - age
            for digest in gone:
                if digest not in needed:
                    self._drop(digest)
            size = 0
            for entry in _files(self.directory):
                match = _FILE.fullmatch(entry.name)
                if match is not None and match[1] not in needed and _changed(entry) < before:
                    size += self._drop(match[1], match[2] or "")
        finally:
            with self._lock:
                self._lately = None
        names = [entry.name for entry in _files(self._arriving) if _ARRIVING.fullmatch(entry.name)]
        return size, sum(self._give_up(name, before) for name in names)

    def _drop(self, digest: str, more: str = "") -> int:
        """Remove the file of a blob, unless somebody is about to name it or just has; gives its bytes."""
        with self._lock:
            aside = self._aside(digest, more)
        size = _size(aside) if aside is not None else 0
        self._remove(aside)  # which may take long, and holds nobody up
        return size

    def _aside(self, digest: str, more: str = "") -> Path | None:
        """Give a file that is to go another name of this form; None: it stays."""
        path, aside = self.path(digest), self.path(secrets.token_hex(32))
        path, aside = path.with_name(path.name + more), aside.with_name(aside.name + TEMPORARY)
        if digest in self._fresh or digest in (self._lately or ()) or is_copied(self.directory):
            return None
        alone = self._alone(digest)
        if not alone.acquire(blocking=False):  # whoever has it may wait for somebody who waits for us: the next time
            return None
        try:
            os.rename(path, aside)
            self._forget(digest)
        except OSError:  # it has gone, or its system keeps what somebody looks at
            return None
        finally:
            alone.release()
        return aside

    def _give_up(self, name: str, before: float) -> bool:
        """Forget an upload, if it has not gone on since then."""
        path = self._arriving / name
        with self._alone(name):
            try:
                if path.stat().st_mtime >= before:
                    return False
            except FileNotFoundError:
                return False
            upload = self._uploads.get(name)
            if upload is not None:
                upload.close()
            self._remove(path)
        return True

    def _remove(self, path: Path | None) -> None:
        if path is not None:
            with readable_errors(path), suppress(FileNotFoundError):
                remove(path)

    def _forget(self, digest: str) -> None:
        self._synced.pop(digest, None)
        self._whole.discard(digest)

    def close(self) -> None:
        """Let go of the uploads."""
        for upload in list(self._uploads.values()):
            upload.close()


def _files(directory: Path) -> list[os.DirEntry[str]]:
    with readable_errors(directory), os.scandir(directory) as entries:
        return [entry for entry in entries if entry.is_file(follow_symlinks=False)]


def _changed(entry: os.DirEntry[str]) -> float:
    """When a file was written last; one that has just gone is as good as new."""
    try:
        return entry.stat().st_mtime
    except FileNotFoundError:
        return math.inf


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _checked(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise Rejected(f"{digest[:80]!r} is no digest", advice="it is 64 of 0-9 and a-f")
    return digest


__all__ = ["BLOBS", "SUFFIX", "ServerBlobs"]
