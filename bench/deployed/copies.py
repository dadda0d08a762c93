"""D6: the copies of a model's bytes that our own code makes on their way to a node and back, found in the source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import umbel
from bench.figures import Figure

SOURCE = Path(umbel.__file__).parent


class Copy(NamedTuple):
    """A line of the source that copies, or writes to a file, each byte once.

    Attributes:
        file: below src/umbel.
        line: what stands there.
        what: where from and where to.
    """

    file: str
    line: str
    what: str


# Not here: what gRPC does inside, what mapping a file costs, and what training and the mean do themselves.
COPIES = (
    Copy("store/sql/blobs.py", "replace_file(self.path(digest), data, sync=sync)", "down: model to the server's file"),
    Copy("link/dispatch.py", "ahead(answers, read_frame)", "down: server's file, mapped, to a message"),
    Copy("node/cache.py", "write_all(file, piece)", "down: message to the node's file, which the app's process maps"),
    Copy(
        "node/arrays_by_file.py",
        "beside.submit(replace_file, path, arrays.to_bytes(), sync=False)",
        "up: update to the node's file",
    ),
    Copy("wire/frames.py", "there = data.readinto(place[len(head) :])", "up: node's file to a message"),
    Copy("store/sql/incoming.py", "write_all(self._file, data)", "up: message to the server's file, which is mapped"),
)


def copies(_: Path) -> Iterator[Figure]:
    """Count them, with the lines where they are now.

    Raises:
        RuntimeError: a line is no longer there.
    """
    found = [f"{copy.what} ({copy.file}:{number_of(copy)})" for copy in COPIES]
    yield Figure(figure="D6 copies, there and back", value=len(found), unit="copies", budget=4, detail="; ".join(found))


def number_of(copy: Copy) -> int:
    """The line in its file where it stands.

    Raises:
        RuntimeError: it does not.
    """
    for number, line in enumerate((SOURCE / copy.file).read_text().splitlines(), 1):
        if copy.line in line:
            return number
    raise RuntimeError(f"{copy.file} has no line {copy.line!r} any more: look how it copies now, and correct copies.py")
