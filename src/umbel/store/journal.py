"""An append-only file of JSON lines, each behind a checksum that covers the lines before it, too.

    <checksum, 8 hex digits> <JSON>

So a line that is damaged, missing or out of its place is noticed. A line that was only half written when the
process died is the last one; it is dropped. Anything else did not come from a crash, and is an error.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from umbel.arrays import Arrays
from umbel.errors import CorruptFile
from umbel.store.durable import BINARY, readable_errors, sync_file, write_all


@final
@dataclass(frozen=True, slots=True)
class Line:
    """A line of a journal.

    Attributes:
        end: the offset behind it.
        check: its checksum.
        text: its JSON.
    """

    end: int
    check: int
    text: bytes

    @property
    def value(self) -> Any:
        """What was appended."""
        return json.loads(self.text)


_BEGIN = re.compile(rb"\n[0-9a-f]{8} \S")  # what a lost sector leaves behind does not look like a line
START = Line(0, 0, b"null")
"""Stands for the line before the first."""


@final
class Journal:
    """The journal in one file. One process writes it.

    It does not remember its end: whoever appends says after which line. So whatever an append that was broken off
    (a full disk, Ctrl-C) left behind is gone with the next one.

    Args:
        path: of the file, which is made if it does not exist.
        precious: damage before the last line is an error; otherwise all from there on is dropped.
    """

    def __init__(self, path: Path, *, precious: bool) -> None:
        self.path, self._precious = path, precious
        with readable_errors(path):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | BINARY, 0o644)

    def read(self) -> list[Line]:
        """All lines that are whole.

        Raises:
            CorruptFile: a line that is not the last is damaged.
        """
        return read_lines(self.path, precious=self._precious)

    def cut(self, last: Line) -> None:
        """Drop what stands behind a line."""
        with readable_errors(self.path):
            if os.fstat(self._file).st_size > last.end:
                os.ftruncate(self._file, last.end)

    def append(self, value: Any, *, after: Line, sync: bool) -> Line:
        """Write one line; all of it or nothing.

        Args:
            value: JSON; `Arrays` in it stand as their digest.
            after: the line before it; what stands behind that is dropped.
            sync: outlive a loss of power, not only the end of the process.

        Raises:
            DiskFull: there is no room; the journal ends with ``after``.
        """
        text = json.dumps(value, separators=(",", ":"), default=Arrays.digest).encode()
        check = zlib.crc32(text, after.check)
        data = b"%08x %s\n" % (check, text)
        self.cut(after)
        try:
            with readable_errors(self.path):
                write_all(self._file, data)
                if sync:
                    sync_file(self._file)
        except BaseException:
            self.cut(after)
            raise
        return Line(after.end + len(data), check, text)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def read_lines(path: Path, *, precious: bool, advice: str = "") -> list[Line]:
    """All lines of a journal that are whole; changes nothing, so that anyone may look while a run writes.

    Args:
        path: of the file.
        precious: as in `Journal`.
        advice: what to do about a damaged line; "": what helps a run.

    Raises:
        CorruptFile: a line is damaged, another stands behind it, and the journal is precious.
    """
    with readable_errors(path):
        data = path.read_bytes()
    lines = [START]
    while (begin := lines[-1].end) < len(data):
        end = data.find(b"\n", begin) + 1 or len(data)
        line = _parse(data[begin:end], lines[-1])
        if line is None:
            if precious and _BEGIN.search(data, begin):
                raise CorruptFile(
                    f"{path}, line {len(lines)} is damaged",
                    advice=advice
                    or f"restore the directory from a backup; or give another dir=; or remove {path}: the run "
                    "then starts over from its initial model",
                )
            break
        lines.append(line)
    return lines[1:]


def _parse(raw: bytes, before: Line) -> Line | None:
    """The line, if it is whole and stands behind that one."""
    if raw[-1:] != b"\n" or raw[8:9] != b" ":
        return None
    text = raw[9:-1]
    check = zlib.crc32(text, before.check)
    return Line(before.end + len(raw), check, text) if raw[:8] == b"%08x" % check else None


__all__ = ["START", "Journal", "Line", "read_lines"]
