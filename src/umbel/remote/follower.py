"""Following a run on a server: what happens there, shown here as it happens."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from umbel.codec import decode
from umbel.engine.history import History
from umbel.errors import Failure, NotThere, Unreachable
from umbel.progress import Display, Quiet
from umbel.remote.line import Line, patiently
from umbel.remote.outcome import ENDED, failure_of, row_of

if TYPE_CHECKING:
    from umbel import wire
    from umbel.arrays import Arrays

logger = logging.getLogger("umbel")
_SHOWN_FAILURES = 10
_PASSING = frozenset({"exchange", "answers"})  # nobody keeps them: their number is that of the last event that is kept
_MOST = 1 << 22  # characters of an event, and of a result: what fits into a message


@final
@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a run.

    Attributes:
        number: from 1, in its run.
        time: seconds since 1970, by the server's clock.
        kind: "status", "round", "exchange", "answers", "failure", "output", "log" or "end".
        content: what happened.
    """

    number: int
    time: float
    kind: str
    content: Mapping[str, Any]


@final
@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended.

    Attributes:
        status: "finished", "stopped" or "failed".
        reason: why, for people.
        code: of the error that ended it, or "".
        failures: of the round that could not be closed.
    """

    status: str
    reason: str = ""
    code: str = ""
    failures: tuple[Failure, ...] = ()


@final
class Follower:
    """Follows one run to its end, over broken lines and restarts of the server.

    Args:
        line: to the server.
        run: its id.
        shown: shows how it goes.
        after_round: called with the number of each round that is committed; not of those before `since`.
        heard: called with each event.
        quiet: log nothing of what happens; `heard` tells it.

    Attributes:
        round: the last that was committed.
    """

    def __init__(
        self,
        line: Line,
        run: str,
        shown: Display | None = None,
        *,
        after_round: Callable[[int], object] = lambda _: None,
        heard: Callable[[Event], object] = lambda _: None,
        quiet: bool = False,
    ) -> None:
        self._line, self._run, self._shown = line, run, shown or Quiet()
        self._after_round, self._heard, self._quiet = after_round, heard, quiet
        self._since, self._answered, self._reported, self._lost = 0, 0, 0, 0
        self._history = History()
        self._waiting = ""
        self._open: list[Failure] = []  # of the round that is not committed yet
        self._ending: Ending | None = None
        self.round = 0

    def to_the_end(self) -> Ending:
        """Follow the run until it ends.

        Raises:
            Unreachable: the server has been away for too long; the run goes on there when it comes back.
            NotThere: the server does not have this run any more.
        """
        return patiently(self._listen, moved=lambda: self._since)

    def until_now(self) -> None:
        """Take in what has happened so far."""
        patiently(lambda: self._read(now=True), moved=lambda: self._since)

    def _listen(self) -> Ending:
        self._read(now=False)
        if self._ending is None:  # the server ends, or has not begun a run that it cannot do
            run = find_run(self._line, self._run)
            if run.status not in ENDED:
                raise Unreachable("the server has ended the stream of events", advice="umbel logs -f follows it again")
            self._ending = Ending(run.status, run.reason)
        return self._ending

    def _read(self, *, now: bool) -> None:
        from umbel import wire

        request = wire.WatchRunRequest(run=self._run, since=self._since, now=now)
        for message in self._line.stream("WatchRun", request):
            if message.event <= self._since and message.kind not in _PASSING:
                continue  # at least once
            content = wire.from_json(message.content, "event", _MOST)
            self._take(Event(message.event, message.time, message.kind, content))
            self._since = message.event

    def _take(self, event: Event) -> None:
        content = event.content
        match event.kind:
            case "status":
                self._status(content)
            case "exchange":
                self._answered = 0
                self._shown.round_opened(int(content["round"]), int(content["cohort"]))
            case "answers":
                done = int(content["done"])
                self._shown.clients_done(done - self._answered)
                self._answered = done
            case "failure":
                self._failed(content)
            case "log" if not self._quiet:
                logger.warning("metric-left-out: %s", content.get("message", ""))
            case "end":
                failures = [failure_of(f, self.round + 1) for f in content.get("failures", ())] or self._open
                status, reason = str(content.get("status", "")), str(content.get("reason", ""))
                self._ending = Ending(status, reason, str(content.get("code", "")), tuple(failures))
        self._heard(event)
        if event.kind == "round":
            self._committed(content)

    def _status(self, content: Mapping[str, Any]) -> None:
        status, reason = str(content.get("status", "")), str(content.get("reason", ""))
        if status not in ENDED:
            self._ending = None  # it was resumed
        waiting = reason if status in ("waiting", "queued") else ""
        if waiting and waiting != self._waiting and not self._quiet:
            logger.warning("run-waits: %s", waiting)
        self._waiting = waiting

    def _failed(self, content: Mapping[str, Any]) -> None:
        failure = failure_of(content, self.round + 1)
        if content.get("again"):
            self._lost += 1
            if self._lost <= _SHOWN_FAILURES and not self._quiet:
                logger.warning("client-lost: asked again: %s", failure)
            return
        known = failure in self._open  # the round was asked again, and failed in the same way
        self._open.append(failure)
        if self._quiet or known:
            return
        self._reported += 1
        if self._reported <= _SHOWN_FAILURES:
            logger.warning("client-failed: %s", failure)
        if self._reported == _SHOWN_FAILURES:
            logger.warning("client-failed: there may be more; result.failures has them all")

    def _committed(self, content: Mapping[str, Any]) -> None:
        row = row_of(decode(dict(content), _no_arrays))
        self.round = row.round
        self._open.clear()
        self._history.append(row)
        self._shown.committed(self._history)
        self._after_round(row.round)


def _no_arrays(digest: str) -> Arrays:
    raise NotThere(f"an event names the arrays {digest[:12]}")


def find_run(line: Line, run: str) -> wire.Run:
    """A run by its id, the beginning of it, or its name.

    Raises:
        NotThere: there is none, or there are several.
    """
    from umbel import wire

    found: wire.Run = line.call("GetRun", wire.GetRunRequest(run=run)).run
    return found


__all__ = ["Ending", "Event", "Follower", "find_run"]
