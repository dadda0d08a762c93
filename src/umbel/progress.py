"""The live display of a run: rounds, cohort, metrics, time left. Quiet where nobody watches."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from typing import Any, Protocol, final

from umbel.engine.history import COUNTS, History

_PAUSE = 0.2  # seconds between two changes of a line in a notebook
_NAME = 40  # characters of the run's name, so that the line has room for the rest


class Display(Protocol):
    """Shows how a run goes."""

    def round_opened(self, round: int, cohort: int) -> None:  # the field's word
        """An exchange with so many clients began."""

    def clients_done(self, count: int) -> None:
        """So many clients answered, or failed."""

    def committed(self, history: History) -> None:
        """A round was committed."""

    def close(self) -> None:
        """The run has ended."""


@final
class Quiet:
    """Shows nothing."""

    def round_opened(self, round: int, cohort: int) -> None:
        """Nothing."""

    def clients_done(self, count: int) -> None:
        """Nothing."""

    def committed(self, history: History) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


@final
class Bar:
    """A progress bar on the terminal's last line, by rich."""

    def __init__(self, name: str, rounds: int | None, console: Any) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),  # a name may hold brackets
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("rounds"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[cohort]}{task.fields[metrics]}", markup=False),
            console=console,
            transient=False,
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),  # what goes into a file stays there
        )
        self._task = self._progress.add_task(" ".join(name.split())[:_NAME], total=rounds, cohort="", metrics="")
        self._asked = self._answered = 0
        self._progress.start()

    def round_opened(self, round: int, cohort: int) -> None:  # noqa: ARG002
        """Show how many are asked."""
        self._asked, self._answered = cohort, 0
        self._show_cohort()

    def clients_done(self, count: int) -> None:
        """Count answers."""
        self._answered += count
        self._show_cohort()

    def _show_cohort(self) -> None:
        self._progress.update(self._task, cohort=f"cohort {self._answered}/{self._asked}  ")

    def committed(self, history: History) -> None:
        """Show the round's metrics."""
        self._progress.update(self._task, completed=history[-1]["round"], metrics=_numbers(history))

    def close(self) -> None:
        """Leave the last state on the screen."""
        with suppress(OSError, ValueError):  # the terminal is gone, or closed; the run is not to blame
            self._progress.stop()


@final
class Line:
    """A line below a notebook's cell, written anew as the run goes: rich's bar wants ipywidgets there."""

    def __init__(self, name: str, rounds: int | None) -> None:
        self._name, self._of = " ".join(name.split())[:_NAME], f"/{rounds}" if rounds else ""
        self._round, self._metrics, self._asked, self._answered = 0, "", 0, 0
        self._handle: Any = None
        self._next = 0.0
        self._show()

    def round_opened(self, round: int, cohort: int) -> None:  # noqa: ARG002
        """Show how many are asked."""
        self._asked, self._answered = cohort, 0
        self._soon()

    def clients_done(self, count: int) -> None:
        """Count answers."""
        self._answered += count
        self._soon()

    def committed(self, history: History) -> None:
        """Show the round's metrics."""
        self._round, self._metrics = int(history[-1]["round"]), _numbers(history)
        self._soon()

    def close(self) -> None:
        """Leave the last state."""
        self._show()

    def _soon(self) -> None:
        if time.monotonic() >= self._next:  # each is a message to the browser
            self._show()

    def _show(self) -> None:
        from IPython import display as notebook

        show: Any = notebook  # its functions have no types
        self._next = time.monotonic() + _PAUSE
        cohort = f"cohort {self._answered}/{self._asked}" if self._asked else ""
        parts = [self._name, f"{self._round}{self._of} rounds", cohort, self._metrics]
        text = show.Pretty("  ".join(filter(None, parts)))
        if self._handle is None:
            self._handle = show.display(text, display_id=True)
        else:
            self._handle.update(text)


def _numbers(history: History) -> str:
    """The last round's metrics."""
    numbers = [f"{k} {v:.4g}" for k, v in history[-1].items() if k not in COUNTS and isinstance(v, float)]
    return "  ".join(numbers[:4])


def display(name: str, rounds: int | None) -> Display:
    """A bar where a person watches: on a terminal or in a notebook; else nothing."""
    if not (sys.stderr is not None and sys.stderr.isatty()) and "ipykernel" not in sys.modules:
        return Quiet()
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_jupyter and find_spec("ipywidgets") is None:
        return Line(name, rounds)
    return Bar(name, rounds, console) if console.is_terminal or console.is_jupyter else Quiet()


@final
class Watch:
    """The engine's observer: passes on to the display, and to whoever is to be called after each round.

    Args:
        shown: the display.
        after_round: called after each committed round; returns a reason to end the run, or "".
    """

    def __init__(self, shown: Display | None = None, after_round: Callable[[], str] = str) -> None:
        self._shown, self._after_round = shown or Quiet(), after_round

    def round_opened(self, round: int, cohort: int) -> None:
        """Pass on."""
        self._shown.round_opened(round, cohort)

    def clients_done(self, clients: Sequence[str]) -> None:
        """Pass on."""
        self._shown.clients_done(len(clients))

    def committed(self, history: History) -> str:
        """Show the round, then call the callbacks."""
        self._shown.committed(history)
        return self._after_round()


@final
class MonotonicClock:
    """Seconds since some moment."""

    def now(self) -> float:
        """The time."""
        return time.monotonic()


__all__ = ["Bar", "Display", "MonotonicClock", "Quiet", "Watch", "display"]
