"""`umbel`, which writes down each commit and each sync of a file that it makes.

python -m bench.deployed.watched FILE server ...

A line of FILE: seconds since 1970, and what was done: "full" and "normal", commits that are and are not waited for
until they are on the disk; "sync", a file or directory that is synced by our own code.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Callable
from typing import Any


def watch(path: str) -> None:
    """Write down what happens from now on."""
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(what: str) -> None:
        os.write(out, f"{time.time()} {what}\n".encode())

    connect = sqlite3.connect

    def watched(*args: Any, **more: Any) -> Any:
        connection = connect(*args, **more)
        mode = ["full"]

        def statement(text: str) -> None:
            words = text.upper().replace("=", " ").split()
            if words[:2] == ["PRAGMA", "SYNCHRONOUS"]:
                mode[0] = words[2].lower().rstrip(";")
            elif words[:1] == ["COMMIT"]:
                note(mode[0])

        connection.set_trace_callback(statement)
        return connection

    def noting(call: Callable[[Any], None]) -> Callable[[Any], None]:
        def noted(file: Any) -> None:
            note("sync")
            call(file)

        return noted

    sqlite3.connect = sqlite3.dbapi2.connect = watched
    vars(os)["fsync"] = noting(os.fsync)
    vars(os)["fdatasync"] = noting(os.fdatasync)


if __name__ == "__main__":
    watch(sys.argv[1])
    sys.argv = ["umbel", *sys.argv[2:]]
    from umbel.cli import main

    main()
