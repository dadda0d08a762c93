"""The owner's proof: what the node was asked, what it refused, and what has left it.

JSON lines, each behind a checksum that covers all lines before it, in files ``journal-000001`` and so on; the first
line of a file repeats the last checksum of the file before, so the chain does not end where a file does.

    {"number": 7, "time": 1764313981.2, "event": "sent", "run": "...", "blobs": [{"digest": "...", "bytes": 400}], ...}

A line that is not yet on the disk when it counts lies in the outbox's database, beside the answer it speaks of; see
`umbel.node.outbox`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, final

from umbel.errors import CorruptFile
from umbel.store.durable import readable_errors, sync_directory, sync_file
from umbel.store.journal import START, Journal, Line, read_lines

_FILE = re.compile(r"journal-(\d{6})")
_CONTINUES = "continues"


@final
class OwnersJournal:
    """The journal in one directory. One process writes it, anyone may read it meanwhile.

    Args:
        directory: where its files lie; it is made if it does not exist.
        largest: bytes of a file after which another is begun.
        kept: numbers of lines that are kept elsewhere, too: a loss of power may have damaged these.

    Attributes:
        number: of the last line; 0: there is none.

    Raises:
        CorruptFile: a line in the last file is damaged that is not its last.
    """

    def __init__(self, directory: Path, *, largest: int, kept: Collection[int] = ()) -> None:
        self._directory, self._largest = directory, max(1, largest)
        with readable_errors(directory):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        files = _files(directory)
        self._index = _index_of(files[-1]) if files else 1
        self._file = Journal(self._path(self._index), precious=True)
        self._last, self.number = START, 0
        lines = _lines_of(self._file.path, kept)
        if lines:
            self._last = lines[-1]
            self.number = int(self._last.value["number"])
        elif len(files) > 1:  # the process died between making this file and its first line
            before = _read(files[-2])
            self.number = int(before[-1].value["number"])
            self._continue(before[-1])

    def _path(self, index: int) -> Path:
        return self._directory / f"journal-{index:06d}"

    def append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Write lines down; they outlive the end of the process, and after `sync` a loss of power.

        Args:
            lines: what happened; each has its "number", one more than that of the line before.

        Raises:
            DiskFull: there is no room; of the rest of the lines nothing is there.
        """
        for line in lines:
            if self._last.end >= self._largest:
                self._rotate()
            self._last = self._file.append(line, after=self._last, sync=False)
            self.number = line["number"]

    def _rotate(self) -> None:
        self.sync()
        last = self._last
        self._file.close()
        self._index += 1
        self._file = Journal(self._path(self._index), precious=True)
        self._continue(last)

    def _continue(self, before: Line) -> None:
        first = {"number": self.number, "event": _CONTINUES, "check": f"{before.check:08x}"}
        self._last = self._file.append(first, after=START, sync=True)
        sync_directory(self._directory)

    def sync(self) -> None:
        """What was appended outlives a loss of power."""
        with readable_errors(self._file.path), open(self._file.path, "rb") as file:
            sync_file(file.fileno())

    def close(self) -> None:
        """Sync, and close the file."""
        self.sync()
        self._file.close()


def read_journal(directory: Path, *, since: int = 0) -> Iterator[Mapping[str, Any]]:
    """Lines of a node's journal, oldest first, also while the node runs; up to the first that is damaged.

    Args:
        directory: where its files lie.
        since: leave out lines up to this number.

    Raises:
        CorruptFile: a line is damaged, missing or out of its place; says which.
    """
    before: Line | None = None
    for path in _files(directory):
        lines, damage = _whole(path)
        for i, line in enumerate(lines):
            value = line.value
            if value.get("event") == _CONTINUES and i == 0:
                if before is not None and value["check"] != f"{before.check:08x}":
                    raise CorruptFile(
                        f"{path} does not continue the file before it",
                        advice="lines are missing at the end of that file, or it is another node's: look into a backup",
                    )
            elif value["number"] > since:
                yield value
        if damage is not None:
            raise damage
        before = lines[-1] if lines else before


def _whole(path: Path) -> tuple[list[Line], CorruptFile | None]:
    """The lines in front of the first that is damaged; and what is said of that."""
    try:
        return _read(path), None
    except CorruptFile as damage:
        return read_lines(path, precious=False), damage


def _read(path: Path) -> list[Line]:
    advice = f"restore it from a backup; or move {path} elsewhere, as it is: the node then goes on without its lines"
    return read_lines(path, precious=True, advice=advice)


def _lines_of(path: Path, kept: Collection[int]) -> list[Line]:
    """All lines of the last file, up to what a loss of power has damaged."""
    try:
        return _read(path)
    except CorruptFile:
        lines = read_lines(path, precious=False)
        if (lines[-1].value["number"] if lines else 0) + 1 not in kept:
            raise
        return lines


def _files(directory: Path) -> list[Path]:
    with readable_errors(directory):
        if not directory.is_dir():
            return []
        return sorted(path for path in directory.iterdir() if _FILE.fullmatch(path.name))


def _index_of(path: Path) -> int:
    match = _FILE.fullmatch(path.name)
    assert match is not None
    return int(match[1])


__all__ = ["OwnersJournal", "read_journal"]
