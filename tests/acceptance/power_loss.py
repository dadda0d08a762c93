"""What a disk holds after a loss of power: surely what was synchronised, and perhaps more.

A file's bytes are sure after `os.fsync` of the file, a name after `os.fsync` of its directory. Of what came later each
file and each name may have reached the disk or not, on its own; of bytes that were written a part, or zeros in their
place. A real file system forgets less than that. SQLite, which synchronises by itself, is believed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
from pathlib import Path

BELIEVED = "clients.sqlite"
rename = os.replace  # the real one; resumable.py counts the calls of others


class Synchronised:
    """What of a directory is sure to be on the disk; kept in another directory beside it."""

    def __init__(self, directory: str) -> None:
        self.root = Path(directory)
        self.kept = self.root.with_name(self.root.name + ".synchronised")
        self.kept.mkdir(exist_ok=True)

    def watch(self) -> None:
        """Take note of every `os.fsync` in this process."""
        real = os.fsync

        def fsync(file: int) -> None:
            real(file)
            path = Path(os.readlink(f"/proc/self/fd/{file}"))
            if path == self.root or self.root in path.parents:
                self.note(path)

        os.fsync = fsync  # type: ignore[assignment]  # we give numbers only

    def note(self, path: Path) -> None:
        """This file's bytes, or this directory's names, are sure; in one step, for another thread may die meanwhile."""
        if path.is_dir():
            names = {entry.name: self._hold(Path(entry.path)) for entry in os.scandir(path) if entry.is_file()}
            (self.kept / "new").write_text(json.dumps(names))
            rename(self.kept / "new", self.kept / f"names-{path.relative_to(self.root).name}")
        else:
            shutil.copyfile(path, self.kept / "new")
            rename(self.kept / "new", self.kept / f"bytes-{self._hold(path)}")

    def _hold(self, path: Path) -> int:
        """Keep a second name of the file, so that its number is not given to another."""
        number = path.stat().st_ino
        if not (self.kept / f"held-{number}").exists():
            os.link(path, self.kept / f"held-{number}")
        return number

    def lose_power(self, rng: random.Random) -> None:
        """Make of the directory what may be left of it."""
        for directory in (self.root, self.root / "blobs"):
            if directory.is_dir():
                self._lose(directory, rng)
        shutil.rmtree(self.kept)
        self.kept.mkdir()
        for directory in (self.root, self.root / "blobs"):  # what is there now is sure
            if directory.is_dir():
                self.note(directory)
                for path in directory.iterdir():
                    if path.is_file():
                        self.note(path)

    def _lose(self, directory: Path, rng: random.Random) -> None:
        listed = self.kept / f"names-{directory.relative_to(self.root).name}"
        sure: dict[str, int] = json.loads(listed.read_text()) if listed.exists() else {}
        now = {p.name: self._hold(p) for p in directory.iterdir() if stat.S_ISREG(p.stat().st_mode)}
        left: dict[str, bytes] = {}
        for name in sorted(sure.keys() | now.keys()):
            if name.startswith(BELIEVED):
                continue
            number = rng.choice([sure.get(name), now.get(name)])
            if number is not None:
                left[name] = self._bytes(number, rng)
            (directory / name).unlink(missing_ok=True)
        for name, data in left.items():
            (directory / name).write_bytes(data)

    def _bytes(self, number: int, rng: random.Random) -> bytes:
        now = (self.kept / f"held-{number}").read_bytes()
        copy = self.kept / f"bytes-{number}"
        sure = copy.read_bytes() if copy.exists() else b""
        same = next((i for i, (a, b) in enumerate(zip(sure, now, strict=False)) if a != b), min(len(sure), len(now)))
        if same == len(now) == len(sure):
            return now
        part = rng.randint(same, len(now)) if len(now) > same else same
        zeros = now[:same] + b"\0" * (part - same) + now[part:]
        return rng.choice([sure, now, now[:part], zeros])
