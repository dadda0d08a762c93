"""How a run goes, a line or a JSON object a round, where no bar is shown."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from umbel.remote.follower import Event
    from umbel.result import Result


@final
class RoundLines:
    """Prints each round.

    Args:
        json: as JSON.
        rounds: how many there will be, if that is known.

    Attributes:
        wanted: is there anything to print? A person at a terminal has a bar.
    """

    def __init__(self, *, json: bool, rounds: int | None) -> None:
        self._json, self._rounds = json, rounds
        self.wanted = json or not sys.stderr.isatty()

    def after_round(self, result: Result) -> str:
        """A callback of a simulation, which ends when nobody reads any more: `umbel run | head -1`."""
        try:
            self._print(dict(result.history[-1]))
        except BrokenPipeError:
            return "nobody reads what it prints"
        except OSError:  # as on a full disk: the run goes on, and its last line says so
            return ""
        return ""

    def heard(self, event: Event) -> None:
        """An event of a run on a server."""
        from umbel.cli.printing import give

        if event.kind == "round":
            from umbel.codec import decode

            self._print(decode(dict(event.content), str))  # type: ignore[arg-type]  # no arrays in it
        elif self._json and event.kind in ("status", "failure", "output"):
            give({"event": event.kind, "time": event.time, **event.content})

    def _print(self, row: Mapping[str, Any]) -> None:
        from umbel.cli.printing import give, line

        if self._json:
            give({"event": "round", **row})
        else:
            line(round_line(row, self._rounds))


def round_line(row: Mapping[str, Any], rounds: int | None) -> str:
    """A round for people: "round 3/10  4 of 4 clients  loss 0.1234"."""
    from umbel.cli.printing import number

    of = f"/{rounds}" if rounds else ""
    counts = ("round", "cohort", "folded", "failed")
    metrics = "  ".join(f"{name} {number(value)}" for name, value in row.items() if name not in counts)
    return f"round {row['round']}{of}  {row.get('folded', 0)} of {row.get('cohort', 0)} clients  {metrics}".rstrip()


__all__ = ["RoundLines", "round_line"]
