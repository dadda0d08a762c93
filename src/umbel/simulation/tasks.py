"""The tasks of an exchange, and what came of each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import final

from umbel.engine.columns import Columns
from umbel.engine.folding import Answered, AnsweredRows
from umbel.rows import Rows
from umbel.simulation.inbox import Inbox
from umbel.simulation.messages import Answer
from umbel.simulation.units import in_short
from umbel.update import Metrics, Update

_WHOLE = Answer(-1, "whole")  # stands for one of which nothing lies in the worker's memory, or does any more


@final
class Tasks:
    """By number: whose a task is, what was answered, and where that lies. Columns, since there may be thousands."""

    def __init__(self) -> None:
        self._clients: list[str] = []
        self._attempts: list[int] = []
        self._answers: list[Answer | Rows | None] = []
        self._places: list[int] = []  # of its answer among rows
        self._inboxes: list[Inbox | None] = []
        self._by_client: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def __getitem__(self, number: int) -> tuple[str, int]:
        """Whose a task is, and which attempt."""
        return self._clients[number], self._attempts[number]

    def add(self, tasks: Columns[tuple[str, int]]) -> None:
        """More of them, each (client, attempt)."""
        clients, attempts = tasks.columns
        self._by_client.update(zip(clients, itertools.count(len(self._clients))))
        self._clients += clients
        self._attempts += attempts
        self._answers += [None] * len(tasks)
        self._places += [0] * len(tasks)
        self._inboxes += [None] * len(tasks)

    def is_open(self, number: int) -> bool:
        """Has nobody answered it?"""
        return self._answers[number] is None

    @property
    def first_open(self) -> int:
        """The first that nobody has answered; -1: there is none."""
        return self._answers.index(None) if None in self._answers else -1

    def note(self, number: int, answer: Answer, inbox: Inbox) -> None:
        """It was answered."""
        self._answers[number], self._inboxes[number] = answer, inbox

    def note_rows(self, numbers: Sequence[int], rows: Rows, inbox: Inbox) -> Columns[tuple[str, int]]:
        """These were answered, side by side; gives those whom nobody had answered before, each (client, attempt)."""
        if isinstance(numbers, range) and numbers.step == 1:
            those = slice(numbers.start, numbers.stop)
            if self._answers[those].count(None) == len(numbers):
                self._answers[those], self._inboxes[those] = [rows] * len(numbers), [inbox] * len(numbers)
                self._places[those] = range(len(numbers))
                return Columns(self._clients[those], self._attempts[those])
        fresh = []
        for place, number in enumerate(numbers):
            if self._answers[number] is None:
                self._answers[number], self._places[number], self._inboxes[number] = rows, place, inbox
                fresh.append(self[number])
        return Columns.of(fresh, 2)

    def holds(self, inbox: Inbox) -> bool:
        """Are there updates in it that are not folded yet?"""
        return any(
            its is inbox and (isinstance(answer, Rows) or (answer is not None and answer.arrays is not None))
            for answer, its in zip(self._answers, self._inboxes, strict=True)
        )

    def drop(self, client: str) -> None:
        """Throw a client's answer away."""
        number = self._by_client[client]
        answer, inbox = self._answers[number], self._inboxes[number]
        if answer is not None:
            self._answers[number] = _WHOLE
        if isinstance(answer, Answer) and inbox is not None:
            inbox.drop(answer)

    def take(self, asked: Columns[tuple[str, int, int]]) -> list[list[Answered] | AnsweredRows]:
        """The answers of these clients, each (client, attempt, place), in their order.

        From now on nothing of them is held here.
        """
        numbers = in_short([self._by_client[client] for client in asked.columns[0]])
        answers, places = self._taken(numbers)
        parts: list[tuple[int, int, Rows | None]] = []
        for begin, end in _alike(answers, places):
            rows = answers[begin]
            parts.append((begin, end, rows.take(places[begin:end]) if isinstance(rows, Rows) else None))
        taken: list[list[Answered] | AnsweredRows] = []
        for _, group in itertools.groupby(parts, key=_form):
            begins, ends, found = zip(*group, strict=True)
            these = slice(begins[0], ends[-1])
            if found[0] is not None:
                clients, attempts, where = asked[these].columns
                taken.append(AnsweredRows(clients, attempts, where, Rows.joined(found)))
            else:
                taken.append([*map(self._answered, numbers[these], answers[these], asked[these])])
        return taken

    def _taken(self, numbers: Sequence[int]) -> tuple[list[Answer | Rows | None], Sequence[int]]:
        """What was answered to these, and where among rows; it is not held here any more."""
        if isinstance(numbers, range):
            those = slice(numbers.start, numbers.stop)
            answers, places = self._answers[those], self._places[those]
            self._answers[those] = [_WHOLE] * len(numbers)
            return answers, places
        answers, places = [self._answers[number] for number in numbers], [self._places[number] for number in numbers]
        for number in numbers:
            self._answers[number] = _WHOLE
        return answers, places

    def _answered(self, number: int, answer: Answer | Rows | None, asked: tuple[str, int, int]) -> Answered:
        inbox = self._inboxes[number]
        assert isinstance(answer, Answer)
        assert inbox is not None
        return Answered(*asked, _done(answer, inbox), answer.state)


def _alike(answers: Sequence[Answer | Rows | None], places: Sequence[int]) -> Iterator[tuple[int, int]]:
    """From where to where the same rows stand, or one that is none of them."""
    begin = 0
    while begin < len(answers):
        end, answer = begin + 1, answers[begin]
        if isinstance(answer, Rows):
            end = min(begin + len(answer) - places[begin], len(answers))
            if answers[begin:end].count(answer) < end - begin:  # some are missing
                end = next(i for i in range(begin, end) if answers[i] is not answer)
        yield begin, end
        begin = end


def _form(part: tuple[int, int, Rows | None]) -> object:
    """What parts that follow each other have in common if they are one: small rows are folded sooner in one piece."""
    rows = part[2]
    if rows is None:
        return None
    return (rows.kind, rows.spec) if rows.are_small else id(rows)


def _done(answer: Answer, inbox: Inbox) -> Update | Metrics:
    if answer.arrays is None:
        return Metrics.made(answer.metrics, weight=answer.weight)
    return Update.made(
        answer.kind,  # type: ignore[arg-type]  # as the worker's update had it
        inbox.arrays(answer.arrays),
        weight=answer.weight,
        metrics=answer.metrics,
        extra={name: inbox.arrays(stored) for name, stored in answer.extra.items()} if answer.extra else {},
    )


__all__ = ["Tasks"]
