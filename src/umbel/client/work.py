"""Doing one task for one client: context, user code, checks, transforms. The same in a simulation and on a node."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple, final

import numpy as np

from umbel import rng
from umbel.arrays import Array, Arrays
from umbel.client.app import ClientApp
from umbel.client.asked import Asked, Begun, as_begun
from umbel.client.context import MISSING, ClientInfo, Conditions, Context, pick_device
from umbel.client.declared import Declared
from umbel.client.determinism import prepare, seeds_at_once
from umbel.client.failures import code, is_of_memory, own_words, shortened, trace, words
from umbel.client.in_turn import Stages, alike_in, side_by_side
from umbel.client.loads import Loads
from umbel.client.local_entries import all_leaves, take_local_entries, with_local_entries
from umbel.client.state import CHAIN, LOCAL, OURS, RULE, ReadOnly, closed, opened, part, with_part
from umbel.correction import LocalRule, LocalTask
from umbel.engine.question import Question
from umbel.errors import BadUpdate, ClientFailed, Failure, UmbelError, UsageError
from umbel.rows import Rows
from umbel.transforms import Task
from umbel.update import Metrics, Update, check_metrics, check_update, check_weight

_HEAD, _TAIL = 1500, 300  # characters of a message that shows a value of the user's; the advice stands at its end
_NOTHING = MISSING, MISSING  # neither set-up nor data
_EVALUATING = "write to it in train or in a query: an evaluation changes nothing"


@final
class Done(NamedTuple):
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
        self._number, self._scratch, self.device, self.full = number, scratch, "", False
        self._doing = ""  # the user's code that runs, for errors; "" in between
        self._loads = Loads(app, seed, device=self._where, scratch=scratch, prepare=self._prepare, done=self._returned)
        self._last: Asked | None = None

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
            return self._do(self._asked(question), client, state)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # the task ends here; sys.exit() in it ends no more than that
            if debug:
                error.add_note(f"{question.label} of client {client.name!r} in round {question.round}, with debug=True")
                raise
            return self._failure(question, client, error)

    def ask(self, question: Question, client: ClientInfo, state: Mapping[str, Any]) -> Update | Metrics:
        """What the client's handler returns, and nothing of what the engine makes of it; exceptions are let through."""
        asked = self._asked(question)
        return self._answered(asked, self._begun(asked, client, state))

    @property
    def loads_data(self) -> bool:
        """Has the app a handler that loads clients' data, so that it matters who does which task?"""
        return "data" in self._app.handlers

    def rest(self) -> None:
        """There is no task for now: let go of the last question, and so of the model that was sent with it."""
        self._last = None

    def _asked(self, question: Question) -> Asked:
        """What follows from a question; worked out once, as its tasks come one after the other."""
        self._doing = ""
        if self._last is None or self._last.question is not question:
            label, names = question.label, _names(question)
            whole = question.sent is not None and all_leaves(question.sent.spec, question.sent.spec)
            self._last = Asked(
                question,
                self._app.handler(question.name),
                f"{label} handler",
                rng.family(self._seed, ("task", label), names),
                Conditions(
                    kind=label,
                    key=rng.family(self._seed, ("ctx",), names),
                    device=self._where,
                    scratch=self._scratch,
                    config=question.config,
                    extra=question.extra,
                    round=question.round,
                ),
                whole,
                (whole or question.kind == "query") and question.rule is None and not question.chain.steps,
                self._loads.any,
            )
        return self._last

    def _answered(self, asked: Asked, task: Begun) -> Update | Metrics:
        """What the handler returned."""
        key, _, model, _, ctx = task
        try:
            self._prepare(asked.doing, key)
            returned = asked.handler(model, ctx)
            self._doing = ""
            question = asked.question
            return _as_metrics(returned) if question.kind == "evaluate" else _as_update(returned, question)
        finally:
            ctx.close()

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
        groups by what the cohort is, and not by who works (`umbel.simulation.groups.groups`): clients that were asked
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
        tasks: list[Begun] = []
        asked = self._asked(question)
        try:
            for i, client in enumerate(clients):
                begin(i)
                its = state(client.name)  # not below: if it raises, that is no client's failure
                try:
                    tasks.append(self._begun(asked, client, its))
                except KeyboardInterrupt:
                    raise
                except BaseException as error:  # noqa: BLE001  # as in do: the task ends here
                    done[client.name] = self._failure(question, client, error)
            if not tasks:
                return None
            self._prepare(asked.doing, tasks[0].key)
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
                done[task.client.name] = self._finished(asked, task, _as_update(update, question))
            except Exception as error:  # noqa: BLE001  # as in do: the task ends here
                done[task.client.name] = self._failure(question, task.client, error)
        return [done[client.name] for client in clients]

    def do_in_turn(
        self,
        question: Question,
        clients: Sequence[ClientInfo],
        state: Callable[[str], Mapping[str, Any]],
        *,
        begin: Callable[[int], object],
        room: Callable[[int], Array],
    ) -> Iterator[tuple[list[int], Rows | Done | Failure]]:
        """Do `do` for some clients whose tasks take next to no time, which takes less time like this.

        Their contexts are made, then their handlers called, then what these returned is checked; see
        `umbel.client.in_turn`. All the updates are in memory at once.

        Args:
            question: what is asked.
            clients: of whom.
            state: gives a client's state by its name, as for `do`.
            begin: called with a client's place among them before any code of the user's runs for it.
            room: gives so many bytes for updates side by side.

        Yields:
            What came of each, with the places among them of whom: side by side where there is nothing but an update,
            else of each on its own.
        """
        self.full = False
        asked = self._asked(question)
        full: set[int] = set()

        def failed(i: int, error: BaseException) -> Failure:
            failure = self._failure(question, clients[i], error)
            full.update({i} if self.full else ())
            return failure

        def begun(i: int) -> Begun:
            if asked.loads:
                begin(i)
            return self._begun(asked, clients[i], states[i])

        def answered(i: int) -> Update | Metrics:
            begin(i)
            return self._answered(asked, tasks[i])

        def finished(i: int) -> Done:
            self._doing = ""
            return self._finished(asked, tasks[i], answers[i])

        states = [state(client.name) for client in clients]  # not in a stage: if it raises, that is no client's failure
        stages = Stages(failed)
        tasks: dict[int, Begun] = stages.stage(range(len(clients)), begun)
        answers: dict[int, Any] = stages.stage(tasks, answered)
        alike = alike_in(asked, tasks, answers)
        rows = side_by_side(question, ([answers[i] for i in places] for places in alike), room)
        packed = [(places, these) for places, these in zip(alike, rows, strict=True) if these is not None]
        done = stages.stage(sorted(answers.keys() - chain.from_iterable(p for p, _ in packed)), finished)
        for i, one in sorted((done | stages.failures).items()):
            self.full = i in full
            yield [i], one
        self.full = False
        yield from packed

    def _do(self, asked: Asked, client: ClientInfo, state: Mapping[str, Any]) -> Done:
        task = self._begun(asked, client, state)
        return self._finished(asked, task, self._answered(asked, task))

    def _begun(self, asked: Asked, client: ClientInfo, state: Mapping[str, Any]) -> Begun:
        """A task with its context, for which set-up and data are loaded if they are not there."""
        self._doing = ""
        question = asked.question
        model, correction = question.model, None
        visible: MutableMapping[str, Any] = {}
        if state:
            model = with_local_entries(question, state)
            visible = opened(state, writable=question.kind != "evaluate")
        if question.rule is not None and model is not None:
            correction = question.rule.correction(_local_task(question, client, model, state))
        if question.kind == "evaluate":
            visible = ReadOnly(visible, "ctx.state in evaluate", _EVALUATING)
        shared, data = (self._loads.shared_of(client), self._loads.data_of(client)) if asked.loads else _NOTHING
        key = asked.key(client.name) if seeds_at_once() else partial(asked.key, client.name)
        ctx = Context(client, asked.conditions, state=visible, shared=shared, data=data, correction=correction)
        return as_begun((key, client, model, state, ctx))

    def _finished(self, asked: Asked, task: Begun, update: Update | Metrics) -> Done:
        """What becomes of what a handler returned."""
        if isinstance(update, Metrics):
            return Done(update, None)
        question = asked.question
        _, client, model, state, ctx = task
        if not ctx.corrected:
            raise UsageError(
                "the strategy corrects local training, and the train handler did not apply it",
                advice="put the loop into `with umbel.torch.local(net, model, ctx) as local:`, or apply ctx.correction",
            )
        after = closed(ctx.state) if ctx.state else {}
        if state:
            after |= {name: value for name, value in state.items() if name.startswith(OURS)}
        if not (asked.whole and model is not None and update.arrays.spec is model.spec):
            update = take_local_entries(question, model, update, after)
        question.check(update)
        if question.rule is not None:
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
        key = rng.derive(self._seed, "transforms", client.name, *_names(question))
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
        self.full = is_of_memory(error)
        said = own_words(error) if issubclass(type(error), UmbelError) else None  # ours say who, and what to do
        doing = f"its {self._doing} raised" if self._doing else "its task failed:"
        return Failure(
            client=client.name,
            round=question.round,
            kind=question.label,
            code=code(error),
            message=f"{doing} {words(error)}{_hint(error)}" if said is None else shortened(said, _HEAD, _TAIL),
            traceback=trace(error) if self._doing or said is None else "",
        )

    def _where(self) -> str:
        self.device = pick_device(self._devices, self._number)
        return self.device

    def _returned(self) -> None:
        self._doing = ""

    def _prepare(self, doing: str, key: int | Callable[[], int]) -> None:
        self._doing = doing
        prepare(key, self._threads)


def _names(question: Question) -> tuple[str, int, int, int]:
    """What names an exchange's streams of random numbers, beside its client."""
    return question.name, question.round, question.call, question.attempt


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
    read_only = issubclass(type(error), ValueError) and "read-only" in (own_words(error) or "")
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
