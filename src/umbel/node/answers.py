"""From what came of a task to the ReportRequest that says so, and to the line of the owner's journal about it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from umbel import wire
from umbel.apps.signature import show_key
from umbel.errors import REFUSALS, AppError, ClientFailed, DiskFull, UmbelError
from umbel.node.outbox import Key
from umbel.node.policy import blobs_of
from umbel.wire.limits import MESSAGE_TEXT, OUTPUT, TRACEBACK

_QUOTING = frozenset({ClientFailed.code, AppError.code})  # "... raised ValueError: " and its text, perhaps a traceback
_TEXT = re.compile(r": |\n")
_KEPT = (
    "; its owner lets nothing leave that may quote data\n"
    "  What to do: ask the owner to look into the node's log; or to write output = true in [policy] of node.toml"
)
_NO_ROOM = "has no room left on its disk for the answer\n  What to do: ask its owner to free some"


def key_of(id: wire.TaskId) -> Key:  # the field's word
    """What all attempts at a task have in common."""
    return Key(id.run, id.exchange, id.client)


def question_digest(task: wire.Task) -> bytes:
    """SHA-256 of what is asked, without the attempt and how much time is left."""
    asked = wire.Task()
    asked.CopyFrom(task)
    asked.id.attempt, asked.deadline = 0, 0.0
    code = [asked.app.wheel] if asked.app.HasField("wheel") else []
    for blob in [*blobs_of(asked), *code]:
        blob.ClearField("content")
    return hashlib.sha256(asked.SerializeToString(deterministic=True)).digest()


def failed(task: wire.Task, code: str, message: str, *, trace: str = "", retryable: bool = False) -> wire.ReportRequest:
    """The report of a task that failed here."""
    return wire.ReportRequest(
        id=task.id,
        failure=wire.Failure(
            code=code,
            message=_within(message, MESSAGE_TEXT),
            traceback=_within(trace, TRACEBACK),
            retryable=retryable,
        ),
    )


def full(task: wire.Task) -> wire.ReportRequest:
    """The report of a task whose answer has no room here."""
    return failed(task, DiskFull.code, f"node {task.id.client} {_NO_ROOM}", retryable=True)


def undelivered(report: bytes, error: UmbelError) -> wire.ReportRequest:
    """What is said instead of an answer that the server does not take."""
    before = wire.ReportRequest.FromString(report)
    message = f"the server does not take the answer of node {before.id.client}: {error}"
    return wire.ReportRequest(
        id=before.id,
        seconds=before.seconds,
        failure=wire.Failure(code=error.code, message=_within(message, MESSAGE_TEXT), retryable=True),
    )


def kept_here(failure: wire.Failure) -> wire.Failure:
    """What is said of a failure where no output may leave; the text of an exception often quotes what it was about."""
    message = failure.message
    if failure.code in _QUOTING:
        message = _TEXT.split(message, maxsplit=1)[0] + _KEPT
    return wire.Failure(code=failure.code, message=message, retryable=failure.retryable)


def bounded_output(text: str) -> str:
    """The last of what was printed, as much as a report may hold."""
    return text[-OUTPUT:]


def _within(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 4]}\n...\n{text[-(most - most // 4 - 5) :]}"


def asked_line(task: wire.Task) -> dict[str, Any]:
    """What the journal says of a task that has come."""
    return {
        **_named(task),
        "run_name": task.run_name,
        "submitter": task.submitter,
        "kind": task.kind,
        "name": task.name,
        "round": task.round,
        "dataset": task.dataset,
        "app": task.app.name,
        "app_digest": task.app.digest.hex(),
        "received": [{"digest": blob.digest.hex(), "bytes": blob.size} for blob in blobs_of(task)],
    }


def installed_line(task: wire.Task) -> dict[str, Any]:
    """What the journal says of an app that came from the server, and is about to run here."""
    app = task.app
    return {
        **_named(task),
        "run_name": task.run_name,
        "submitter": task.submitter,
        "app": app.name,
        "version": app.version,
        "app_digest": app.digest.hex(),
        "object": app.object,
        "wheel": {"digest": app.wheel.digest.hex(), "bytes": app.wheel.size},
        "signed_by": [f"{show_key(one.key)} {one.name}".rstrip() for one in app.signatures],
    }


def answer_line(task: wire.Task, report: wire.ReportRequest) -> tuple[str, dict[str, Any]]:
    """What the journal says of an answer that is about to leave: the event, and what it is about."""
    line = {**_named(task), "run_name": task.run_name, "submitter": task.submitter, "app_digest": task.app.digest.hex()}
    outcome = report.WhichOneof("outcome")
    if outcome == "failure":
        event = "refused" if report.failure.code in REFUSALS else "failed"
        return event, {**line, "code": report.failure.code, "reason": report.failure.message, **_printed(report)}
    if outcome == "metrics":
        return "sent", {**line, "what": "metrics", "metrics": _names(report.metrics.metrics), **_printed(report)}
    update = report.update
    blobs = sent_blobs(report)
    return "sent", {
        **line,
        "what": update.kind,
        "weight": update.weight,
        "metrics": _names(update.metrics),
        "blobs": [{"digest": blob.digest.hex(), "bytes": blob.size} for blob in blobs],
        **_printed(report),
    }


def sent_blobs(report: wire.ReportRequest) -> list[wire.Blob]:
    """All blobs of an answer."""
    if report.WhichOneof("outcome") != "update":
        return []
    return [report.update.arrays, *(named.blob for named in report.update.extra)]


def _named(task: wire.Task) -> Mapping[str, Any]:
    return {"run": task.id.run, "exchange": task.id.exchange, "attempt": task.id.attempt}


def _printed(report: wire.ReportRequest) -> Mapping[str, Any]:
    """How much text leaves beside the answer."""
    return {"output_bytes": len(report.output.encode()) + len(report.failure.traceback.encode())}


def _names(metrics: str) -> list[str]:
    return sorted(wire.metrics_of(metrics))


__all__ = [
    "answer_line",
    "asked_line",
    "bounded_output",
    "failed",
    "full",
    "installed_line",
    "kept_here",
    "key_of",
    "question_digest",
    "sent_blobs",
    "undelivered",
]
