"""Questions as tasks, and what came of them as reports: the seam between the engine's values and the wire's messages.

Arrays become blobs through ``place`` and come back through ``fetch``; whether their bytes travel inside the message,
are written first, or are there already, is for those two to know.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any, get_args

import numpy as np

from umbel import wire
from umbel.aggregate.expected import Expected, Shapes
from umbel.arrays import Arrays
from umbel.codec import decode, encode, own_classes
from umbel.correction import LocalRule
from umbel.engine.question import Question
from umbel.errors import Failure, FormatError
from umbel.link.status import shortened
from umbel.spec import Spec, spec_of
from umbel.transforms import Chain
from umbel.update import Metric, Metrics, Update, check_weight
from umbel.wire.limits import CONFIG, DETAILS, MESSAGE_TEXT, METRICS, OUTPUT, TRACEBACK

Place = Callable[[Arrays], wire.Blob]
Fetch = Callable[[wire.Blob], Arrays]
_MODEL = "model"
_ABILITIES = ("transforms", "local-rule", "extra-results")


# --- to a node -----------------------------------------------------------------------------------


def task_of(question: Question, place: Place) -> wire.Task:
    """What all tasks of an exchange have in common; the rest is for the server to fill in.

    Not filled in: the id, what the run is called and who submitted it, app, data set, state, deadline, threads.

    Args:
        question: what is asked.
        place: keeps arrays, and names them; called once for each.

    Raises:
        UsageError: something in it cannot be sent; says what.
    """
    task = wire.Task(
        kind=question.kind,
        name=question.name,
        round=question.round,
        seed=str(question.seed),
        call=question.call,
        again=question.attempt,
    )
    if question.model is not None:
        task.model.CopyFrom(place(question.model))
    for name, arrays in question.extra.items():
        task.extra.add(name=name).blob.CopyFrom(place(arrays))
    attached: dict[str, wire.Blob] = {}

    def attach(arrays: Arrays) -> str:
        blob = place(arrays)
        attached[blob.digest.hex()] = blob
        return blob.digest.hex()

    config = encode(dict(question.config), attach, where="config")
    task.config = wire.to_json(config, "config", CONFIG)
    task.details = wire.to_json(_details(question, attach), "what the node must know of this round", DETAILS)
    task.attachments.extend(attached.values())
    asked = (question.chain.steps, question.rule, question.extra_expected)
    task.needs.extend(name for name, there in zip(_ABILITIES, asked, strict=True) if there)
    return task


def _details(question: Question, attach: Callable[[Arrays], str]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if question.expected is not None:
        made["expected"] = _written(question.expected, question.model)
    if question.extra_expected:
        made["extra_expected"] = {name: _written(e, question.model) for name, e in question.extra_expected.items()}
    if question.chain.steps:
        made["chain"] = encode(question.chain, attach, where="the chain of transforms")
    if question.plans:
        made["plans"] = encode(question.plans, attach, where="the transforms' plans")
    if question.rule is not None:
        made["rule"] = encode(question.rule, attach, where="the local rule")
    return made


def _written(expected: Expected, model: Arrays | None) -> dict[str, Any]:
    """Plain JSON: a client in another language may look at it."""
    sent: str | None = None
    if expected.sent is not None:
        same = model is not None and expected.sent == model.spec
        sent = _MODEL if same else base64.b64encode(expected.sent.header).decode()
    return {
        "sent": sent,
        "shapes": expected.shapes,
        "optional": expected.optional,
        "max_bytes": expected.max_bytes,
        "finite": expected.finite,
    }


# --- at a node -----------------------------------------------------------------------------------


def question_of(task: wire.Task, fetch: Fetch, *, allow: Callable[[str], bool] = own_classes) -> Question:
    """The question that a task asks, without what is the server's alone: its aggregators are None.

    Args:
        task: as it came; it was checked.
        fetch: gives the arrays of a blob.
        allow: may an object of this class, "module:Name", be made? Only dataclasses ever are.

    Raises:
        FormatError: it is not what `task_of` makes, or a class is not allowed.
    """
    wire.check_task(task)
    model = fetch(task.model) if task.HasField("model") else None
    attached = {blob.digest.hex(): blob for blob in task.attachments}

    def attachment(name: str) -> Arrays:
        if name not in attached:
            raise FormatError(f"blob {name[:12]!r} is named, and not attached")
        return fetch(attached[name])

    def value(data: Any) -> Any:
        return decode(data, attachment, allow=allow)

    config = value(wire.from_json(task.config or "{}", "config", CONFIG))
    details = wire.from_json(task.details or "{}", "details", DETAILS)
    expected = details.get("expected")
    return Question(
        kind=task.kind,  # type: ignore[arg-type]  # it was checked
        name=task.name,
        seed=int(task.seed),
        round=task.round,
        call=task.call,
        attempt=task.again,
        sequence=task.id.exchange,
        model=model,
        extra={named.name: fetch(named.blob) for named in task.extra},
        config=_checked(config, Mapping, "config"),
        expected=None if expected is None else _read(expected, model),
        extra_expected={
            name: _read(e, model) for name, e in _checked(details.get("extra_expected", {}), dict, "extra").items()
        },
        chain=_checked(value(details["chain"]), Chain, "chain") if "chain" in details else Chain(),
        plans=_plans(value(details.get("plans", []))),
        rule=_checked(value(details["rule"]), LocalRule, "rule") if "rule" in details else None,
    )


def _checked(value: Any, kind: type, field: str) -> Any:
    if not isinstance(value, kind):
        raise FormatError(f"details: {field} is a {type(value).__name__}")
    return value


def _plans(value: Any) -> tuple[Arrays | None, ...]:
    plans = list(value) if isinstance(value, tuple | list) else [value]
    if not all(plan is None or isinstance(plan, Arrays) for plan in plans):
        raise FormatError("details: a plan is neither arrays nor null")
    return tuple(plans)


def _read(data: Any, model: Arrays | None) -> Expected:
    match data:
        case {
            "sent": None | str() as sent,
            "shapes": str() as shapes,
            "optional": bool() as optional,
            "max_bytes": int() as most,
            "finite": bool() as finite,
        } if shapes in get_args(Shapes) and most >= 0:
            return Expected(
                sent=_spec(sent, model),
                shapes=shapes,  # type: ignore[arg-type]  # looked at above
                optional=optional,
                max_bytes=most,
                finite=finite,
            )
    raise FormatError("details: what is expected is not said as it should be")


def _spec(sent: str | None, model: Arrays | None) -> Spec | None:
    if sent is None:
        return None
    if sent == _MODEL:
        if model is None:
            raise FormatError("details: the model is expected back, and none was sent")
        return model.spec
    try:
        header = base64.b64decode(sent, validate=True)
        if int.from_bytes(header[:8], "little") != len(header) - 8:
            raise ValueError("its length is wrong")
        return spec_of(header)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FormatError(f"details: what is expected cannot be read: {error}") from error


# --- from a node ---------------------------------------------------------------------------------


def report_of(
    id: wire.TaskId,  # the field's word
    result: Update | Metrics | Failure,
    place: Place,
    *,
    seconds: float = 0.0,
    state: bool = False,
    output: str = "",
    retryable: bool = False,
) -> wire.ReportRequest:
    """The report of what came of a task.

    Args:
        id: of the task.
        result: what came of it.
        place: keeps arrays, and names them.
        seconds: that it took.
        state: has the client kept a new state?
        output: what user code has printed; the last of it is sent.
        retryable: of a failure: may it work when it is asked again?
    """
    report = wire.ReportRequest(id=id, seconds=seconds, state=state, output=output[-OUTPUT:])
    if isinstance(result, Failure):
        report.failure.CopyFrom(
            wire.Failure(
                code=result.code,
                message=shortened(result.message, MESSAGE_TEXT - 4),
                traceback=result.traceback[-TRACEBACK:],
                retryable=retryable,
            )
        )
    elif isinstance(result, Metrics):
        report.metrics.CopyFrom(wire.Metrics(weight=result.weight, metrics=metrics_text(result.values)))
    else:
        update = wire.Update(
            kind=result.kind,
            arrays=place(result.arrays),
            weight=result.weight,
            metrics=metrics_text(result.metrics),
            extra=[wire.NamedBlob(name=name, blob=place(arrays)) for name, arrays in result.extra.items()],
        )
        report.update.CopyFrom(update)
    return report


def metrics_text(metrics: Mapping[str, Metric]) -> str:
    """Metrics as a JSON object; arrays as lists."""
    plain = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in metrics.items()}
    return wire.to_json(plain, "metrics", METRICS)


def result_of(report: wire.ReportRequest, question: Question, fetch: Fetch) -> Update | Metrics | Failure:
    """What came of a task. Whether an update fits the question, `Question.check` says.

    Args:
        report: as it came; it was checked.
        question: what was asked.
        fetch: gives the arrays of a blob.

    Raises:
        FormatError: it is no report, or answers something else.
        BadUpdate: the weight or a metric makes no sense.
    """
    outcome = report.WhichOneof("outcome")
    if outcome == "failure":
        return Failure(
            client=report.id.client,
            round=question.round,
            kind=question.label,
            code=report.failure.code,
            message=report.failure.message,
            traceback=report.failure.traceback,
        )
    wanted = "metrics" if question.kind == "evaluate" else "update"
    if outcome != wanted:
        raise FormatError(f"the task is to {question.label}; it was answered with {outcome}, not {wanted}")
    if outcome == "metrics":
        return Metrics.made(wire.metrics_of(report.metrics.metrics), weight=check_weight(report.metrics.weight))
    update = report.update
    return Update.made(
        update.kind,  # type: ignore[arg-type]  # it was checked
        fetch(update.arrays),
        weight=check_weight(update.weight),
        metrics=wire.metrics_of(update.metrics),
        extra={named.name: fetch(named.blob) for named in update.extra},
    )


__all__ = ["Fetch", "Place", "metrics_text", "question_of", "report_of", "result_of", "task_of"]
