"""One training and one evaluation on the node's own data, without a server: does the app run here?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, final

from umbel import wire
from umbel.aggregate import Expected
from umbel.apps.describe import App
from umbel.arrays import Arrays
from umbel.engine.question import Question
from umbel.errors import AppError, UsageError
from umbel.link.tasks import task_of
from umbel.node.answers import failed, sent_blobs
from umbel.node.arrays_by_file import keep_file, pack_state, unpack_state
from umbel.node.children import Begin, Child, ChildDied, Children, Watch, load_error
from umbel.node.config import NodeConfig
from umbel.node.installed import InstalledApp
from umbel.node.memory import group_memory
from umbel.node.policy import pick_dataset

_RUN, _SEED = "0" * 32, 0
_LOOK = 0.05  # seconds between two looks at the memory that is taken


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What came of one task.

    Attributes:
        kind: "train" or "evaluate".
        seconds: that it took.
        memory: bytes of memory that the app's processes took at most, as far as was seen; 0: unknown.
        metrics: what it reported.
        weight: the same; usually the number of examples.
        size: bytes of arrays that would leave the node.
        code: of the failure; "": it went well.
        message: what happened, and what to do.
        traceback: of the app's own code, or "".
        output: the last of what it printed.
    """

    kind: str
    seconds: float
    memory: int = 0
    metrics: Mapping[str, Any] = field(default_factory=dict)
    weight: float = 0.0
    size: int = 0
    code: str = ""
    message: str = ""
    traceback: str = ""
    output: str = ""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a check has found.

    Attributes:
        app: which app.
        dataset: the data set's name.
        seconds: that loading the app took.
        steps: what came of each task.
    """

    app: App
    dataset: str
    seconds: float
    steps: tuple[Step, ...]

    @property
    def ok(self) -> bool:
        """Did all go well?"""
        return all(not step.code for step in self.steps)


async def check(
    config: NodeConfig,
    app: InstalledApp,
    directory: Path,
    *,
    environment: Mapping[str, str],
    server: str = "",
    model: Arrays | None = None,
    settings: Mapping[str, Any] | None = None,
    dataset: str = "",
) -> Checked:
    """Load the app as the node does, train once, and evaluate once if it can.

    Args:
        config: what the owner says; its limits hold, its policy is not asked.
        app: the app.
        directory: for temporary files.
        environment: the variables that the app's process starts with.
        server: the app's server, as in "myfed:server", for the initial model and the first round's config.
        model: the model to begin with instead.
        settings: the config instead.
        dataset: the data set's name; "": the only one.

    Raises:
        UsageError: there is no such data set, or no model.
        AppError: the app cannot be loaded; with its traceback.
    """
    chosen = pick_dataset(dataset, config.data)
    if chosen is None:
        what = (
            f"there is no data set {dataset!r}" if dataset else "there are several data sets, and none is the default"
        )
        raise UsageError(what, advice=f"name one with --dataset: {', '.join(config.data)}")
    begin = Begin(
        source=str(app.source),
        object=app.app.object,
        digest=app.app.digest.hex(),
        dataset=chosen.name,
        client=config.name or "node",
        labels=config.labels,
        site=chosen.settings,
        seed=_SEED,
        threads=config.threads or 1,
        devices=config.devices,
        run_as=config.run_as,
    )
    children = Children(directory / "check", environment=environment, warm=0, idle=0.0, log=lambda *_: None)
    try:
        async with children.child(begin) as child:
            since = time.perf_counter()
            await _loaded(child, app, config.limits.max_memory)
            seconds = time.perf_counter() - since
            names = child.handlers
            model, settings = await _given(child, server, model, settings)
            watch = Watch(seconds=config.limits.max_seconds, memory=config.limits.max_memory)
            trial = _Trial(child, app, watch, model, settings)
            steps = [await trial.step(kind) for kind in ("train", "evaluate") if kind in names]
    finally:
        await children.close()
    return Checked(app=app.with_handlers(names).app, dataset=chosen.name, seconds=seconds, steps=tuple(steps))


async def _loaded(child: Child, app: InstalledApp, memory: int) -> None:
    try:
        head = (await child.ready(memory)).header
    except ChildDied as error:
        raise error.while_loading(app.app.name) from error
    if head.get("is") != "ready":
        raise load_error(app.app.name, str(head.get("message")), str(head.get("traceback", "")))


async def _given(
    child: Child, server: str, model: Arrays | None, settings: Mapping[str, Any] | None
) -> tuple[Arrays, Mapping[str, Any]]:
    """The model and the config: what was given, else what the app's server begins with."""
    if server and (model is None or settings is None):
        head, body = await child.do({"initial": server}, b"", Watch())
        if head.get("is") != "initial":
            raise AppError(
                f"{server} gives no initial model: {head.get('message')}\n{head.get('traceback', '')}".rstrip()
            )
        if model is None and head["model"] is not None:
            model = Arrays.load(child.out / head["model"])
        if settings is None:
            settings = unpack_state(head["config"], body, lambda name: Arrays.load(child.out / name))
    if model is None:
        raise UsageError(
            "there is no model to begin with",
            advice="give --model, the path of a .safetensors file; or an app whose ServerApp has one",
        )
    return model, settings or {}


@final
class _Trial:
    """The tasks of a check, in one child."""

    def __init__(
        self, child: Child, app: InstalledApp, watch: Watch, model: Arrays, settings: Mapping[str, Any]
    ) -> None:
        self._child, self._app, self._watch, self._model, self._settings = child, app, watch, model, settings

    async def step(self, kind: Literal["train", "evaluate"]) -> Step:
        """Do a task."""
        task, blobs = self._task(kind)
        packed, _ = pack_state({}, lambda _: "")
        data = task.SerializeToString()
        most = [0]
        looking = asyncio.ensure_future(self._look(most))
        since, output = time.perf_counter(), ""
        try:
            head, body = await self._child.do({"task": len(data), "blobs": blobs, "state": packed}, data, self._watch)
            if head.get("is") == "answer":
                report = wire.ReportRequest.FromString(body[: head["report"]])
            else:
                said = [str(head.get(name, "")) for name in ("code", "message", "traceback")]
                report = failed(task, said[0], said[1], trace=said[2])
        except ChildDied as error:
            report, output = failed(task, error.code, str(error)), error.output
        finally:
            seconds = time.perf_counter() - since
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking
        return _step(
            kind, report, seconds, max(most[0], group_memory(self._child.pid)), output or self._child.output.tail()
        )

    async def _look(self, most: list[int]) -> None:
        while True:
            most[0] = max(most[0], group_memory(self._child.pid))
            await asyncio.sleep(_LOOK)

    def _task(self, kind: Literal["train", "evaluate"]) -> tuple[wire.Task, dict[str, str]]:
        blobs: dict[str, str] = {}

        def place(arrays: Arrays) -> wire.Blob:
            digest = keep_file(self._child.out, arrays)
            blobs[digest] = str(self._child.out / digest)
            return wire.Blob(digest=bytes.fromhex(digest), size=len(arrays.to_bytes()))

        question = Question(
            kind=kind,
            name=kind,
            seed=_SEED,
            round=1,
            call=1,
            sequence=1,
            model=self._model,
            config=self._settings,
            expected=Expected(sent=self._model.spec) if kind == "train" else None,
        )
        task = task_of(question, place)
        task.id.CopyFrom(wire.TaskId(run=_RUN, exchange=1, client=self._child.begin.client, attempt=1))
        task.app.CopyFrom(self._app.app.message())
        return task, blobs


def _step(kind: str, report: wire.ReportRequest, seconds: float, memory: int, output: str) -> Step:
    outcome = report.WhichOneof("outcome")
    if outcome == "failure":
        f = report.failure
        return Step(
            kind=kind,
            seconds=seconds,
            memory=memory,
            code=f.code,
            message=f.message,
            traceback=f.traceback,
            output=output,
        )
    what = report.update if outcome == "update" else report.metrics
    return Step(
        kind=kind,
        seconds=seconds,
        memory=memory,
        metrics=wire.metrics_of(what.metrics),
        weight=what.weight,
        size=sum(blob.size for blob in sent_blobs(report)),
        output=output,
    )


__all__ = ["Checked", "Step", "check"]
