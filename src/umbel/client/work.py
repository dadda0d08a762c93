"""Doing one task for one client: context, user code, checks, transforms. The same in a simulation and on a node."""

from __future__ import annotations

import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, final

import numpy as np

from umbel import rng
from umbel.aggregate.expected import RETURNED, check_finite
from umbel.aggregate.weighted_sum import WeightedSum
from umbel.arrays import Arrays
from umbel.client.app import ClientApp
from umbel.client.context import ClientInfo, Context, pick_device
from umbel.client.determinism import seed_all, set_threads
from umbel.engine.question import Question
from umbel.errors import BadUpdate, Failure, UmbelError, UsageError
from umbel.update import Metrics, Update

LOCAL = "umbel.local"  # where a client's state keeps the entries that never leave it
_CACHED_CLIENTS = 1024


@final
@dataclass(frozen=True, slots=True)
class Done:
    """What a task gave.

    Attributes:
        update: what is folded; of an evaluation, its metrics.
        state: the client's next state, which counts if the update does; None: unchanged.
    """

    update: Update | Metrics
    state: Mapping[str, Any] | None


@final
class Bench:
    """Where tasks are done: the app, and what is kept between its tasks in one process.

    Args:
        app: the user's code.
        seed: of the run.
        threads: how many a handler may compute with.
        devices: "auto" or a device's name.
    """

    def __init__(self, app: ClientApp, seed: int, *, threads: int = 1, devices: str = "auto") -> None:
        self._app, self._seed, self._threads, self._devices = app, seed, threads, devices
        self._shared: list[Any] = []
        self._data: OrderedDict[str, Any] = OrderedDict()
        self._doing = ""  # the handler that runs, for errors

    def do(
        self, question: Question, client: ClientInfo, state: Mapping[str, Any], *, debug: bool = False
    ) -> Done | Failure:
        """Do one task.

        Args:
            question: what is asked.
            client: of whom.
            state: the client's state as of the last exchange it was counted in.
            debug: let the user's exceptions through, for a debugger.
        """
        try:
            return self._do(question, client, state)
        except UmbelError as error:
            if debug and not isinstance(error, BadUpdate):
                raise
            return _failure(question, client, error.code, str(error), error)
        except Exception as error:
            if debug:
                raise
            text = f"its {self._doing} handler raised {type(error).__name__}: {error}"
            return _failure(question, client, "client-failed", text, error)

    def _do(self, question: Question, client: ClientInfo, state: Mapping[str, Any]) -> Done:
        model, state = _with_local_entries(question, state)
        ctx = self._context(question, client, model, state)
        try:
            handler = self._app.handler(question.name)
            self._prepare(question.label, *_task(question, client))
            returned = handler(model, ctx)
        finally:
            ctx.close()
        if question.kind == "evaluate":
            return Done(_as_metrics(returned), None)
        update = _as_update(returned, question)
        if not ctx.corrected:
            raise UsageError(
                "the strategy corrects local training, and the train handler did not apply it",
                advice="put the loop into `with umbel.torch.local(net, model, ctx) as local:`, or apply ctx.correction",
            )
        after = {k: _as_state(client, k, v) for k, v in ctx.state.items()}
        after |= {LOCAL: state[LOCAL]} if LOCAL in state else {}
        update = _take_local_entries(question, update, after)
        assert question.aggregator is not None
        question.aggregator.expects(question.sent).check(update)
        if question.chain.steps:
            update = question.chain.client(_as_delta(question, update), question.plans, question.round)
        return Done(update, after if after or state else None)

    def _context(
        self, question: Question, client: ClientInfo, model: Arrays | None, state: Mapping[str, Any]
    ) -> Context:
        correction = None
        if question.rule is not None and model is not None:
            correction = question.rule.correction(model, question.extra, state)
        visible = {k: v for k, v in state.items() if k != LOCAL}
        return Context(
            client,
            kind=question.label,
            key=rng.derive(self._seed, "ctx", *_task(question, client)),
            config=question.config,
            extra=question.extra,
            round=question.round,
            state=MappingProxyType(visible) if question.kind == "evaluate" else visible,
            device=lambda: pick_device(self._devices),
            shared=self._once_shared(client),
            data=self._cached_data(client),
            correction=correction,
        )

    def _prepare(self, handler: str, *names: str | int) -> None:
        self._doing = handler
        seed_all(rng.derive(self._seed, "task", handler, *names))
        set_threads(self._threads)

    def _once_shared(self, client: ClientInfo) -> Callable[[], Any] | None:
        setup = self._app.handlers.get("setup")
        if setup is None:
            return None
        if not self._shared:
            self._prepare("setup")
            ctx = Context(
                ClientInfo(name="", site=client.site),
                kind="setup",
                key=rng.derive(self._seed, "ctx", "setup"),
                device=lambda: pick_device(self._devices),
            )
            self._shared.append(setup(ctx))
        return lambda: self._shared[0]

    def _cached_data(self, client: ClientInfo) -> Callable[[], Any] | None:
        load = self._app.handlers.get("data")
        if load is None:
            return None
        if client.name not in self._data:
            self._prepare("data", client.name)
            ctx = Context(
                client,
                kind="data",
                key=rng.derive(self._seed, "ctx", "data", client.name),
                device=lambda: pick_device(self._devices),
                shared=self._once_shared(client),
            )
            self._data[client.name] = load(ctx)
            ctx.close()
            if len(self._data) > _CACHED_CLIENTS:
                self._data.popitem(last=False)
        self._data.move_to_end(client.name)
        return lambda: self._data[client.name]


def _task(question: Question, client: ClientInfo) -> tuple[str | int, ...]:
    """What names a task's streams of random numbers."""
    return client.name, question.name, question.round, question.call, question.attempt


def _failure(question: Question, client: ClientInfo, code: str, message: str, error: Exception) -> Failure:
    return Failure(
        client=client.name,
        round=question.round,
        kind=question.label,
        code=code,
        message=message,
        traceback="".join(traceback.format_exception(error)),
    )


def _as_update(returned: Any, question: Question) -> Update:
    if isinstance(returned, Update):
        return returned
    what = "nothing (None)" if returned is None else f"a {type(returned).__name__}"
    example = "umbel.Update(value={...})" if question.kind == "query" else "umbel.Update(model=..., weight=len(data))"
    raise BadUpdate(f"its {question.label} handler returned {what}", advice=f"return {example}")


def _as_metrics(returned: Any) -> Metrics:
    if isinstance(returned, Metrics):
        return returned
    what = "nothing (None)" if returned is None else f"a {type(returned).__name__}"
    raise BadUpdate(f"its evaluate handler returned {what}", advice='return umbel.Metrics({"accuracy": ...}, weight=n)')


def _as_state(client: ClientInfo, name: str, value: Any) -> Any:
    """A value of a client's state, as a copy that its next owner may not share."""
    if isinstance(value, bool | int | float | str | bytes | Arrays | None):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return value.copy()
    raise UsageError(
        f"client {client.name!r}: ctx.state[{name!r}] is a {type(value).__name__}",
        advice="a client's state holds numbers, strings, bytes, NumPy arrays and umbel.Arrays",
    )


def _with_local_entries(question: Question, state: Mapping[str, Any]) -> tuple[Arrays | None, Mapping[str, Any]]:
    """The model as the handler sees it: entries that never leave this client come from its state."""
    mine = state.get(LOCAL)
    if question.model is None or not isinstance(mine, Arrays):
        return question.model, state
    local = {e.name for e in question.model.spec.entries if e.role == "local"}
    model = question.model

    def write(name: str, out: Any) -> None:
        np.copyto(out, (mine if name in local and name in mine.spec.by_name else model).raw(name))

    return (Arrays.build(model.spec, write) if local else model), state


def _take_local_entries(question: Question, update: Update, after: dict[str, Any]) -> Update:
    """Keep local entries in the client's state, and let only those leave that are sent back."""
    if question.sent is None:
        return update
    roles = {name: e.role for name, e in question.sent.spec.by_name.items()}
    local = tuple(e for e in update.arrays.spec.entries if roles.get(e.name) == "local")
    if local and update.kind == "model":
        after[LOCAL] = update.arrays.select(lambda e: roles.get(e.name) == "local")
        check_finite(after[LOCAL])
    if all(roles.get(e.name, "trained") in RETURNED for e in update.arrays.spec.entries):
        return update
    return update.replace(update.arrays.select(lambda e: roles.get(e.name, "trained") in RETURNED))


def _as_delta(question: Question, update: Update) -> Update:
    """The update as the change of the model, in the precision of the sum; values stay as they are."""
    if question.sent is None or update.kind == "value":
        return update
    alone = WeightedSum(question.sent)
    alone.add(update, 1.0)
    assert alone.total is not None
    return update.replace(alone.total.freeze(), kind="delta")


__all__ = ["LOCAL", "Bench", "Done"]
