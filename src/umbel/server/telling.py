"""What happens in a run, told to people: the engine's observer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, final

from umbel.codec import encode
from umbel.engine.federation import Federation
from umbel.engine.history import History

Say = Callable[[str, Mapping[str, Any]], None]
"""Tells people what happens: a kind of event, and what it holds."""
_OF_COMMITS = frozenset({"failure", "round"})


def after_commits(say: Say, then: Callable[[Callable[[], object]], None]) -> Say:
    """Say what came of a round when that is durable: who hears of it, and looks, finds it.

    Args:
        say: tells people.
        then: has something done when the last commit is durable.
    """

    def said(kind: str, content: Mapping[str, Any]) -> None:
        if kind in _OF_COMMITS:
            then(lambda: say(kind, content))
        else:
            say(kind, content)

    return said


@final
class Telling:
    """Tells people what happens in a run: an `umbel.engine.ports.Observer`.

    Args:
        say: tells it.
        stopped: gives a reason to end the run after a round, or "".
    """

    def __init__(self, say: Say, stopped: Callable[[History], str]) -> None:
        self._say, self._stopped = say, stopped
        self._done = self._cohort = self._failures = 0
        self._warned: set[str] = set()
        self._fed: Federation

    def watch(self, fed: Federation) -> None:
        """This is the run; what it holds so far was told before."""
        self._fed, self._failures = fed, len(fed.totals.failures)

    def warn(self, text: str) -> None:
        """Say once what would be true again in every round."""
        if text not in self._warned:
            self._warned.add(text)
            self._say("log", {"message": text})

    def round_opened(self, round: int, cohort: int) -> None:  # the field's word
        """An exchange began."""
        self._done, self._cohort = 0, cohort
        self._say("exchange", {"round": round, "cohort": cohort})

    def clients_done(self, clients: Sequence[str]) -> None:
        """These have answered."""
        self._done += len(clients)
        self._say("answers", {"done": self._done, "cohort": self._cohort})

    def committed(self, history: History) -> str:
        """A round ended: what came out of it, and who failed in it."""
        new = self._fed.totals.failures[self._failures :]
        self._failures += len(new)
        for failure in new:
            self._say("failure", asdict(failure))
        self._say("round", encode(dict(history[-1]), lambda arrays: arrays.digest()))
        return self._stopped(history)


__all__ = ["Say", "Telling", "after_commits"]
