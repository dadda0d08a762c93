"""A run directory: a journal, blobs named by their digest, and clients' states in SQLite.

    run.json                the recipe, for people and for the check on resuming
    journal                 commits, and the exchanges since the last one
    blobs/<digest>.safetensors   arrays that the journal names
    clients.sqlite          clients' states
    initial.safetensors     the initial model
    best.safetensors        the best model so far, if the run keeps one
    model.safetensors       the final model, when the run has ended
    lock                    held while a process works here

What a method was given is on the disk when it returns. The last two commits can be read back.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, final

from umbel.arrays import Arrays
from umbel.codec import Json, decode, encode
from umbel.engine.federation import model_of
from umbel.engine.ports import Commit, Record
from umbel.errors import CorruptFile, FormatError
from umbel.store.client_states import FileClientStates
from umbel.store.journal import Journal, readable_errors
from umbel.store.lock import DirectoryLock

_LAZY = "state", "transforms", "clients"  # of a commit; read for the last one only


@final
class FileStore:
    """The `Store` of a run directory.

    Args:
        directory: made if it does not exist.

    Raises:
        InUse: another process works there.
        CorruptFile: something in it is damaged.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory).absolute()
        self._blobs = self.directory / "blobs"
        with readable_errors(self.directory):
            self._blobs.mkdir(parents=True, exist_ok=True)
        self._lock = DirectoryLock(self.directory)
        try:
            self._journal = Journal(self.directory / "journal")
            self.client_states = FileClientStates(self.directory / "clients.sqlite")
            self._read()
        except BaseException:
            self._lock.close()
            raise

    def _read(self) -> None:
        entries = self._journal.read()
        commits = [(end, data) for end, data in entries if data["kind"] == "commit"]
        while commits and (missing := self._missing(commits[-1][1])):
            if len(commits) > 1 and not self._missing(commits[-2][1]):
                commits.pop()
                self._journal.cut(commits[-1][0])
                entries = [e for e in entries if e[0] <= commits[-1][0]]
            else:
                raise CorruptFile(f"{missing} is gone", advice="restore it from a backup, or start in another dir=")
        self._commits = [data for _, data in commits]
        last = commits[-1][0] if commits else 0
        self._records = [data for end, data in entries if end > last and data["kind"] == "record"]
        self._records = self._records[: self._whole(self._records)]
        self.status: str = next((d["status"] for end, d in reversed(entries) if d["kind"] == "end" and end > last), "")
        self._go_back()

    def _whole(self, records: Sequence[Json]) -> int:
        """How many of the records have all their blobs; the rest is done again."""
        for n, data in enumerate(records):
            if self._missing(data):
                return n
        return len(records)

    def _go_back(self) -> None:
        """Clients' states as of the last exchange that the journal knows."""
        known = (*self._commits[-1:], *self._records)
        if self.client_states.written < max((data["states"] for data in known), default=0):
            raise CorruptFile(
                f"{self.directory / 'clients.sqlite'} is older than the journal",
                advice="restore it from a backup together with the journal, or start in another dir=",
            )
        self.client_states.go_back(max((data["content"]["sequence"] for data in known), default=0))
        self._set_floor()

    def _set_floor(self) -> None:
        self.client_states.floor = self._commits[-2]["content"]["sequence"] if len(self._commits) > 1 else 0

    # --- the recipe --------------------------------------------------------------------------

    @property
    def recipe(self) -> Json:
        """What ``begin`` wrote; None in a new directory."""
        path = self.directory / "run.json"
        if not path.exists():
            return None
        try:
            return json.loads(path.read_bytes())
        except ValueError as error:
            raise CorruptFile(f"{path} is damaged", advice="restore it from a backup, or give another dir=") from error

    def begin(self, recipe: Json) -> None:
        """Write the recipe down, or a changed one."""
        self._write_text("run.json", json.dumps(recipe, indent=2) + "\n")

    def keep_initial(self, model: Arrays | None) -> None:
        """Keep the initial model."""
        if model is not None:
            with readable_errors(self.directory / "initial.safetensors"):
                model.save(self.directory / "initial.safetensors")

    def initial(self) -> Arrays | None:
        """The initial model that was kept."""
        path = self.directory / "initial.safetensors"
        return Arrays.load(path) if path.exists() else None

    # --- the engine's store ------------------------------------------------------------------

    def commits(self) -> Sequence[Commit]:
        """All commits; all but the last without their state."""
        *before, last = [d["content"] for d in self._commits] or [None]
        if last is None:
            return ()
        light = [
            {k: v for k, v in content.items() if k not in _LAZY} | {"state": None, "best": None} for content in before
        ]
        return [self._commit_of(c) for c in (*light, last | {"best": None})]

    def _commit_of(self, content: Json) -> Commit:
        return Commit(**{k: self._decode(v) for k, v in content.items()})

    def records(self) -> Sequence[Record]:
        """The exchanges finished since the last commit."""
        return [Record(**{k: self._decode(v) for k, v in d["content"].items()}) for d in self._records]

    def record(self, record: Record) -> None:
        """Keep a finished exchange until its round commits."""
        self._append("record", record, sync=False)

    def commit(self, commit: Commit) -> None:
        """Keep the end of a round; then drop the blobs that only older commits needed."""
        if commit.best is not None:
            with readable_errors(self.directory / "best.safetensors"):
                commit.best.save(self.directory / "best.safetensors")
        self._commits.append(self._append("commit", replace(commit, best=None), sync=True))
        self._records.clear()
        self._drop_blobs()
        self._set_floor()

    def _append(self, kind: str, what: Record | Commit, *, sync: bool) -> Json:
        blobs: list[str] = []

        def place(arrays: Arrays) -> str:
            blobs.append(self._keep_blob(arrays))
            return blobs[-1]

        content = {f.name: encode(getattr(what, f.name), place, where=f"the {kind}'s {f.name}") for f in fields(what)}
        entry = {"kind": kind, "content": content, "blobs": blobs, "states": self.client_states.written}
        self._journal.append(entry, sync=sync)
        if kind == "record":
            self._records.append(entry)
        return entry

    def _keep_blob(self, arrays: Arrays) -> str:
        digest = arrays.digest()
        path = self._blob(digest)
        if not path.exists():
            with readable_errors(path):
                arrays.save(path)
        return digest

    def _decode(self, data: Json) -> Any:
        return decode(data, self._fetch, allow=lambda _: True)

    def _fetch(self, digest: str) -> Arrays:
        path = self._blob(digest)
        advice = f"move {path.name} away and run again: the run then goes on from the commit before it"
        try:
            arrays = Arrays.load(path)
        except FormatError as error:
            raise CorruptFile(f"{path} is damaged: {error.what}", advice=advice) from error
        if arrays.digest() != digest:
            raise CorruptFile(
                f"{path} is damaged: its bytes do not have the digest that it is named for", advice=advice
            )
        return arrays

    def _blob(self, digest: str) -> Path:
        return self._blobs / f"{digest}.safetensors"

    def _missing(self, entry: Mapping[str, Any]) -> str:
        return next((str(self._blob(d)) for d in entry["blobs"] if not self._blob(d).exists()), "")

    def _drop_blobs(self) -> None:
        needed = {f"{digest}.safetensors" for entry in self._commits[-2:] for digest in entry["blobs"]}
        for old in _names(self._blobs) - needed:
            (self._blobs / old).unlink(missing_ok=True)

    # --- the end -----------------------------------------------------------------------------

    def finish(self, status: str, state: Any) -> None:
        """The run has ended: say so, and lay the final model where people look for it."""
        model = model_of(state)
        if model is not None:
            with readable_errors(self.directory / "model.safetensors"):
                model.save(self.directory / "model.safetensors")
        self._journal.append({"kind": "end", "status": status}, sync=True)
        self.status = status

    def best(self) -> Arrays | None:
        """The best model so far, if the run keeps one."""
        path = self.directory / "best.safetensors"
        return Arrays.load(path) if path.exists() else None

    def close(self) -> None:
        """Let go of the directory."""
        self._journal.close()
        self.client_states.close()
        self._lock.close()

    def _write_text(self, name: str, text: str) -> None:
        path = self.directory / name
        temporary = path.with_suffix(".tmp")
        with readable_errors(path):
            try:
                with open(temporary, "w", encoding="utf-8") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)


def _names(directory: Path) -> set[str]:
    entries: Iterable[os.DirEntry[str]] = os.scandir(directory)
    return {entry.name for entry in entries}


__all__ = ["FileStore"]
