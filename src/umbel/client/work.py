"""Doing one task for one client: context, user code, checks, transforms. The same in a simulation and on a node."""

from __future__ import annotations

import inspect
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, final

import numpy as np

from umbel import rng
from umbel.arrays import Arrays
from umbel.client.app import ClientApp
from umbel.client.context import ClientInfo, Context, pick_device
from umbel.client.declared import Declared
from umbel.client.determinism import seed_all, set_threads
from umbel.client.failures import shortened, trace, words
from umbel.client.kept import Kept
from umbel.client.local_entries import take_local_entries, with_local_entries
from umbel.client.memory import resident
from umbel.client.state import CHAIN, LOCAL, OURS, RULE, ReadOnly, closed, opened, part, with_part
from umbel.codec import fingerprint
from umbel.correction import LocalRule, LocalTask
from umbel.engine.question import Question
from umbel.errors import BadUpdate, ClientFailed, Failure, UmbelError, UsageError
from umbel.transforms import Task
from umbel.update import Metrics, Update, check_metrics, check_update, check_weight

_CACHED_CLIENTS = 1024
_CACHED_BYTES = 1 << 30  # in each process: much beside what PyTorch takes, little beside what machines have per core
_DATA_SEED = 0  # a client's data is its own, and the same in every run: a split drawn there does not move
_CACHED_SITES = 64
_HEAD, _TAIL = 1500, 300  # characters of a message that shows a value of the user's; the advice stands at its end
_EVALUATING = "write to it in train or in a query: an evaluation changes nothing"


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
@dataclass(frozen=True, slots=True)
class _Begun:
    """A task whose handler can be called: of whom, with what."""

    client: ClientInfo
    model: Arrays | None
    state: Mapping[str, Any]
    ctx: Context


@final
class Bench:
    """Where tasks are done: the app, and what is kept between its tasks in one process.

    Args:
        app: the user's code.
        seed: of the run.
        threads: how many a handler may compute with.
        devices: "auto" or a device's name.
        number: of this process among the workers; they take GPUs in turn.
        scratch: gives the directory for temporary files; None: the system's.

    Attributes:
        device: where tasks compute, as far as one has asked; "" before.
        full: did the last task want more of a device's memory than there was?
    """

    def __init__(
        self,
        app: ClientApp,
        seed: int,
        *,
        threads: int = 1,
        devices: str = "auto",
        number: int = 0,
        scratch: Callable[[], str] | None = None,
    ) -> None:
        self._app, self._seed, self._threads, self._devices = app, seed, threads, devices
        self._number, self._scratch = number, scratch
        self.device, self.full = "", False
        self._shared: OrderedDict[str, Any] = OrderedDict()  # one for all clients, or one for each site
        self._site_matters = False  # does setup look at the site?
        self._data = Kept(_CACHED_CLIENTS, _CACHED_BYTES)
        self._doing = ""  # the user's code that runs, for errors; "" in between

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
        self.full = False
        try:
            return self._do(question, client, state)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # the task ends here; sys.exit() in it ends no more than that
            if debug:
                error.add_note(f"{question.label} of client {client.name!r} in round {question.round}, with debug=True")
                raise
            return self._failure(question, client, error)

    def ask(self, question: Question, client: ClientInfo, state: Mapping[str, Any]) -> Update | Metrics:
        """What the client's handler returns, and nothing of what the engine makes of it; exceptions are let through."""
        self._doing = ""
        task = self._begun(question, client, state)
        try:
            return self._asked(question, task)
        finally:
            task.ctx.close()

    def _asked(self, question: Question, task: _Begun) -> Update | Metrics:
        handler = self._app.handler(question.name)
        key = _keys(self._seed, question.label, _asked(question))(task.client.name)
        self._prepare(f"{question.label} handler", key)
        returned = handler(task.model, task.ctx)
        self._doing = ""
        return _as_metrics(returned) if question.kind == "evaluate" else _as_update(returned, question)

    def do_many(
        self,
        question: Question,
        clients: Sequence[ClientInfo],
        state: Callable[[str], Mapping[str, Any]],
        *,
        debug: bool = False,
        begin: Callable[[int], object] = lambda _: None,
    ) -> Iterator[Done | Failure]:
        """Do the tasks of a group, with declared training at once where that is faster; else `do` for each.

        Which group a client is in may change the last bits of its update. So a caller that wants the same bits forms
        groups by what the cohort is, and not by who works (`umbel.simulation.folding.groups`): clients that were asked
        when the exchange opened, in the order of their places, at most 64; and who is asked later (spares) alone. A
        group that was lost with its worker is done again as a whole. Within a group the handler cuts its own, smaller
        stacks, whose memory is bounded; see ``umbel.torch.local_sgd``.

        A client whose context cannot be made (its data handler raises) fails alone, and the others are a group. If
        anything fails in the group as a whole, its clients are done one by one, so that whose fault it was fails alone.

        Args:
            question: what is asked.
            clients: of whom.
            state: gives a client's state by its name, as for `do`.
            debug: let the user's exceptions through, for a debugger.
            begin: called with a client's place in the group before its code runs.

        Yields:
            What came of each, in their order.
        """
        self.full = False
        handler = self._app.handlers.get("train")
        if question.kind == "train" and len(clients) > 1 and isinstance(handler, Declared) and not self._app.middleware:
            done = self._do_many(question, clients, state, handler, begin)
            if done is not None and not (debug and any(isinstance(d, Failure) for d in done)):
                yield from done
                return
        for i, client in enumerate(clients):
            begin(i)
            yield self.do(question, client, state(client.name), debug=debug)

    def _do_many(
        self,
        question: Question,
        clients: Sequence[ClientInfo],
        state: Callable[[str], Mapping[str, Any]],
        handler: Declared,
        begin: Callable[[int], object],
    ) -> list[Done | Failure] | None:
        done: dict[str, Done | Failure] = {}
        tasks: list[_Begun] = []
        try:
            for i, client in enumerate(clients):
                self._doing = ""
                begin(i)
                try:
                    tasks.append(self._begun(question, client, state(client.name)))
                except KeyboardInterrupt:
                    raise
                except BaseException as error:  # noqa: BLE001  # as in do: the task ends here
                    done[client.name] = self._failure(question, client, error)
            if not tasks:
                return None
            key = _keys(self._seed, question.label, _asked(question))(tasks[0].client.name)
            self._prepare(f"{question.label} handler", key)
            try:
                updates = handler.many([t.model for t in tasks if t.model is not None], [t.ctx for t in tasks])
            except KeyboardInterrupt:
                raise
            except BaseException:  # noqa: BLE001  # done one by one, it is said of its own client
                updates = None
        finally:
            for task in tasks:
                task.ctx.close()
        if updates is None:
            return None
        for task, update in zip(tasks, updates, strict=True):
            self._doing = ""
            try:
                done[task.client.name] = self._finished(question, task, _as_update(update, question))
            except Exception as error:  # noqa: BLE001  # as in do: the task ends here
                done[task.client.name] = self._failure(question, task.client, error)
        return [done[client.name] for client in clients]

    def _do(self, question: Question, client: ClientInfo, state: Mapping[str, Any]) -> Done:
        self._doing = ""
        task = self._begun(question, client, state)
        try:
            update = self._asked(question, task)
        finally:
            task.ctx.close()
        return Done(update, None) if isinstance(update, Metrics) else self._finished(question, task, update)

    def _begun(self, question: Question, client: ClientInfo, state: Mapping[str, Any]) -> _Begun:
        model, state = with_local_entries(question, state)
        return _Begun(client, model, state, self._context(question, client, model, state))

    def _finished(self, question: Question, task: _Begun, update: Update) -> Done:
        """What becomes of what a handler returned."""
        client, model, state, ctx = task.client, task.model, task.state, task.ctx
        if not ctx.corrected:
            raise UsageError(
                "the strategy corrects local training, and the train handler did not apply it",
                advice="put the loop into `with umbel.torch.local(net, model, ctx) as local:`, or apply ctx.correction",
            )
        after = closed(ctx.state) | {name: value for name, value in state.items() if name.startswith(OURS)}
        update = take_local_entries(question, model, update, after)
        question.check(update)
        update, after = self._concluded(question, client, update, after)
        if question.chain.steps:
            update, after = self._transformed(question, client, update, after)
        return Done(update, after if after or state else None)

    def _concluded(
        self, question: Question, client: ClientInfo, update: Update, state: dict[str, Any]
    ) -> tuple[Update, dict[str, Any]]:
        """What the strategy's local rule makes of the finished training."""
        rule = question.rule
        if rule is None or question.sent is None or type(rule).after is LocalRule.after:
            return update, state
        assert question.expected is not None
        delta = question.expected.as_delta(question.sent, update)
        after = rule.after(_local_task(question, client, question.sent, state), delta.arrays, update.steps)
        update = update.replace(extra={**update.extra, **after.extra})
        question.check(update)
        return update, with_part(state, RULE, after.state)

    def _transformed(
        self, question: Question, client: ClientInfo, update: Update, state: dict[str, Any]
    ) -> tuple[Update, dict[str, Any]]:
        """The update after the client's side of the chain, checked again."""
        assert question.expected is not None
        key = rng.derive(self._seed, "transforms", *_task(question, client))
        mine = part(state, CHAIN)
        task = Task(client=client.name, round=question.round, key=key, noise=os.urandom, state=mine)
        self._doing = "chain of transforms"
        with np.errstate(all="ignore"):  # what is not finite is found, whatever the handler made of NumPy's warnings
            delta = question.expected.as_delta(question.sent, update)
            changed = question.chain.client(delta, question.plans, task)
        if not isinstance(changed, Update):
            raise ClientFailed(
                f"its chain of transforms made a {type(changed).__name__} of its update",
                advice="return update.replace(...) from Transform.client",
            )
        question.chain.expects(question.expected).check(changed)
        self._doing = ""
        return changed, with_part(state, CHAIN, mine)

    def _failure(self, question: Question, client: ClientInfo, error: BaseException) -> Failure:
        self.full = any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
        ours = isinstance(error, UmbelError)
        doing = f"its {self._doing} raised" if self._doing else "its task failed:"
        return Failure(
            client=client.name,
            round=question.round,
            kind=question.label,
            code=error.code if isinstance(error, UmbelError) else ClientFailed.code,
            message=shortened(str(error), _HEAD, _TAIL) if ours else f"{doing} {words(error)}{_hint(error)}",
            traceback=trace(error) if self._doing or not ours else "",
        )

    def _where(self) -> str:
        self.device = pick_device(self._devices, self._number)
        return self.device

    def _context(
        self, question: Question, client: ClientInfo, model: Arrays | None, state: Mapping[str, Any]
    ) -> Context:
        correction = None
        if question.rule is not None and model is not None:
            correction = question.rule.correction(_local_task(question, client, model, state))
        writable = question.kind != "evaluate"
        visible = opened(state, writable=writable)
        return Context(
            client,
            kind=question.label,
            key=lambda: rng.derive(self._seed, "ctx", *_task(question, client)),
            config=question.config,
            extra=question.extra,
            round=question.round,
            state=visible if writable else ReadOnly(visible, "ctx.state in evaluate", _EVALUATING),
            device=self._where,
            scratch=self._scratch,
            shared=self._once_shared(client),
            data=self._cached_data(client),
            correction=correction,
        )

    def _prepare(self, doing: str, key: int) -> None:
        self._doing = doing
        seed_all(key)
        set_threads(self._threads)

    def _once_shared(self, client: ClientInfo) -> Callable[[], Any] | None:
        setup = self._app.handlers.get("setup")
        if setup is None:
            return None
        site = fingerprint(client.site) if self._site_matters else ""
        if site not in self._shared:
            ctx = Context(
                ClientInfo(name="", site=client.site),
                kind="setup",
                key=lambda: rng.derive(self._seed, "ctx", "setup"),
                device=self._where,
                scratch=self._scratch,
            )
            shared = self._load(setup, ctx, "setup")
            if ctx.site.used and not self._site_matters:
                self._site_matters, site = True, fingerprint(client.site)
            _keep(self._shared, site, shared, _CACHED_SITES)
        shared = self._shared[site]
        return lambda: shared

    def _cached_data(self, client: ClientInfo) -> Callable[[], Any] | None:
        load = self._app.handlers.get("data")
        if load is None:
            return None
        if client.name not in self._data:
            ctx = Context(
                client,
                kind="data",
                key=lambda: rng.derive(_DATA_SEED, "ctx", "data", client.name),
                device=self._where,
                scratch=self._scratch,
                shared=self._once_shared(client),
            )
            before = resident()
            self._data.keep(client.name, self._load(load, ctx, "data", client.name), resident() - before)
        data = self._data[client.name]
        return lambda: data

    def _load(self, handler: Callable[..., Any], ctx: Context, kind: str, *names: str | int) -> Any:
        seed = _DATA_SEED if kind == "data" else self._seed
        self._prepare(f"{kind} handler", rng.derive(seed, "task", kind, *names))
        try:
            loaded = handler(ctx)
        finally:
            ctx.close()
        if _used_up(loaded):
            getattr(loaded, "close", lambda: None)()
            raise UsageError(
                f"its {kind} handler returned a {type(loaded).__name__}, which can be used once",
                advice="return what can be used again in every round, for example a list",
            )
        self._doing = ""
        return loaded


def _used_up(loaded: Any) -> bool:
    """Is it empty, or useless, when it was used once: a generator, a coroutine, what zip, map, open or iter gave?"""
    own = isinstance(loaded, Iterator) and type(loaded).__module__ in ("builtins", "_io", "_csv")
    return own or inspect.iscoroutine(loaded) or inspect.isasyncgen(loaded)


def _keep(cache: OrderedDict[str, Any], name: str, value: Any, most: int) -> None:
    cache[name] = value
    if len(cache) > most:
        cache.popitem(last=False)


def _task(question: Question, client: ClientInfo) -> tuple[str | int, ...]:
    """What names a task's streams of random numbers."""
    return client.name, *_asked(question)


def _asked(question: Question) -> tuple[str, int, int, int]:
    return question.name, question.round, question.call, question.attempt


@lru_cache(maxsize=16)
def _keys(seed: int, label: str, asked: tuple[str, int, int, int]) -> Callable[[str], int]:
    """What seeds the generators before a client's handler, by the client's name."""
    return rng.family(seed, ("task", label), asked)


def _local_task(question: Question, client: ClientInfo, model: Arrays, state: Mapping[str, Any]) -> LocalTask:
    return LocalTask(
        client=client.name,
        round=question.round,
        model=model,
        extra=question.extra,
        config=question.config,
        state=part(state, RULE),
    )


def _hint(error: BaseException) -> str:
    """What to do about the exception that NumPy users meet first."""
    read_only = isinstance(error, ValueError) and "read-only" in str(error)
    return "\n  What to do: what arrives is read-only; change a copy: model[name].copy()" if read_only else ""


def _as_update(returned: Any, question: Question) -> Update:
    if isinstance(returned, Update):
        return check_update(returned)
    example = "umbel.Update(value={...})" if question.kind == "query" else "umbel.Update(model=..., weight=len(data))"
    raise BadUpdate(f"its {question.label} handler returned {_kind(returned)}", advice=f"return {example}")


def _as_metrics(returned: Any) -> Metrics:
    if isinstance(returned, Metrics):
        returned.weight = check_weight(returned.weight)
        returned.values = check_metrics(returned.values)
        return returned
    advice = 'return umbel.Metrics({"accuracy": ...}, weight=n)'
    raise BadUpdate(f"its evaluate handler returned {_kind(returned)}", advice=advice)


def _kind(returned: Any) -> str:
    """What a handler returned, in words."""
    if inspect.iscoroutine(returned):
        returned.close()  # else Python says of it, somewhere, that it was never awaited
    return "nothing (None)" if returned is None else f"a {type(returned).__name__}"


__all__ = ["LOCAL", "Bench", "Done"]
