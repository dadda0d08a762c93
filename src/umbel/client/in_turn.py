"""Tasks that take next to no time, done stage by stage: what is alike is done at once, or at least one after the other.

Between two trainings the caches hold nothing of our code, and it takes several times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, final

from umbel.aggregate.expected import Expected
from umbel.arrays import SMALL, Array
from umbel.client.asked import Asked, Begun
from umbel.engine.question import Question
from umbel.errors import BadUpdate, Failure
from umbel.rows import Rows
from umbel.update import Kind, Metrics, Update


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


def alike_in(asked: Asked, tasks: Mapping[int, Begun], answers: Mapping[int, Update | Metrics]) -> Sequence[list[int]]:
    """The places of small updates of which nothing is to be done but to fold them, by kind and spec."""
    alike: dict[tuple[Kind, int], list[int]] = {}
    trains = asked.question.kind == "train"
    for place, update in answers.items() if asked.plain else ():
        _, _, model, state, ctx = tasks[place]
        if isinstance(update, Metrics) or update.extra or state or ctx.state:
            continue
        spec = update.arrays.spec
        if spec.size > SMALL or (trains and (model is None or spec is not model.spec)):
            continue
        form = update.kind, id(spec)  # not the spec itself, whose hash takes longer than all the rest
        if form in alike:
            alike[form].append(place)
        else:
            alike[form] = [place]
    return [*alike.values()]


def side_by_side(
    question: Question, alike: Iterable[Sequence[Update]], room: Callable[[int], Array]
) -> Iterator[Rows | None]:
    """Updates of one kind and one spec each in one piece; None for those that do not fit, or may not.

    Args:
        question: what they answer.
        alike: groups of updates.
        room: gives so many bytes to write to.
    """
    for updates in alike:
        rows = None
        if question.expected is not None and _fits(question.expected, updates[0]):
            rows = Rows.packed(updates, room)
            if question.expected.finite and not rows.harmless:
                rows = None
        yield rows


def _fits(expected: Expected, update: Update) -> bool:
    """Do updates of this one's kind and spec fit, whatever their values?"""
    try:
        expected.check_form(update)
    except BadUpdate:
        return False
    return True


__all__ = ["Stages", "alike_in", "side_by_side"]
