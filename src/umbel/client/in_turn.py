"""Tasks that take next to no time, done stage by stage: what is alike is done at once, or at least one after the other.

Between two trainings the caches hold nothing of our code, and it takes several times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, final

from umbel.aggregate.expected import Expected
from umbel.arrays import Array
from umbel.engine.question import Question
from umbel.errors import BadUpdate, Failure
from umbel.rows import Rows
from umbel.update import Kind, Update


@final
class Stages:
    """Who fails in one stage is not in the next.

    Args:
        failed: makes a failure of a task's exception, by its place.

    Attributes:
        failures: what was made, by place.
    """

    def __init__(self, failed: Callable[[int, BaseException], Failure]) -> None:
        self._failed = failed
        self.failures: dict[int, Failure] = {}

    def stage(self, places: Iterable[int], part: Callable[[int], Any]) -> dict[int, Any]:
        """What this part of each task gave, of those that came through."""
        made = {}
        for place in places:
            try:
                made[place] = part(place)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001  # the task ends here; sys.exit() in it ends no more than that
                self.failures[place] = self._failed(place, error)
        return made


def side_by_side(
    question: Question, updates: Mapping[int, Update], room: Callable[[int], Array]
) -> list[tuple[list[int], Rows]]:
    """Updates of one kind and one spec each, with their places; not among them is what does not fit, or may not.

    Args:
        question: what they answer.
        updates: by place, of which nothing is to be done but to fold them.
        room: gives so many bytes to write to.
    """
    alike: dict[tuple[Kind, int], list[int]] = {}
    for place, update in updates.items():
        form = update.kind, id(update.arrays.spec)  # not the spec itself, whose hash takes longer than all the rest
        if form in alike:
            alike[form].append(place)
        else:
            alike[form] = [place]
    rows: list[tuple[list[int], Rows]] = []
    for places in alike.values():
        if question.expected is not None and _fits(question.expected, updates[places[0]]):
            packed = Rows.packed([updates[place] for place in places], room)
            if not question.expected.finite or packed.harmless:
                rows.append((places, packed))
    return rows


def _fits(expected: Expected, update: Update) -> bool:
    """Do updates of this one's kind and spec fit, whatever their values?"""
    try:
        expected.check_form(update)
    except BadUpdate:
        return False
    return True


__all__ = ["Stages", "side_by_side"]
