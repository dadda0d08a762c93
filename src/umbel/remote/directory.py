"""The directory of a run that is done on a server: which run it is, and what came out.

    remote.json          the run's key and id, and what it was made from
    model.safetensors    the model, when the run has ended
    best.safetensors     the best one, if the run keeps it
    history.csv          one row a round

The same call with the same directory finds the same run again: the key makes it so, at the server. One process at a
time works in it.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from umbel.codec import Json
from umbel.errors import CorruptFile, RecipeChanged, UsageError
from umbel.recipe import differences
from umbel.result import Result
from umbel.store.durable import readable_errors, replace_file
from umbel.store.lock import NAME as LOCK
from umbel.store.lock import DirectoryLock

FILE = "remote.json"


@final
@dataclass(slots=True)
class RunDirectory:
    """A directory for one run; what it says is kept as it changes.

    Attributes:
        path: where it is.
        content: what remote.json says; empty where there is none yet.
    """

    path: Path
    content: dict[str, Any] = field(default_factory=dict)
    _lock: DirectoryLock | None = None

    @classmethod
    def open(cls, directory: str | os.PathLike[str]) -> RunDirectory:
        """The directory, made if it does not exist.

        Raises:
            UsageError: it holds a simulated run, or something else.
            CorruptFile: its file cannot be read.
        """
        path = Path(directory).absolute()
        with readable_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            others = sorted(entry.name for entry in path.iterdir() if entry.name != LOCK)
        file = path / FILE
        if not file.exists():
            if others:
                what = "a simulated run" if "run.json" in others else f"{others[0]}, and no run"
                raise UsageError(f"{path} holds {what}", advice="give dir= a path that does not exist yet")
            return cls(path)
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            str(content["key"]), int(content["seed"]), content["recipe"]["recipe"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CorruptFile(f"{file} cannot be read: {error}", advice="give another dir=") from error
        return cls(path, content)

    @property
    def seed(self) -> int | None:
        """Of the run; None if it has not begun."""
        return int(self.content["seed"]) if self.content else None

    def begin(self, recipe: Json, *, seed: int, server: str) -> str:
        """Write down that a run begins, or see that it is the one that has; gives its key. Holds the directory.

        Raises:
            RecipeChanged: the directory has another run.
            InUse: another process holds it.
        """
        self._lock = self._lock or DirectoryLock(self.path)
        self.content = RunDirectory.open(self.path).content  # another process may have begun meanwhile
        if self.content:
            changed = differences(self.content["recipe"], recipe)
            if self.content.get("server") != server:
                changed.append(f"server: {self.content.get('server')!r} before, {server!r} now")
            if changed:
                raise self._recipe_changed(changed)
            return str(self.content["key"])
        self.content = {"key": secrets.token_hex(16), "run": "", "server": server, "seed": seed, "recipe": recipe}
        self._write()
        return str(self.content["key"])

    def release(self) -> None:
        """Let other processes work in the directory."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def check_rounds(self, done: int, asked: int | None) -> None:
        """Refuse to ask for fewer rounds than are done.

        Raises:
            RecipeChanged: so it is.
        """
        if asked is not None and asked < done:
            raise self._recipe_changed([f"rounds: {done} are done, {asked} are asked for now"])

    def _recipe_changed(self, changed: list[str]) -> RecipeChanged:
        return RecipeChanged(
            f"{self.path} holds a run made from another recipe:\n" + "\n".join(f"  {c}" for c in changed[:20]),
            differences=changed,
            advice="give another dir= for the new run",
        )

    def is_run(self, run: str) -> None:
        """Write down the run's id."""
        if self.content["run"] != run:
            self.content["run"] = run
            self._write()

    def _write(self) -> None:
        replace_file(self.path / FILE, json.dumps(self.content, indent=1).encode())

    def lay_out(self, result: Result) -> None:
        """Write what came out."""
        write_result(self.path, result)


def write_result(directory: Path, result: Result) -> list[Path]:
    """Write a result's models and its history into a directory; gives the files."""
    written = []
    for name, model in (("model", result.model), ("best", result.best)):
        if model is not None:
            replace_file(directory / f"{name}.safetensors", model.to_bytes())
            written.append(directory / f"{name}.safetensors")
    with readable_errors(directory / "history.csv"):
        result.history.save(directory / "history.csv")
    return [*written, directory / "history.csv"]


__all__ = ["FILE", "RunDirectory", "write_result"]
