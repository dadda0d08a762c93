"""What was asked before an interruption is not asked again.

Each exchange is recorded under its round, the n-th call of that round, and a digest of its arguments. The records of
the round that is under way are kept until it commits. What main asks before its first round belongs to the run and is
kept for good: a resumed main asks it anew and gets the old answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import final

from umbel.engine.calls import check_record
from umbel.engine.ports import Commit, Record
from umbel.errors import NotReproducible


@final
class Replay:
    """Knows the answers of an earlier process.

    Attributes:
        past: is main, resumed, still before its rounds? What it asks there is in its commits already.
    """

    def __init__(self, commits: Sequence[Commit], records: Sequence[Record]) -> None:
        self._records = {(r.round, r.call): r for r in records}
        self._kept: Sequence[Record] | None = commits[0].opening if commits else None
        self.past = self._kept is not None
        self._new: list[Record] | None = [] if not commits else None  # asked before the first round of a new run
        self._in_rounds = False

    def find(self, round: int, call: int, digest: Callable[[], Mapping[str, str]]) -> Record | None:  # the field's word
        """The record of this call, if it was made before.

        Raises:
            NotReproducible: main asked for something else then.
        """
        record = self._of_the_past(call) if self.past else self._records.get((round, call))
        if record is not None:
            check_record(record, digest())
        return record

    def _of_the_past(self, call: int) -> Record:
        assert self._kept is not None
        if call > len(self._kept):
            raise NotReproducible(
                f"main, resumed, asks {call} times before its first round; at first it asked {len(self._kept)} times",
                advice="what each start of main is to ask anew belongs inside `for r in fed.rounds(...)`",
            )
        return self._kept[call - 1]

    def note(self, record: Record) -> None:
        """This call was answered."""
        if self._new is not None and not self._in_rounds:
            self._new.append(record)

    def begin_rounds(self) -> None:
        """Main has come to its rounds."""
        self._in_rounds, self.past = True, False

    def end_round(self, round: int, calls: int) -> tuple[Record, ...] | None:
        """The round is to be committed after so many calls; gives what was asked before the first round.

        None: nothing needs to be kept, or main does not use ``fed.rounds``, so that nobody knows where it began.

        Raises:
            NotReproducible: more was asked before.
        """
        if (round, calls + 1) in self._records:
            raise NotReproducible(
                f"round {round}: before the interruption main asked more than the {calls} times it asks now",
                advice="main must ask the same again when it starts from the same fed.state; if you changed the "
                "program, start in another directory",
            )
        new, self._new = self._new, None
        return tuple(new) if new is not None and self._in_rounds else None


__all__ = ["Replay"]
