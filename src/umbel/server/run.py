"""One run, from its submission to its end. Lives in a thread of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, final

from umbel.client.failures import trace, words
from umbel.codec import decode
from umbel.engine.driver import Loop, drive
from umbel.engine.federation import Federation
from umbel.engine.plan import Plan
from umbel.engine.submission import Submission
from umbel.errors import DiskFull, Failure, FormatError, RunError, StoreError, UmbelError
from umbel.server.clock import ServerClock
from umbel.server.desk import Desk, Interrupted
from umbel.server.runner import NetworkRunner
from umbel.server.telling import Say, Telling, after_commits
from umbel.store.sql import RunRow, RunStore, ServerStore
from umbel.store.sql.values import Status
from umbel.wire import from_json

logger = logging.getLogger("umbel")
SUBMISSION = 3 << 20  # characters; what fits into a message


@final
@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended.

    Attributes:
        status: "finished", "stopped" or "failed".
        reason: why, for people.
        code: of the error that ended it; "": none did.
        failures: of the clients that could not be done without.
    """

    status: Status
    reason: str = ""
    code: str = ""
    failures: tuple[Failure, ...] = ()


def submission_of(run: RunRow, store: ServerStore) -> Submission:
    """What was submitted.

    Raises:
        FormatError: it is not what this version of Umbel understands.
    """
    data = from_json(run.submission, f"the submission of run {run.id[:8]}", SUBMISSION)
    found = decode(data, store.blobs.fetch)
    if not isinstance(found, Submission):
        raise FormatError(f"the submission of run {run.id[:8]} is a {type(found).__name__}")
    return found


def ending(conduct: Callable[[], Ended], run: RunRow) -> Ended:
    """How a run ended, whatever conducting it raises."""
    try:
        return conduct()
    except Interrupted as interrupted:
        return Ended("stopped", interrupted.reason)
    except RunError as error:
        return Ended("failed", str(error), error.code, error.failures)
    except UmbelError as error:
        return Ended("failed", str(_resumable(error, run)), error.code)
    except Exception as error:  # a run ends here; the server goes on
        logger.exception("run-failed: %s", run.id)
        return Ended("failed", f"the server's own code raised {words(error)}\n{trace(error)}")


def _resumable(error: UmbelError, run: RunRow) -> UmbelError:
    """The error with what to do when the trouble was the server's own, and has passed: what was committed is kept."""
    if not isinstance(error, StoreError) or isinstance(error, FormatError):
        return error
    logger.error("store-failed: run %s has ended: %s", run.id[:8], error)
    first = "free some space" if isinstance(error, DiskFull) else error.advice or "look at the log of the server"
    return type(error)(error.what, advice=f"{first}; then: umbel resume {run.id[:8]}")


@final
class Conductor:
    """Conducts one run.

    Args:
        run: which.
        submission: what it does.
        store: of the server.
        desk: has nodes do its tasks.
        clock: the time.
        say: tells people what happens.
    """

    def __init__(
        self,
        run: RunRow,
        submission: Submission,
        *,
        store: ServerStore,
        desk: Desk,
        clock: ServerClock,
        say: Say,
    ) -> None:
        self._run, self._submission, self._clock = run, submission, clock
        self._runner, self._store = NetworkRunner(desk, store), RunStore(store, run.id, counted=lambda: desk.counted)
        self._telling = Telling(after_commits(say, self._store.then), submission.stopped)

    def conduct(self) -> Ended:
        """Do what is left of the run."""
        return ending(self._kept, self._run)

    def _kept(self) -> Ended:
        with closing(self._store):  # what was given to it last is durable before the run is said to have ended
            return self._conduct()

    def _conduct(self) -> Ended:
        commits = self._store.commits()
        plan = Plan(
            seed=self._submission.seed,
            initial=self._submission.initial,
            rounds=self._run.rounds,
            handlers=frozenset(self._submission.handlers),
            # each round: nodes keep the states that the last two exchanges gave, and no older ones
            checkpoint=replace(self._submission.checkpoint, every=1),
            durable=True,
            race=True,
            warn=self._telling.warn,
        )
        fed = Federation(plan, self._perform, commits=commits, records=self._store.records(), best=self._store.best())
        self._telling.watch(fed)
        fed.stopped = self._submission.stopped(fed.history)
        try:
            self._submission.loop()(fed)
        finally:
            fed.flush()
        return Ended("finished", f"stopped early: {fed.stopped}" if fed.stopped else "")

    def _perform(self, loop: Loop) -> Any:
        return drive(loop, self._runner, self._store, self._clock, self._telling)


__all__ = ["SUBMISSION", "Conductor", "Ended", "ending", "submission_of"]
