"""A client's answer between the wire, the store and the engine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from umbel.arrays import Arrays
from umbel.engine.question import Question
from umbel.errors import Failure
from umbel.server.contents import Fetch, content_of, done_of
from umbel.store.sql.values import AnswerKind, AnswerRow
from umbel.update import Metrics, Update

Done = Update | Metrics | Failure


@final
@dataclass(frozen=True, slots=True)
class Answer:
    """What a client answered.

    Attributes:
        client, attempt: whose.
        done: what.
        state: has it a new state, that counts if the answer does?
        retryable: of a failure, may it work when it is asked again?
    """

    client: str
    attempt: int
    done: Done
    state: bool = False
    retryable: bool = False

    @property
    def arrays(self) -> Sequence[Arrays]:
        """All that it brought along."""
        return (self.done.arrays, *self.done.extra.values()) if isinstance(self.done, Update) else ()


def row_of(answer: Answer, arrived: float) -> AnswerRow:
    """An answer as the store keeps it; its arrays by digest."""
    done = answer.done
    kind: AnswerKind = "failure" if isinstance(done, Failure) else "update" if isinstance(done, Update) else "metrics"
    return AnswerRow(
        client=answer.client,
        attempt=answer.attempt,
        kind=kind,
        content=json.dumps(_content(answer)),
        blobs=tuple(arrays.digest() for arrays in answer.arrays),
        state=answer.state,
        arrived=arrived,
    )


def _content(answer: Answer) -> Mapping[str, Any]:
    done = answer.done
    if isinstance(done, Failure):
        text = {"code": done.code, "message": done.message, "traceback": done.traceback}
        return {**text, "retryable": answer.retryable}
    return content_of(done)


def answer_of(row: AnswerRow, question: Question, fetch: Fetch) -> Answer:
    """The answer that a row keeps.

    Args:
        row: as `row_of` made it.
        question: that was asked.
        fetch: gives arrays by their digest.
    """
    content = json.loads(row.content)
    if row.kind == "failure":
        retryable = content.pop("retryable")
        failure = Failure(client=row.client, round=question.round, kind=question.label, **content)
        return Answer(row.client, row.attempt, failure, retryable=retryable)
    done = done_of(content, fetch)
    return Answer(row.client, row.attempt, done, state=row.state)


__all__ = ["Answer", "Done", "answer_of", "row_of"]
