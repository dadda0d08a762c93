"""What is refused of messages from the other side, by the name of the field."""

from __future__ import annotations

import math
from typing import Any

import pytest
from google.protobuf.message import Message

from umbel import wire
from umbel.errors import FormatError

DIGEST = bytes(range(32))
RUN = "0123456789abcdef" * 2
ID = {"run": RUN, "exchange": 1, "client": "berlin", "attempt": 1}
BLOB = {"digest": DIGEST, "size": 3, "content": b"abc"}
TASK = {"id": ID, "kind": "train", "name": "train", "round": 1, "call": 1, "seed": "7", "model": BLOB, "config": "{}"}
UPDATE = {"kind": "delta", "arrays": BLOB, "weight": 1.0, "metrics": '{"loss": 0.5, "many": [[1, 2], [3, 4]]}'}
REPORT = {"id": ID, "update": UPDATE}
OPEN = {"name": "berlin", "challenge": b"c", "signature": bytes(64), "versions": [1], "slots": 1}
OPENED = {"session": bytes(16), "version": 1, "keepalive": 20, "chunk": 1 << 20, "inline": 1 << 16, "federation": RUN}
APP = {"name": "myfed", "digest": DIGEST}
SIGNED = {"key": DIGEST, "name": "Ada", "signature": bytes(64)}
WHEEL = {"digest": DIGEST, "size": 70_000}
NAN = math.nan

GOOD: list[Message] = [
    wire.Task(**TASK),  # type: ignore[arg-type]
    wire.Task(**{**TASK, "kind": "query", "name": "histogram", "app": APP, "extra": [{"name": "a", "blob": BLOB}]}),  # type: ignore[arg-type]
    wire.Task(**{**TASK, "app": {**APP, "wheel": WHEEL, "signatures": [SIGNED] * 32}}),  # type: ignore[arg-type]
    wire.ReportRequest(**REPORT),  # type: ignore[arg-type]
    wire.ReportRequest(id=wire.TaskId(**ID), metrics=wire.Metrics(weight=0)),  # type: ignore[arg-type]
    wire.ReportRequest(id=wire.TaskId(**ID), failure=wire.Failure(code="client-failed")),  # type: ignore[arg-type]
    wire.OpenSessionRequest(**OPEN),  # type: ignore[arg-type]
    wire.OpenSessionRequest(**OPEN, apps=[APP, {"name": "played-by-another-program"}]),  # type: ignore[arg-type]
    wire.OpenSessionResponse(**OPENED),  # type: ignore[arg-type]
    wire.EnrolRequest(ticket="x", name="a", public_key=DIGEST),
    wire.SubscribeResponse(),
    wire.BlobHead(digest=DIGEST, size=5, offset=5),
    wire.ListRunsRequest(),
]


@pytest.mark.parametrize("message", GOOD, ids=lambda message: type(message).__name__)
def test_what_is_right_passes(message: Message) -> None:
    wire.check(message)
    if isinstance(message, wire.ReportRequest):
        wire.check_report(message)


def task(**changes: Any) -> wire.Task:
    return wire.Task(**{**TASK, **changes})


def report(**changes: Any) -> wire.ReportRequest:
    return wire.ReportRequest(**{**REPORT, **changes})


def update(**changes: Any) -> wire.ReportRequest:
    return report(update={**UPDATE, **changes})


def failure(**changes: Any) -> wire.ReportRequest:
    return wire.ReportRequest(id=ID, failure={"code": "x", **changes})


def opening(**changes: Any) -> wire.OpenSessionRequest:
    return wire.OpenSessionRequest(**{**OPEN, **changes})


def opened(**changes: Any) -> wire.OpenSessionResponse:
    return wire.OpenSessionResponse(**{**OPENED, **changes})


BAD: list[tuple[str, Message]] = [
    ("id.run", task(id={**ID, "run": "../x"})),
    ("id.client", task(id={**ID, "client": "A/B"})),
    ("id.exchange", task(id={**ID, "exchange": 0})),
    ("id.attempt", task(id={**ID, "attempt": 0})),
    ("kind", task(kind="delete")),
    ("name", task(name="other")),
    ("name", task(kind="query", name="")),
    ("name", task(kind="query", name="x" * 201)),
    ("round", task(round=0)),
    ("call", task(call=0)),
    ("model", wire.Task(**{k: v for k, v in TASK.items() if k != "model"})),  # type: ignore[arg-type]
    ("model.digest", task(model={"digest": b"x", "size": 1})),
    ("model.size", task(model={"digest": DIGEST, "size": 1 << 41})),
    ("model.content", task(model={"digest": DIGEST, "size": 4, "content": b"abc"})),
    ("seed", task(seed="")),
    ("seed", task(seed="-1")),
    ("seed", task(seed="١")),
    ("seed", task(seed="9" * 1001)),
    ("config", task(config="x" * 300_000)),
    ("details", task(details="x" * 2_000_000)),
    ("extra", task(extra=[{"name": "a", "blob": BLOB}] * 2)),
    ("extra", task(extra=[{"name": "", "blob": BLOB}])),
    ("extra", task(extra=[{"name": str(i), "blob": BLOB} for i in range(257)])),
    ("attachments", task(attachments=[{"digest": b""}])),
    ("needs", task(needs=["x"] * 257)),
    ("deadline", task(deadline=NAN)),
    ("deadline", task(deadline=-1)),
    ("app.digest", task(app={"name": "a"})),
    ("app.signers", task(app={**APP, "signers": [b"x"]})),
    ("app.wheel.digest", task(app={**APP, "wheel": {"digest": b"x"}})),
    ("app.wheel.size", task(app={**APP, "wheel": {**WHEEL, "size": 1 << 41}})),
    ("app.signatures", task(app={**APP, "signatures": [SIGNED] * 33})),
    ("app.signatures.key", task(app={**APP, "signatures": [{**SIGNED, "key": b"x"}]})),
    ("app.signatures.name", task(app={**APP, "signatures": [{**SIGNED, "name": "x" * 201}]})),
    ("app.signatures.signature", task(app={**APP, "signatures": [{**SIGNED, "signature": b""}]})),
    ("outcome", wire.ReportRequest(id=ID)),
    ("seconds", report(seconds=math.inf)),
    ("output", report(output="x" * 20_000)),
    ("update.kind", update(kind="gradient")),
    ("update.arrays.digest", update(arrays={})),
    ("weight", update(weight=NAN)),
    ("weight", update(weight=-1)),
    ("metrics", update(metrics="[]")),
    ("metric", update(metrics='{"a": "text"}')),
    ("metric", update(metrics='{"a": [[1], [2, 3]]}')),
    ("metric", update(metrics='{"a": {"$float": "nan"}}')),
    ("metrics", update(metrics='{"a": ' + str([0] * 101) + "}")),
    ("weight", report(metrics={"weight": 1e30})),
    ("failure.code", failure(code="")),
    ("failure.code", failure(code="ü")),
    ("failure.code", failure(code="x" * 65)),
    ("failure.message", failure(message="x" * 9000)),
    ("failure.traceback", failure(traceback="x" * 70_000)),
    ("name", opening(name="../x")),
    ("challenge", opening(challenge=b"")),
    ("challenge", opening(challenge=bytes(65))),
    ("signature", opening(signature=b"x")),
    ("slots", opening(slots=0)),
    ("slots", opening(slots=1 << 31)),
    ("apps", opening(apps=[{}])),
    ("apps.digest", opening(apps=[{"name": "a", "digest": b"x"}])),
    ("labels", opening(labels=[{"name": ""}])),
    ("datasets", opening(datasets=["x" * 201])),
    ("session", opened(session=b"")),
    ("chunk", opened(chunk=0)),
    ("chunk", opened(chunk=1 << 30)),
    ("inline", opened(inline=1 << 30)),
    ("keepalive", opened(keepalive=0)),
    ("federation", opened(federation="x")),
    ("public_key", wire.EnrolRequest(ticket="x", name="a", public_key=b"x")),
    ("name", wire.ChallengeRequest(name="")),
    ("challenge", wire.ChallengeResponse()),
    ("digest", wire.ReadBlobRequest(digest=b"x")),
    ("digest", wire.StatBlobRequest()),
    ("head.offset", wire.BlobHead(digest=DIGEST, size=5, offset=6)),
    ("head.size", wire.BlobHead(digest=DIGEST, size=1 << 41)),
    ("kind", wire.SubscribeResponse(task=task(kind="x"))),
    ("id.run", wire.SubscribeResponse(revoke={"tasks": [{}]})),
    ("goodbye.wait", wire.SubscribeResponse(goodbye={"wait": NAN})),
]


@pytest.mark.parametrize(("field", "message"), BAD)
def test_what_is_wrong_is_refused_by_name(field: str, message: Message) -> None:
    if isinstance(message, wire.ReportRequest):
        wire.check(message)  # the server lets the task fail
        with pytest.raises(FormatError) as caught:
            wire.check_report(message)
    else:
        with pytest.raises(FormatError) as caught:
            wire.check(message)
        assert caught.value.what.startswith(type(message).__name__)
    assert field in caught.value.what
    assert len(str(caught.value)) < 500
