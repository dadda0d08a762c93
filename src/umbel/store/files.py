"""A run directory: a journal, blobs named by their digest, and clients' states in SQLite.

    run.json                     the recipe, for people and for the check on resuming
    journal                      one line per commit, and a last one when the run has ended
    exchanges                    what was asked and answered since the last commit
    blobs/<digest>.safetensors   the arrays that these two name
    clients.sqlite               clients' states
    initial.safetensors          the initial model
    best.safetensors             the best model so far, if the run keeps one
    model.safetensors            the final model, when the run has ended
    umbel.lock                   held while a process works here; tells a run directory from others

A commit is made by its line in the journal, written last and in one piece; what it names is on the disk before. It is
written while the next round goes on, one commit at a time, so that of a run that dies the last one may be missing. When
the directory is opened, all else is made to agree with the last line that is whole: newer states of clients are
dropped, exchanges since another commit are forgotten, blobs that nothing names are removed. The last two commits can be
read back; there is no way back beyond them.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, final

from umbel.arrays import Arrays
from umbel.codec import Json, decode, loaded_classes
from umbel.engine.federation import model_of
from umbel.engine.ports import Commit, Record
from umbel.errors import CorruptFile
from umbel.store.blobs import Blobs, read_whole
from umbel.store.client_states import FileClientStates
from umbel.store.content import Content
from umbel.store.durable import TEMPORARY, readable_errors, replace_file, sync_directory
from umbel.store.journal import START, Journal, Line
from umbel.store.lock import DirectoryLock
from umbel.store.run_file import FILES, claim, read_run_file, write_run_file
from umbel.store.writer import GoOn, Work, Writer

logger = logging.getLogger("umbel")
_COMMIT, _END = b'{"kind":"commit"', b'{"kind":"end"'
_SOON = 0.1  # seconds; a round's own commit mostly comes within that of its last exchange
_NOTHING = Commit(rows=(), state=None)
_LAZY: Mapping[str, Json] = {"state": None, "transforms": {}, "best": None}  # of a commit; read of the last one only


@final
@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the journal or of the exchanges, without its content.

    Attributes:
        line: where it stands.
        sequence: number of the last exchange it knows of.
        states: number of the last exchange before it that gave states of clients.
        round: of a commit, the last round; of an exchange, that of the commit it follows.
        blobs: what it names.
        best: the best model so far.
        opening: what is kept for the whole run.
    """

    line: Line
    sequence: int = 0
    states: int = 0
    round: int = 0
    blobs: Sequence[str] = ()
    best: str | None = None
    opening: Sequence[str] = ()

    @classmethod
    def of(cls, line: Line) -> Entry:
        """The entry in a line."""
        value = line.value
        return cls(line, **{f.name: value[f.name] for f in fields(cls)[1:]})

    @property
    def needed(self) -> set[str]:
        """All blobs that must be there while this is one of the last two commits, or an exchange since."""
        return {*self.blobs, *self.opening, *([self.best] if self.best else [])}


@final
@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended.

    Attributes:
        status: "finished", or why it ended early.
        rounds: how many it was to have.
        rest: what came after the last commit, without rows and state.
    """

    status: str
    rounds: int | None
    rest: Commit


@final
class FileStore:
    """The `Store` of a run directory.

    Args:
        directory: made if it does not exist.

    Raises:
        InUse: another process works there.
        CorruptFile: something in it is damaged.
        StoreError: it cannot be a run directory.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory).absolute()
        claim(self.directory)
        with ExitStack() as opened:
            opened.callback(DirectoryLock(self.directory).close)
            sync_directory(self.directory)  # the lock's name comes before all others, for `claim` looks for it
            self._blobs = Blobs(self.directory / "blobs")
            self._journal = Journal(self.directory / "journal", precious=True)
            opened.callback(self._journal.close)
            self._exchanges = Journal(self.directory / "exchanges", precious=False)
            opened.callback(self._exchanges.close)
            self.client_states = FileClientStates(self.directory / "clients.sqlite")
            opened.callback(self.client_states.close)
            self._writer = Writer()
            self._remove_leftovers()
            self._recover()
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Let go of the directory, when all is written."""
        try:
            self._writer.wait()
        finally:
            self._writer.close()  # should Ctrl-C come here, the files stay open: somebody writes into them
            self._opened.close()

    # --- opening -----------------------------------------------------------------------------

    def _remove_leftovers(self) -> None:
        """What a killed process had not yet given its name."""
        for name in FILES:
            with readable_errors(self.directory / name):
                (self.directory / f"{name}{TEMPORARY}").unlink(missing_ok=True)

    def _recover(self) -> None:
        lines = self._journal.read()
        self._end = lines[-1] if lines and lines[-1].text.startswith(_END) else None
        commits = [line for line in lines if line.text.startswith(_COMMIT)]
        self._commits = tuple(Entry.of(line) for line in commits[-2:])
        if missing := self._blobs.missing(self._last.blobs):
            self._give_up_last_commit(missing, commits[:-1])
        self._records = self._whole_records()
        self._go_back()
        self._tidy()
        self._begun = (self._records or (self._last,))[-1].sequence  # what was last given to be written
        self._set_points()

    def _give_up_last_commit(self, missing: Path, before: Sequence[Line]) -> None:
        if before and self._blobs.missing(self._commits[0].blobs):
            raise CorruptFile(f"{missing} is gone", advice=self._start_over)
        logger.warning("commit-lost: %s is gone; the run goes on from the commit before it", missing)
        self._commits = tuple(Entry.of(line) for line in before[-2:])
        self._end = None

    @property
    def _start_over(self) -> str:
        return (
            "restore the directory from a backup; or give another dir=; or remove "
            f"{self._journal.path}: the run then starts over from its initial model"
        )

    @property
    def _last(self) -> Entry:
        """The last commit."""
        return self._commits[-1] if self._commits else Entry(START)

    def _whole_records(self) -> tuple[Entry, ...]:
        """The exchanges since the last commit. From the first that is not whole on they are done again."""
        found: list[Entry] = []
        if self._end is not None:
            return ()  # asked after the last round; should the run go on, that is not where it stands
        for entry in map(Entry.of, self._exchanges.read()):
            whole = all(read_whole(self._blobs.path(digest), digest) is not None for digest in entry.blobs)
            if entry.round != self._last.round or entry.states > self.client_states.written or not whole:
                break
            found.append(entry)
        return tuple(found)

    def _go_back(self) -> None:
        """Clients' states as of the last exchange that is known."""
        if self.client_states.written < self._last.states:
            path = self.directory / "clients.sqlite"
            state = "is older than the journal beside it" if path.exists() else "is gone"
            raise CorruptFile(f"{path} {state}", advice=self._start_over)
        sequence = (self._records or (self._last,))[-1].sequence
        content = read_run_file(self.directory / "run.json")
        run = content["run"] if content else ""
        if sequence and self.client_states.written and self.client_states.run != run:  # else all states go
            path = self.directory / "clients.sqlite"
            raise CorruptFile(f"{path} is that of another run", advice=self._start_over)
        self.client_states.run = run
        self.client_states.go_back(sequence)

    def _tidy(self) -> None:
        """Remove blobs that nothing names."""
        entries = (*self._commits, *self._records)
        self._blobs.sweep({digest for entry in entries for digest in entry.needed})

    def _set_points(self, *more: int) -> None:
        """To which exchanges the clients' states may have to go back; other versions go when new ones come.

        What is being written may never be on the disk, and may be there already.
        """
        start = [] if len(self._commits) > 1 else [0]
        known = {entry.sequence for entry in (*self._commits, *self._records)}
        self.client_states.points = sorted({*start, *known, self._begun, *more})

    # --- the recipe --------------------------------------------------------------------------

    @property
    def recipe(self) -> Json:
        """What ``begin`` wrote; None in a new directory.

        Raises:
            CorruptFile: it is damaged, or gone.
        """
        path = self.directory / "run.json"
        found = read_run_file(path)
        if found is None and self._commits:
            raise CorruptFile(f"{path} is gone", advice="restore it from a backup, or start in another dir=")
        return found["recipe"] if found else None

    def begin(self, recipe: Json, initial: Arrays | None) -> None:
        """Write down the recipe and the initial model."""
        if initial is not None:
            replace_file(self.directory / "initial.safetensors", initial.to_bytes())
            sync_directory(self.directory)
        self.client_states.run = secrets.token_hex(8)
        self._write_run_file(recipe, initial.digest() if initial is not None else None)

    def change(self, recipe: Json) -> None:
        """Write down another recipe; the initial model stays."""
        self._write_run_file(recipe, read_run_file(self.directory / "run.json")["initial"])

    def _write_run_file(self, recipe: Json, initial: str | None) -> None:
        run = self.client_states.run
        content = {"umbel": recipe["umbel"], "run": run, "initial": initial, "recipe": recipe}
        write_run_file(self.directory / "run.json", content)
        sync_directory(self.directory)

    def initial(self, made: Arrays | None) -> Arrays | None:
        """The initial model that ``begin`` wrote.

        Args:
            made: the initial model as the program makes it now; mends the file if it is the same.

        Raises:
            CorruptFile: it is damaged or gone.
        """
        path = self.directory / "initial.safetensors"
        digest = read_run_file(self.directory / "run.json")["initial"]
        if digest is None:
            return None
        found = read_whole(path, digest)
        if found is None and made is not None and made.digest() == digest:
            replace_file(path, made.to_bytes())
            found = made
        if found is None:
            state = "damaged" if path.exists() else "gone"
            raise CorruptFile(f"{path} is {state}", advice="restore it from a backup, or start in another dir=")
        return found

    # --- the engine's store ------------------------------------------------------------------

    @property
    def done(self) -> int:
        """The last round that was committed."""
        self._writer.wait()
        return self._last.round

    def commits(self) -> Sequence[Commit]:
        """All commits; all but the last without their state.

        Raises:
            CorruptFile: the last one's state is damaged.
        """
        self._writer.wait()
        lines = [line for line in self._journal.read() if line.text.startswith(_COMMIT)]
        contents = [line.value["content"] for line in lines if line.end <= self._last.line.end]
        evaluated = max((i for i, content in enumerate(contents) if content["clients"]), default=-1)
        for i, content in enumerate(contents):
            content |= _LAZY if i < len(contents) - 1 else {"best": None}  # noqa: PLW2901
            content["clients"] = content["clients"] if i == evaluated else {}
        return [Commit(**self._decode_fields(content)) for content in contents]

    def records(self) -> Sequence[Record]:
        """The exchanges finished since the last commit."""
        self._writer.wait()
        return [Record(**self._decode_fields(entry.line.value["content"])) for entry in self._records]

    def record(self, record: Record) -> None:
        """Keep a finished exchange until its round commits.

        It is written while the run goes on, and not before it is clear that no commit follows at once, which would make
        it needless. Should the process die before that, or the power fail, it is done again.
        """
        self._writer.wait()
        if self._end is not None:  # the run goes on
            self._journal.cut(self._last.line)
            self._end = None
        content = Content.of(record, "exchange")
        entry = {"round": self._last.round, "best": None, "opening": [], **self._marks(record)}
        self._begin(record, lambda go_on: self._write_record(entry, content, go_on), delay=_SOON)

    def _write_record(self, entry: dict[str, Json], content: Content, go_on: GoOn) -> None:
        entry |= {"blobs": content.keep(self._blobs, sync=False, go_on=go_on), "content": content.json}
        after = self._records[-1].line if self._records else START
        line = self._exchanges.append(entry, after=after, sync=False)
        self._records = (*self._records, Entry.of(line))

    def mark(self, sequence: int) -> None:
        """A commit that ends with this exchange may come later; until then keep the clients' states of now."""
        self._set_points(sequence)

    def commit(self, commit: Commit) -> None:
        """Keep the end of a round; then remove what only older commits needed.

        It is written while the run goes on, and is on the disk before anything that is given later.
        """
        self._writer.wait(drop=True)  # the exchanges of this round are not needed any more
        content = Content.of(commit, "commit")
        entry = {"kind": "commit", "round": commit.rows[-1].round, **self._marks(commit)}
        self._begin(commit, lambda _: self._write_commit(entry, content))

    def _write_commit(self, entry: dict[str, Json], content: Content) -> None:
        if entry["round"] <= self._last.round:
            return  # Ctrl-C hid that it was kept
        entry |= {"blobs": content.keep(self._blobs, sync=True), "content": content.json}
        self._blobs.settle()
        entry["best"] = next(iter(content.digests("best")), self._last.best)
        entry["opening"] = [*self._last.opening, *content.digests("opening")]
        line = self._journal.append(entry, after=self._last.line, sync=True)
        self._commits = (*self._commits[-1:], Entry.of(line))
        self._records, self._end = (), None
        self._exchanges.cut(START)
        self._tidy()
        for best in content.arrays["best"]:
            replace_file(self.directory / "best.safetensors", best.to_bytes(), sync=False)

    def _marks(self, what: Record | Commit) -> dict[str, Json]:
        # a marked commit may come after later exchanges
        return {"sequence": what.sequence, "states": min(what.sequence, self.client_states.written)}

    def _begin(self, what: Record | Commit, work: Work, *, delay: float = 0.0) -> None:
        self._begun = what.sequence
        self._set_points()
        self._writer.begin(work, delay=delay)

    def _decode_fields(self, content: Mapping[str, Json]) -> dict[str, Any]:
        return {name: decode(value, self._fetch, allow=loaded_classes) for name, value in content.items()}

    def _fetch(self, digest: str) -> Arrays:
        before = self._commits[0].needed if len(self._commits) > 1 else set()
        advice = self._start_over
        if digest in self._last.needed - before:
            advice = (
                f"move {self._blobs.path(digest)} away and run again: the run then goes on from the commit before it"
            )
        return self._blobs.fetch(digest, advice=advice)

    def forget_records(self) -> None:
        """The exchanges since the last commit do not count."""
        self._writer.wait()
        self._exchanges.cut(START)
        self._records = ()
        self._go_back()
        self._begun = self._last.sequence

    # --- the end -----------------------------------------------------------------------------

    @property
    def ended(self) -> Ended | None:
        """How the run ended; None: it has not, or goes on."""
        self._writer.wait()
        if self._end is None:
            return None
        value = self._end.value
        return Ended(value["status"], value["rounds"], Commit(**self._decode_fields(value["content"])))

    def finish(self, status: str, state: Any, *, rounds: int | None, rest: Commit = _NOTHING) -> None:
        """The run of so many rounds has ended: say so, and lay the models where people look for them.

        Args:
            status: "finished", or why it ended early.
            state: what was committed last.
            rounds: how many it was to have.
            rest: what came after the last commit, without rows, state and a best model.
        """
        self._writer.wait()
        self.lay_out(state)
        sync_directory(self.directory)
        content = Content.of(rest, "end")
        content.keep(self._blobs, sync=True)
        end = {"kind": "end", "status": status, "rounds": rounds, "content": content.json}
        self._end = self._journal.append(end, after=self._last.line, sync=True)

    def lay_out(self, state: Any) -> None:
        """The final and the best model in files of their own; mends them if they are damaged or gone."""
        model = model_of(state)
        if model is not None:
            self._lay_out("model.safetensors", model)
        self.best()

    def best(self) -> Arrays | None:
        """The best model so far, if the run keeps one.

        Raises:
            CorruptFile: it is damaged.
        """
        digest = self._last.best
        if digest is None:
            return None
        arrays = read_whole(self._blobs.path(digest), digest)
        if arrays is None:  # the copy that lies there for people will do
            arrays = read_whole(self.directory / "best.safetensors", digest) or self._fetch(digest)
            self._blobs.keep(arrays, sync=True)
        self._lay_out("best.safetensors", arrays)
        return arrays

    def _lay_out(self, name: str, arrays: Arrays) -> None:
        path = self.directory / name
        if read_whole(path, arrays.digest()) is None:
            replace_file(path, arrays.to_bytes())


__all__ = ["FileStore"]
