"""Tasks that take next to no time, done stage by stage: what is alike is done at once, or at least one after the other.

Between two trainings the caches hold nothing of our code, and it takes several times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, final

from umbel.arrays import Array
from umbel.engine.question import Question
from umbel.errors import Failure
from umbel.rows import Rows
from umbel.spec import Spec
from umbel.update import Kind, Update

Form = tuple[Kind, Spec]
"""What updates have in common that can lie side by side."""


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
    question: Question,
    updates: Mapping[int, Update],
    forms: Mapping[int, Form | None],
    room: Callable[[int], Array],
) -> tuple[list[tuple[list[int], Rows]], list[int]]:
    """Updates by form, and the places of those that have to be looked at one by one.

    Args:
        question: what they answer.
        updates: by place.
        forms: of each, also by place; None has to be looked at.
        room: gives so many bytes to write to.
    """
    groups: dict[Form | None, list[int]] = {}
    for place, form in forms.items():
        groups.setdefault(form, []).append(place)
    rest = groups.pop(None, [])
    rows: list[tuple[list[int], Rows]] = []
    for places in groups.values():
        packed = Rows.packed([updates[place] for place in places], room)
        if question.expected is None or not question.expected.finite or packed.harmless:
            rows.append((places, packed))
        else:
            rest += places
    return rows, rest


__all__ = ["Form", "Stages", "side_by_side"]
