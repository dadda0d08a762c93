"""Questions survive their way over the wire, and bytes from anywhere are read or refused, never worse."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

import umbel
from umbel import wire
from umbel.aggregate.expected import Expected
from umbel.arrays import Arrays
from umbel.codec import describe, fingerprint
from umbel.correction import Proximal
from umbel.digest import digest_of
from umbel.engine.question import Kind, Question
from umbel.errors import BadUpdate, Failure, FormatError, UmbelError, UsageError
from umbel.link.address import Address
from umbel.link.dispatch import COUNTER, SESSION, SIGNATURE, Broken, Dispatch
from umbel.link.sessions import Sessions
from umbel.link.tasks import question_of, report_of, result_of, task_of
from umbel.transforms import Chain
from umbel.update import Metrics, Update
from umbel.wire.frames import read_data, read_head, write_data
from umbel.wire.methods import CONTROL, NODE

ID = wire.TaskId(run="0123456789abcdef" * 2, exchange=7, client="berlin", attempt=2)
NAMES = st.text(min_size=1, max_size=20).filter(lambda name: name != "__metadata__" and not name.startswith("$"))
NUMBERS = st.one_of(st.integers(-(2**70), 2**70), st.floats(), st.booleans(), st.none(), st.text(max_size=9))
VALUES = st.recursive(
    st.one_of(
        NUMBERS,
        st.binary(max_size=9),
        st.floats(width=32).map(np.float32),
        st.integers(0, 2000).map(lambda size: np.arange(size, dtype=np.float64)),
        st.integers(0, 5).map(lambda size: np.asfortranarray(np.ones((size, 3), np.int16))),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.tuples(inner, inner), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@st.composite
def arrays(draw: st.DrawFn, *, payload: bool = False) -> Arrays:
    shapes = st.lists(st.integers(0, 3), max_size=2).map(tuple)
    dtypes = st.sampled_from(["float32", "float64", "float16", "int64", "bool"])
    entries = draw(st.dictionaries(NAMES, st.tuples(shapes, dtypes), max_size=4))
    values = {name: np.full(shape, 1, dtype) for name, (shape, dtype) in entries.items()}
    return Arrays({**values, "tree": b"\x00tree"} if payload else values)


@st.composite
def questions(draw: st.DrawFn) -> Question:
    kind: Kind = draw(st.sampled_from(["train", "evaluate", "query"]))
    model = None if kind == "query" and draw(st.booleans()) else draw(arrays())
    other = draw(arrays())
    spec = model.spec if model is not None and draw(st.booleans()) else other.spec
    expected = Expected(
        sent=spec if kind == "train" else None,
        shapes=draw(st.sampled_from(["equal", "slices", "free"])),
        optional=draw(st.booleans()),
        max_bytes=draw(st.integers(0, 2**40)),
        finite=draw(st.booleans()),
    )
    steps = draw(st.lists(st.floats(0.1, 9).map(umbel.transforms.clip), max_size=3))
    return Question(
        kind=kind,
        name=draw(NAMES) if kind == "query" else kind,
        seed=draw(st.integers(0, 2**200)),
        round=draw(st.integers(1, 2**31)),
        call=draw(st.integers(1, 2**31)),
        attempt=draw(st.integers(0, 2**31)),
        sequence=ID.exchange,
        model=model,
        extra=draw(st.dictionaries(NAMES, arrays(payload=True), max_size=2)),
        config=draw(st.dictionaries(st.text(max_size=9), VALUES, max_size=4)),
        aggregator=umbel.aggregate.mean(),
        expected=None if kind == "evaluate" else expected,
        extra_expected=draw(st.dictionaries(NAMES, st.just(expected), max_size=2)),
        chain=Chain(tuple(steps)),
        plans=tuple(draw(st.one_of(st.none(), arrays())) for _ in steps),
        rule=draw(st.sampled_from([None, Proximal(mu=0.5)])) if kind == "train" else None,
    )


class Blobs:
    """Keeps arrays, some inside the message, by digest."""

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}

    def place(self, given: Arrays) -> wire.Blob:
        data = bytes(given.to_bytes())
        digest = digest_of(data)
        self.kept[digest] = data
        inside = {"content": data} if len(data) % 2 else {}
        return wire.Blob(digest=digest, size=len(data), **inside)

    def fetch(self, blob: wire.Blob) -> Arrays:
        return Arrays.from_bytes(self.kept[blob.digest])


@given(questions())
def test_a_question_is_the_same_at_the_node(question: Question) -> None:
    blobs = Blobs()
    task = task_of(question, blobs.place)
    task.id.CopyFrom(ID)
    wire.check_task(task)
    back = question_of(wire.parse(wire.Task, task.SerializeToString()), blobs.fetch)
    known = replace(question, aggregator=None)  # the server's alone
    assert json.dumps(describe(back)) == json.dumps(describe(known))  # as text: NaN is not equal to itself
    assert fingerprint(back) == fingerprint(known)
    assert type(back.config) is dict
    assert ("transforms" in task.needs) == bool(question.chain.steps)
    assert ("local-rule" in task.needs) == (question.rule is not None)
    assert ("extra-results" in task.needs) == bool(question.extra_expected)


METRICS = st.dictionaries(
    st.text(max_size=20).filter(str.isprintable),
    st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(1, 4).map(lambda n: np.ones((n, n)))),
    max_size=5,
)
WEIGHTS = st.one_of(st.just(0.0), st.floats(1e-12, 1e12))
ASKED = Question(kind="train", name="train", seed=1, round=3, call=1, model=Arrays({}))


@given(
    st.sampled_from(["model", "delta", "value"]),
    arrays(),
    WEIGHTS,
    METRICS,
    st.dictionaries(NAMES, arrays(), max_size=3),
)
def test_an_update_is_the_same_at_the_server(
    kind: str, given: Arrays, weight: float, metrics: dict[str, Any], extra: dict[str, Arrays]
) -> None:
    blobs = Blobs()
    update = Update(**{kind: given}, weight=weight, metrics=metrics, extra=extra)  # type: ignore[arg-type]
    report = wire.parse(wire.ReportRequest, report_of(ID, update, blobs.place, state=True).SerializeToString())
    wire.check_report(report)
    back = result_of(report, ASKED, blobs.fetch)
    assert isinstance(back, Update)
    assert (back.kind, back.weight, back.arrays) == (kind, weight, given)
    assert dict(back.extra) == extra
    assert describe(back.metrics) == describe(update.metrics)


@given(WEIGHTS, METRICS)
def test_metrics_are_the_same_at_the_server(weight: float, metrics: dict[str, Any]) -> None:
    blobs = Blobs()
    report = report_of(ID, Metrics(metrics, weight), blobs.place)
    wire.check_report(report)
    asked = replace(ASKED, kind="evaluate", name="evaluate")
    back = result_of(report, asked, blobs.fetch)
    assert isinstance(back, Metrics)
    assert back.weight == weight
    assert describe(back.values) == describe(Metrics(metrics).values)
    with pytest.raises(FormatError, match="answered with metrics, not update"):
        result_of(report, ASKED, blobs.fetch)


@given(st.text(max_size=9000), st.text(max_size=300))
def test_a_failure_is_told(message: str, output: str) -> None:
    failure = Failure(client="berlin", round=3, kind="train", code="client-failed", message=message, traceback=message)
    report = report_of(ID, failure, Blobs().place, output=output, retryable=True)
    wire.check_report(report)
    back = result_of(report, ASKED, Blobs().fetch)
    assert isinstance(back, Failure)
    assert replace(back, message=failure.message) == failure
    assert back.message == message or back.message.endswith(" ...")
    assert report.failure.retryable


# --- bytes from anywhere -------------------------------------------------------------------------

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["$class", "fields", "$tuple", "$map", "$array", "$blob", "$arrays", "$float", "sent", "a"]
            ),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=10,
)
TASK = wire.Task(id=ID, kind="query", name="q", round=1, call=1, seed="1", config="{}")


@given(st.dictionaries(st.sampled_from(["expected", "extra_expected", "chain", "plans", "rule", "more"]), JSON), JSON)
def test_any_details_are_read_or_refused(details: Any, config: Any) -> None:
    task = wire.Task()
    task.CopyFrom(TASK)
    try:
        task.details, task.config = wire.to_json(details, "d", 1 << 20), wire.to_json(config, "c", 1 << 18)
    except UsageError:
        return
    with suppress(FormatError):
        question_of(task, Blobs().fetch)


@given(st.binary(max_size=300), st.sampled_from([*NODE.values(), *CONTROL.values()]))
def test_any_bytes_are_a_message_or_refused(data: bytes, method: Any) -> None:
    for kind in (method.request, method.response):
        with suppress(FormatError):
            message: Message = wire.parse(kind, data)
            wire.check(message)
    for read in (read_data, write_data, read_head):
        with suppress(FormatError):
            read(data)


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    for line in (text, f"umbel://{text}", f"umbel://host/{text}"):
        try:
            address = Address.parse(line)
        except UsageError:
            continue
        assert Address.parse(str(address)) == address


@given(
    st.sampled_from([method.path for method in NODE.values()] + ["/umbel.v1.NodeService/Other", ""]),
    st.binary(max_size=100),
    st.dictionaries(
        st.sampled_from([SESSION, COUNTER, SIGNATURE, "authorization"]), st.one_of(st.binary(), st.text()), max_size=4
    ),
)
def test_any_call_of_a_stranger_is_refused(path: str, body: bytes, metadata: dict[str, str | bytes]) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a stranger came through")

    async def main() -> None:
        attributes = (method.attribute for method in NODE.values())
        server = Dispatch(cast(Any, SimpleNamespace(**dict.fromkeys(attributes, never))), sessions=Sessions())

        async def messages() -> Any:
            yield body

        for call in (server.unary(path, body, metadata), server.upload(path, messages(), metadata)):
            with pytest.raises(Broken) as caught:
                await call
            assert caught.value.status.code != "INTERNAL"
        with pytest.raises(Broken):
            async for _ in server.stream(path, body, metadata):
                pass

    asyncio.run(main())


@given(st.binary(max_size=200), st.binary(max_size=80))
def test_any_challenge_is_refused(challenge: bytes, signature: bytes) -> None:
    with pytest.raises(UmbelError):
        Sessions().open("berlin", challenge, signature, bytes(32), 0.0)


def test_a_weight_that_makes_no_sense_is_the_updates_fault() -> None:
    report = report_of(ID, Metrics({}, 1.0), Blobs().place)
    report.metrics.weight = -1
    with pytest.raises(BadUpdate):
        result_of(report, replace(ASKED, kind="evaluate"), Blobs().fetch)
