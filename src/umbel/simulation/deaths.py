"""What is made of a worker process that died: whose fault it was, and whether the run can go on."""

from __future__ import annotations

import logging
import signal
from typing import final

from umbel.apps.ending import CRASHES
from umbel.engine.question import Question
from umbel.errors import ClientFailed, Failure, RunError
from umbel.simulation.member import Died

logger = logging.getLogger("umbel")
_LIVES = 3  # workers that may be killed while they do the same client's task
# Workers that may die without one answer in between, for each that there is. Clients that kill take turns: each worker
# has one, and may have taken another one with it, and of each two deaths are not yet its failure.
_IN_A_ROW = 5
_FATAL = 0xC0000000  # from here on it is what Windows ends a process with that has crashed
_TIMEOUT = "Timeout ("  # what faulthandler writes first


@final
class Deaths:
    """Judges them.

    Args:
        limit: seconds that a task may take; None: any.
        workers: how many there are.
    """

    def __init__(self, limit: float | None, *, workers: int = 1) -> None:
        self._limit, self._most = limit, _IN_A_ROW * workers
        self._of: dict[tuple[int, str], int] = {}  # by exchange and client
        self._in_a_row = 0

    def none_since(self) -> None:
        """A task was answered."""
        self._in_a_row = 0

    def judge(self, died: Died, question: Question | None, client: str | None, *, lost: int) -> Failure | None:
        """Whose fault was it?

        Args:
            died: how the process ended.
            question: what was asked; None: nothing.
            client: whose task it was doing; None: nobody's.
            lost: how many tasks are done again, that one among them.

        Returns:
            The client's failure; None if its task is done again, too.

        Raises:
            RunError: worker processes die one after the other.
        """
        self._in_a_row += 1
        why, again = self._why(died, question, client)
        hopeless = client is None and not died.hello and died.status >= 0 and self._in_a_row > 1
        if self._in_a_row > self._most or hopeless:
            raise RunError(
                f"worker processes die one after the other: the last one {explain(died)}\n{died.traceback}",
                advice="look for a lack of memory (fewer workers need less), and whether the modules of the client app "
                "can be imported in a new interpreter; engine='inline' needs no workers",
            )
        logger.warning(
            "worker-lost: a worker process %s%s; %s",
            explain(died),
            f" while {client!r} was at work" if client else "",
            f"{lost} task{'s are' if lost != 1 else ' is'} done again" if again and lost else "the run goes on",
        )
        if again or client is None or question is None:
            return None
        return Failure(
            client=client,
            round=question.round,
            kind=question.label,
            code=ClientFailed.code,
            message=f"its {question.label} handler {why}",
            traceback=died.traceback,
        )

    def _why(self, died: Died, question: Question | None, client: str | None) -> tuple[str, bool]:
        """What the client's code did, in words; and is the task done again?"""
        if died.traceback.startswith(_TIMEOUT):
            return f"took longer than {self._limit:g} seconds and was ended", False
        name = explain(died).rpartition(" ")[2]
        if 0 <= died.status < _FATAL:
            return f"ended its process with status {name}: os._exit, or what it called", False
        if died.status > 0 or name in CRASHES:
            return f"crashed its process ({name}); a write into the arrays that it was given does that, too", False
        if client is not None and question is not None:
            key = question.sequence, client
            self._of[key] = self._of.get(key, 0) + 1
            if self._of[key] >= _LIVES:
                return f"cost {_LIVES} worker processes their lives ({name}): it may need too much memory", False
        return "", True


def explain(died: Died) -> str:
    """How a process ended, in words."""
    if died.status >= 0:
        return f"ended with status {died.status if died.status < _FATAL else hex(died.status)}"
    try:
        return f"was ended by {signal.Signals(-died.status).name}"
    except ValueError:
        return f"was ended by signal {-died.status}"


__all__ = ["Deaths", "explain"]
