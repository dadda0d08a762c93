"""What is checked of a message from the other side before anything is done with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from google.protobuf.message import Message

from umbel.errors import BadUpdate, FormatError
from umbel.update import Metric, check_metrics, check_weight
from umbel.wire import limits
from umbel.wire.bounded import from_json
from umbel.wire.limits import check_id, check_name
from umbel.wire.signed import CHALLENGE_SIZE, SESSION_SIZE
from umbel.wire.v1 import node_pb2, values_pb2

KINDS = ("train", "evaluate", "query")
ARRAYS = ("model", "delta", "value")
_KEY, _SIGNATURE = 32, 64
_CODE = 64  # characters
_SIGNATURES = 32  # of one app; each is verified before anything of it is looked at


def _require(true: bool, words: str) -> None:
    if not true:
        raise FormatError(words)


def _check_bytes(data: bytes, size: int, field: str) -> None:
    _require(len(data) == size, f"{field} has {len(data)} bytes, not {size}")


def _check_text(text: str, most: int, field: str) -> None:
    _require(len(text) <= most, f"{field} has {len(text):,} characters, at most {most:,} are accepted")


def _check_many(items: Sequence[Any], field: str, most: int = limits.MANY) -> None:
    _require(len(items) <= most, f"{field} has {len(items):,} entries, at most {most:,} are accepted")


def _check_seconds(number: float, field: str) -> None:
    _require(0 <= number < limits.FUTURE, f"{field} is {number!r}, not a time")


def check_blob(blob: values_pb2.Blob, field: str) -> None:
    """Refuse what is no blob. Whether the bytes inside have the digest is looked at when they are used.

    Raises:
        FormatError: names the field.
    """
    _check_bytes(blob.digest, limits.DIGEST, f"{field}.digest")
    _require(blob.size <= limits.BLOB, f"{field}.size is {blob.size:,}, at most {limits.BLOB:,} are accepted")
    if blob.HasField("content"):
        _check_bytes(blob.content, blob.size, f"{field}.content")


def _check_named(blobs: Sequence[values_pb2.NamedBlob], field: str) -> None:
    _check_many(blobs, field)
    for blob in blobs:
        _require(bool(blob.name), f"{field} has an entry without a name")
        _check_text(blob.name, limits.TEXT, f"{field}.name")
        check_blob(blob.blob, f"{field}[{blob.name[:40]!r}]")
    _require(len({blob.name for blob in blobs}) == len(blobs), f"{field} has a name twice")


def _check_labels(labels: Sequence[values_pb2.Label]) -> None:
    _check_many(labels, "labels")
    for label in labels:
        _require(bool(label.name), "labels has an entry without a name")
        _check_text(label.name, limits.TEXT, "labels.name")
        _check_text(label.value, limits.TEXT, f"labels[{label.name!r}]")


def check_app(app: values_pb2.App, field: str = "app", *, stands_in: bool = False) -> None:
    """Refuse what names no app.

    Args:
        app: a message of the other side.
        field: where it stands, for the error.
        stands_in: another program that plays the app's part has no digest, and only a name.

    Raises:
        FormatError: names the field.
    """
    for name in ("name", "version", "object"):
        _check_text(getattr(app, name), limits.TEXT, f"{field}.{name}")
    if stands_in and not app.digest:
        _require(bool(app.name), f"{field} has an entry with neither a name nor a digest")
    else:
        _check_bytes(app.digest, limits.DIGEST, f"{field}.digest")
    _check_many(app.handlers, f"{field}.handlers")
    _check_many(app.signers, f"{field}.signers")
    for handler in app.handlers:
        _check_text(handler, limits.TEXT, f"{field}.handlers")
    for signer in app.signers:
        _check_bytes(signer, _KEY, f"{field}.signers")
    if app.HasField("wheel"):
        check_blob(app.wheel, f"{field}.wheel")
    _check_many(app.signatures, f"{field}.signatures", _SIGNATURES)
    for one in app.signatures:
        _check_bytes(one.key, _KEY, f"{field}.signatures.key")
        _check_text(one.name, limits.TEXT, f"{field}.signatures.name")
        _check_bytes(one.signature, _SIGNATURE, f"{field}.signatures.signature")


def check_task_id(id: node_pb2.TaskId) -> None:  # the field's word
    """Refuse what names no task.

    Raises:
        FormatError: names the field.
    """
    check_id(id.run, "id.run")
    check_name(id.client, "id.client")
    _require(id.exchange >= 1, "id.exchange is 0; exchanges are counted from 1")
    _require(id.attempt >= 1, "id.attempt is 0; attempts are counted from 1")


def check_task(task: node_pb2.Task) -> None:
    """Refuse a task that no server of ours makes; what its JSON says is looked at when it is read.

    Raises:
        FormatError: names the field.
    """
    check_task_id(task.id)
    _require(task.kind in KINDS, f"kind is {task.kind[:40]!r}, not one of {', '.join(KINDS)}")
    for name in ("name", "run_name", "submitter", "dataset"):
        _check_text(getattr(task, name), limits.TEXT, name)
    _require(bool(task.name) and task.kind in ("query", task.name), "name does not agree with kind")
    if task.HasField("app"):
        check_app(task.app)
    _require(task.round >= 1, "round is 0; rounds are counted from 1")
    _require(task.call >= 1, "call is 0; calls are counted from 1")
    _require(task.kind == "query" or task.HasField("model"), f"model is missing, and kind is {task.kind}")
    if task.HasField("model"):
        check_blob(task.model, "model")
    _check_named(task.extra, "extra")
    _check_text(task.config, limits.CONFIG, "config")
    _check_text(task.details, limits.DETAILS, "details")
    digits = task.seed.isascii() and task.seed.isdigit()
    _require(digits and len(task.seed) <= limits.SEED, "seed is not a whole number in decimal digits")
    _check_many(task.attachments, "attachments")
    for blob in task.attachments:
        check_blob(blob, "attachments")
    _check_many(task.needs, "needs")
    for need in task.needs:
        _check_text(need, limits.TEXT, "needs")
    _check_seconds(task.deadline, "deadline")


def metrics_of(text: str) -> dict[str, Metric]:
    """The metrics in a JSON object: at most 100 finite numbers.

    Raises:
        FormatError: it is no such JSON.
        BadUpdate: it has other values, or too many.
    """
    return check_metrics(from_json(text, "metrics", limits.METRICS)) if text else {}


def check_report(report: node_pb2.ReportRequest) -> None:
    """Refuse an answer that cannot be kept; whether it fits the question is looked at when it is folded.

    `check` looks at the id alone: who is refused does not report again, and somebody waits for the answer.

    Raises:
        FormatError: names the field.
    """
    check_task_id(report.id)
    outcome = report.WhichOneof("outcome")
    _require(outcome is not None, "outcome is missing: update, metrics or failure")
    _check_seconds(report.seconds, "seconds")
    _check_text(report.output, limits.OUTPUT, "output")
    try:
        if outcome == "update":
            update = report.update
            _require(update.kind in ARRAYS, f"update.kind is {update.kind[:40]!r}, not one of {', '.join(ARRAYS)}")
            check_blob(update.arrays, "update.arrays")
            _check_named(update.extra, "update.extra")
            check_weight(update.weight)
            metrics_of(update.metrics)
        elif outcome == "metrics":
            check_weight(report.metrics.weight)
            metrics_of(report.metrics.metrics)
    except BadUpdate as error:
        raise FormatError(f"{outcome}: {error.what}", advice=error.advice) from error
    if outcome == "failure":
        failure = report.failure
        _require(bool(failure.code) and failure.code.isascii(), "failure.code is missing, or not a plain word")
        _check_text(failure.code, _CODE, "failure.code")
        _check_text(failure.message, limits.MESSAGE_TEXT, "failure.message")
        _check_text(failure.traceback, limits.TRACEBACK, "failure.traceback")


def _check_enrol(request: node_pb2.EnrolRequest) -> None:
    _check_text(request.ticket, limits.TEXT, "ticket")
    check_name(request.name, "name")
    _check_bytes(request.public_key, _KEY, "public_key")
    _check_labels(request.labels)


def _check_challenge(request: node_pb2.ChallengeRequest) -> None:
    check_name(request.name, "name")


def _check_open(request: node_pb2.OpenSessionRequest) -> None:
    check_name(request.name, "name")
    _require(0 < len(request.challenge) <= CHALLENGE_SIZE, f"challenge has {len(request.challenge)} bytes")
    _check_bytes(request.signature, _SIGNATURE, "signature")
    _check_many(request.versions, "versions")
    _check_text(request.program, limits.TEXT, "program")
    _check_many(request.apps, "apps")
    for app in request.apps:
        check_app(app, "apps", stands_in=True)
    _check_labels(request.labels)
    _require(1 <= request.slots <= limits.MANY, f"slots is {request.slots}, not 1 to {limits.MANY}")
    _check_many(request.datasets, "datasets")
    for dataset in request.datasets:
        _check_text(dataset, limits.TEXT, "datasets")
    _check_seconds(request.time, "time")


def _check_digest(request: Any) -> None:
    _check_bytes(request.digest, limits.DIGEST, "digest")


def check_head(head: values_pb2.BlobHead) -> None:
    """Refuse the head of a blob that nobody can write.

    Raises:
        FormatError: names the field.
    """
    _check_bytes(head.digest, limits.DIGEST, "head.digest")
    _require(head.size <= limits.BLOB, f"head.size is {head.size:,}, at most {limits.BLOB:,} are accepted")
    _require(head.offset <= head.size, f"head.offset is {head.offset:,}, the blob has {head.size:,} bytes")


def _check_opened(response: node_pb2.OpenSessionResponse) -> None:
    _check_bytes(response.session, SESSION_SIZE, "session")
    _require(1 <= response.chunk <= limits.MESSAGE // 2, f"chunk is {response.chunk}")
    _require(response.inline <= limits.CHUNK, f"inline is {response.inline}")
    _require(0 < response.keepalive < limits.FUTURE, f"keepalive is {response.keepalive}")
    check_id(response.federation, "federation")


def _check_challenged(response: node_pb2.ChallengeResponse) -> None:
    _require(0 < len(response.challenge) <= CHALLENGE_SIZE, f"challenge has {len(response.challenge)} bytes")


def _check_notice(response: node_pb2.SubscribeResponse) -> None:
    if response.HasField("task"):
        check_task(response.task)
    for id in response.revoke.tasks:
        check_task_id(id)
    _check_text(response.revoke.reason, limits.MESSAGE_TEXT, "revoke.reason")
    _check_text(response.goodbye.reason, limits.MESSAGE_TEXT, "goodbye.reason")
    _check_seconds(response.goodbye.wait, "goodbye.wait")


_CHECKS: Mapping[type[Message], Callable[[Any], None]] = {
    node_pb2.EnrolRequest: _check_enrol,
    node_pb2.EnrolResponse: lambda response: check_id(response.federation, "federation"),
    node_pb2.ChallengeRequest: _check_challenge,
    node_pb2.ChallengeResponse: _check_challenged,
    node_pb2.OpenSessionRequest: _check_open,
    node_pb2.OpenSessionResponse: _check_opened,
    node_pb2.Task: check_task,
    node_pb2.SubscribeResponse: _check_notice,
    node_pb2.ReportRequest: lambda report: check_task_id(report.id),  # of the rest the server lets the task fail
    values_pb2.ReadBlobRequest: _check_digest,
    values_pb2.StatBlobRequest: _check_digest,
    values_pb2.BlobHead: check_head,
}


def check(message: Message) -> None:
    """Refuse a message that the other side should not have sent; one of a kind that needs no look passes.

    Raises:
        FormatError: names the message and the field.
    """
    look = _CHECKS.get(type(message))
    if look is None:
        return
    try:
        look(message)
    except FormatError as error:
        raise FormatError(f"{type(message).__name__}: {error.what}", advice=error.advice) from error


__all__ = [
    "ARRAYS",
    "KINDS",
    "check",
    "check_app",
    "check_blob",
    "check_head",
    "check_report",
    "check_task",
    "check_task_id",
    "metrics_of",
]
