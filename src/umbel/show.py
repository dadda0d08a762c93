"""What ``umbel show`` prints of a run directory: what it runs, how far it is, and its history."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from umbel.arrays import Arrays
from umbel.codec import Json, decode
from umbel.engine.history import History
from umbel.errors import UsageError
from umbel.store.journal import read_lines
from umbel.store.run_file import read_run_file


@final
@dataclass(frozen=True, slots=True)
class Shown:
    """A run directory as it stands; looked at without a lock, so that a run may be under way.

    Attributes:
        recipe: what the run was made from.
        history: its committed rounds.
        status: "finished", why it ended early, or "not finished".
    """

    recipe: Json
    history: History
    status: str

    def record(self) -> dict[str, Any]:
        """The same as JSON."""
        return {"status": self.status, "recipe": self.recipe, "history": list(map(dict, self.history))}


def look(directory: Path) -> Shown:
    """Read a run directory without changing anything.

    Raises:
        UsageError: it is not the directory of a run.
        CorruptFile: it is damaged.
    """
    written = read_run_file(directory / "run.json") if directory.is_dir() else None
    if written is None:
        raise UsageError(
            f"{directory} is not the directory of a run", advice="give the path that umbel.run(dir=...) was given"
        )
    journal = directory / "journal"
    values = [line.value for line in read_lines(journal, precious=True)] if journal.exists() else []
    rows = [row for v in values if v["kind"] == "commit" for row in decode(v["content"]["rows"], _no_arrays)]
    ended = values[-1] if values and values[-1]["kind"] == "end" else None
    return Shown(written["recipe"]["recipe"], History(rows), ended["status"] if ended else "not finished")


def _no_arrays(digest: str) -> Arrays:
    raise AssertionError(f"a row of the history names the arrays {digest}")


def show_run(directory: Path) -> None:
    """Print a run directory as a table for people."""
    shown = look(directory)
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text  # else brackets in a name would be rich's markup

    strategy = shown.recipe["strategy"]
    name = strategy["name"] if strategy else "a main of its own"
    count = shown.recipe["clients"]["count"]
    title = f"{directory}: {name}, {count} clients, seed {shown.recipe['seed']}; {shown.status}"
    table = Table(title=Text(title))
    for column in shown.history.columns:
        table.add_column(Text(column), justify="right", overflow="fold")  # a narrow terminal shows all digits, too
    for row in shown.history:
        table.add_row(*(Text(_cell(row.get(column))) for column in shown.history.columns))
    Console().print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value).replace("\n", " ")


__all__ = ["Shown", "look", "show_run"]
