"""One call of `umbel.run`: from the directory's opening to the result."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any, cast, final

import numpy as np

from umbel import rng
from umbel.arrays import Arrays
from umbel.client.app import ClientApp
from umbel.client.central import CentralTests
from umbel.client.determinism import prepare
from umbel.client.failures import report_failure
from umbel.codec import Json
from umbel.engine.app import ServerApp
from umbel.engine.arguments import check_trainable
from umbel.engine.checkpoint import Checkpoint, EarlyStopping, has_number
from umbel.engine.driver import Loop, drive
from umbel.engine.federation import Federation, model_of
from umbel.engine.handlers import check_handler
from umbel.engine.history import History
from umbel.engine.loop import strategy_main
from umbel.engine.plan import Plan
from umbel.engine.ports import Runner
from umbel.errors import Failure, RecipeChanged, UsageError
from umbel.progress import MonotonicClock, Watch, display
from umbel.recipe import changed_code, differences, write_recipe
from umbel.result import ClientRecords, Result, as_model
from umbel.simulation.place import Place
from umbel.store.files import FileStore
from umbel.store.memory import MemoryClientStates, MemoryStore

logger = logging.getLogger("umbel")
_SHOWN_FAILURES = 10
FINISHED = "finished"
_CALLBACK = "callback-failed"
Callback = Any  # an object with on_round(result), or a function of the result


@contextmanager
def opened(directory: str | os.PathLike[str] | None) -> Iterator[FileStore | None]:
    """The store of a run directory, closed whatever happens; None where there is no directory."""
    store = FileStore(directory) if directory is not None else None
    try:
        yield store
    finally:
        if store is not None:
            store.close()


@final
class Session:
    """One call of `umbel.run`; its arguments are those of `run`."""

    def __init__(
        self,
        *,
        server: ServerApp,
        client: ClientApp,
        place: Place,
        store: FileStore | None,
        seed: int | None,
        rounds: int | None,
        given: Any,
        callbacks: Sequence[Callback],
        name: str | None,
    ) -> None:
        self._server, self._client, self._place = server, client, place
        self._files = store
        self._kept: Json = store.recipe if store is not None else None
        self._seed = seed if seed is not None else self._kept["recipe"]["seed"] if self._kept else secrets.randbits(32)
        self._rounds = rounds if rounds is not None else server.rounds
        self._given = given
        self._checkpoint = only_checkpoint(callbacks)
        self._callbacks = [(c, as_function(c)) for c in callbacks if not isinstance(c, Checkpoint)]
        self._name = name or (store.directory.name if store is not None else "run")
        self._reported = 0
        self._runner: Runner | None = None
        self._warned: set[str] = set()
        self._began = time.monotonic()

    def run(self, *, debug: bool) -> Result:
        """Do what is left of the run, and give its result."""
        initial = self._initial()
        if self._files is not None and (status := self._status(self._files, initial)):
            fed = self._federation(self._files, initial, lambda _: None)
            if self._files.ended is not None:
                fed.totals.add_commit(self._files.ended.rest)
            self._files.lay_out(fed.state)
            return self._result(fed, status)
        store = self._files or MemoryStore()
        states = self._files.client_states if self._files is not None else MemoryClientStates()
        runner = self._runner = self._place.runner(self._client, self._seed, states, debug=debug)
        clock, shown = MonotonicClock(), display(self._name, self._rounds)
        watch = Watch(shown, lambda: self._after_round(fed))
        fed = self._federation(store, initial, lambda loop: drive(loop, runner, store, clock, watch))
        try:
            self._main(fed)
        finally:
            shown.close()
        combined = self._server.strategy.metrics if self._server.strategy is not None else ()
        stopping = [c for c, _ in self._callbacks if isinstance(c, EarlyStopping)]
        miss_metrics(fed.history, self._checkpoint, stopping, combined)
        status = f"stopped early: {fed.stopped}" if fed.stopped else FINISHED
        if self._files is not None:
            self._files.finish(status, fed.state, rounds=self._rounds, rest=fed.rest)
        return self._result(fed, status)

    def _main(self, fed: Federation) -> None:
        main = self._server.loop or strategy_main(cast(Any, self._server.strategy))
        fed.stopped = self._stopped_before(fed)
        self._prepare("main")
        try:
            main(fed)
        except KeyboardInterrupt as interrupt:
            interrupt.add_note(f"{len(fed.history)} rounds are committed; with dir= the same call goes on from there.")
            raise
        finally:
            fed.flush()

    def _prepare(self, *names: str | int) -> int:
        """Seed the generators for what the server does now, and set the threads, which handlers may have changed.

        Gives the key of the stream.
        """
        key = rng.derive(self._seed, *names)
        prepare(key, self._place.threads)
        return key

    # --- the model and the recipe ------------------------------------------------------------

    def _initial(self) -> Arrays | None:
        self._prepare("initial")
        model = self._server.initial_model()
        if self._given is not None:
            given = as_model(self._given).canonical()
            model = given if model is None else with_roles_of(model, given)
        if model is not None:
            check_trainable("the initial model", model)
        return model

    def _status(self, store: FileStore, initial: Arrays | None) -> str:
        """Compare the recipe with the directory's. How the run ended; "" if there is something left to do."""
        now = write_recipe(
            self._server,
            self._client,
            self._place.recipe(),
            seed=self._seed,
            rounds=self._rounds,
            initial=initial,
            given=self._given is not None,
            checkpoint=self._checkpoint,
        )
        if self._kept is None or (not self._begun(store) and differences(self._kept, now)):
            store.begin(now, initial)
            return ""
        ended = store.ended is not None and store.ended.rounds == self._rounds
        code = changed_code(self._kept, now)
        changed = self._differences(store, now, initial, ended=ended)
        if ended:
            changed += [f"{name}: its code has changed since the run ended" for name in code]
        if changed:
            raise _recipe_changed(store, changed)
        if code:
            logger.warning("code-changed: %s differs from what the run began with; it goes on", ", ".join(code))
        if code or self._rounds != self._kept["rounds"]:
            self._change(store, now)
        return store.ended.status if ended and store.ended is not None else ""

    def _begun(self, store: FileStore) -> bool:
        """Is there anything in the directory that another recipe would put an end to?"""
        return bool(store.done or store.records() or store.ended)

    def _change(self, store: FileStore, now: Json) -> None:
        """The run goes on with more rounds, or with mended code."""
        before = self._kept["rounds"]
        if self._rounds != before and any(before is not None and r.round > before for r in store.records()):
            store.forget_records()  # asked behind what was the last round
        store.change({**now, "recipe": self._kept["recipe"], "initial model given": self._kept["initial model given"]})

    def _differences(self, store: FileStore, now: Json, initial: Arrays | None, *, ended: bool) -> list[str]:
        changed = differences(self._kept, now)
        if ended and self._checkpoint.best_on is None:
            changed = [line for line in changed if not line.startswith("best model")]
        # a factory that draws from a generator nobody seeded gives another model each time: the first one stays
        made = not (self._kept["initial model given"] or now["initial model given"])
        if made and changed and all(line.startswith("initial model.digest") for line in changed):
            changed = changed if self._initial() == initial else []
        if self._rounds is not None and self._rounds < store.done:
            changed.append(f"rounds: {store.done} are done, {self._rounds} are asked for now")
        return changed

    def _federation(
        self, store: FileStore | MemoryStore, initial: Arrays | None, perform: Callable[[Loop], Any]
    ) -> Federation:
        files = store if isinstance(store, FileStore) else None
        plan = Plan(
            seed=self._seed,
            initial=files.initial(initial) if files is not None else initial,
            rounds=self._rounds,
            handlers=self._client.names(),
            central=self._central(),
            checkpoint=self._checkpoint,
            durable=files is not None,
            reseed=lambda round, call: self._prepare("main", round, call),
            warn=self._warn,
        )
        best = files.best() if files is not None else None
        return Federation(plan, perform, commits=store.commits(), records=store.records(), best=best)

    def _central(self) -> CentralTests | None:
        tests, place = self._server.tests, self._place
        return CentralTests(tests, self._prepare, devices=place.devices) if tests else None

    def _warn(self, text: str) -> None:
        """Say once what would be true again in every round."""
        if text not in self._warned:
            self._warned.add(text)
            logger.warning("metric-left-out: %s", text)

    # --- what runs beside the loop -----------------------------------------------------------

    def _after_round(self, fed: Federation) -> str:
        self._report_failures(fed.totals.failures)
        if not self._callbacks:
            return ""
        result = self._result(fed, "running")
        reasons = [self._call(callback, function, result, fed) for callback, function in self._callbacks]
        return next((reason for reason in reasons if reason), "")

    def _report_failures(self, failures: Sequence[Failure]) -> None:
        """Say so when clients fail in a run that goes on; the first ones in full, for there may be many."""
        new = [f for f in failures[self._reported :] if not f.code.startswith(("central", "callback"))]
        for failure in new[: max(0, _SHOWN_FAILURES - self._reported)]:
            logger.warning("client-failed: %s", failure)
        if self._reported < _SHOWN_FAILURES <= len(failures):
            logger.warning("client-failed: there are more; result.failures has them all")
        self._reported = len(failures)

    def _call(self, callback: Callback, function: Callable[[Result], Any], result: Result, fed: Federation) -> str:
        try:
            reason = function(result)
        except Exception as error:  # noqa: BLE001  # a task ends here; the run goes on
            name = getattr(callback, "__name__", type(callback).__name__)
            fed.note_failures([report_failure(name, fed.history[-1]["round"], "callback", error)])
            return ""
        return reason if isinstance(reason, str) else ""

    def _stopped_before(self, fed: Federation) -> str:
        """Would a callback have ended the run where it stands?

        A run that was killed may not have come to ask them after its last round; so they are asked again. In one that
        finished they had their say, all but those that judge by the history alone.
        """
        if not len(fed.history):
            return ""
        ended = self._files.ended if self._files is not None else None
        asked_before = ended is not None and ended.status == FINISHED
        if ended is not None and asked_before:
            fed.note_failures([f for f in ended.rest.failures if f.code == _CALLBACK])
        result = self._result(fed, "running")
        reasons = [
            self._call(callback, function, result, fed)
            for callback, function in self._callbacks
            if isinstance(callback, EarlyStopping) or not asked_before
        ]
        return next((reason for reason in reasons if reason), "")

    def _spent(self) -> Mapping[str, float]:
        return self._runner.spent if self._runner is not None else {}

    def _result(self, fed: Federation, status: str) -> Result:
        seconds = time.monotonic() - self._began
        totals = fed.totals
        return Result(
            model=model_of(fed.state) if fed.state is not None else fed.initial,
            best=totals.best,
            history=copy(fed.history),  # a callback may keep it
            clients=ClientRecords(self._place.clients, totals.counted, totals.failures, totals.clients),
            failures=tuple(totals.failures),
            privacy=None,
            timing={"total": seconds, "round": seconds / max(1, len(fed.history)), **self._spent()},
            dir=self._files.directory if self._files is not None else None,
            status=status,
            state=fed.state,
            seed=self._seed,
            name=self._name,
        )


def _recipe_changed(store: FileStore, changed: Sequence[str]) -> RecipeChanged:
    shown = [f"  {line}" for line in changed[:20]] + ([f"  and {len(changed) - 20} more"] if len(changed) > 20 else [])
    advice = "give another dir= for the new run, or make the program what it was to go on with the old one"
    model = store.directory / "model.safetensors"
    if model.exists():
        advice += f"; to start a new run from the old one's model, give it initial={str(model)!r} and another dir="
    return RecipeChanged(
        f"{store.directory} holds a run made from another recipe:\n" + "\n".join(shown),
        differences=changed,
        advice=advice,
    )


def miss_metrics(
    history: History, checkpoint: Checkpoint, stopping: Iterable[EarlyStopping], combined: Iterable[str]
) -> None:
    """Say so when a rule looked for a metric that no round has; its name may be misspelt.

    Args:
        history: of a run that has ended.
        checkpoint: may keep the best model by a metric.
        stopping: rules that look at one.
        combined: metrics for which the strategy says how they combine.
    """
    if not len(history):
        return
    columns = history.columns
    rules = {m for m in (*(rule.metric for rule in stopping), checkpoint.best_on) if m and not has_number(history, m)}
    for metric in sorted(rules.intersection(columns)):
        logger.warning("metric-missing: metric %r is not a number in any round, and none is the best", metric)
    missed = rules.difference(columns)
    missed |= {name for name in combined if not any(f".{name}." in f".{column}." for column in columns)}
    for metric in sorted(missed):
        logger.warning("metric-missing: no round has a metric %r; there are %s", metric, ", ".join(columns))


def only_checkpoint(callbacks: Sequence[Callback]) -> Checkpoint:
    """The one that says what the run keeps; there may be none."""
    given = [c for c in callbacks if isinstance(c, Checkpoint)]
    if len(given) > 1:
        raise UsageError(
            f"callbacks holds {len(given)} Checkpoints",
            advice="give one: umbel.Checkpoint(every=5, best_on='accuracy')",
        )
    return given[0] if given else Checkpoint()


def with_roles_of(own: Arrays, given: Arrays) -> Arrays:
    """The model that was given, with the roles that the server app's own gives its entries.

    A file may know none, or those of another strategy: of FedPer, for example, which kept some at the clients.
    """
    difference = own.spec.difference(given.spec, roles=False)
    if difference:
        raise UsageError(
            f"initial= does not fit the server app's model: {difference}",
            advice="give a model with the same entries, or ServerApp another model=",
        )
    return Arrays.build(own.spec, lambda name, out: np.copyto(out, given.raw(name)))


def as_function(callback: Callback) -> Callable[[Result], Any]:
    """What is called after each round."""
    if isinstance(callback, type):
        raise UsageError(
            f"callback {callback.__name__} is a class", advice=f"give an object of it: {callback.__name__}()"
        )
    function = getattr(callback, "on_round", callback)
    if not callable(function):
        raise UsageError(
            f"callback {callback!r} is a {type(callback).__name__}",
            advice="give an object with on_round(result), or a function of the result",
        )
    check_handler("callbacks", function, ("result",))
    return cast(Callable[[Result], Any], function)


__all__ = ["Callback", "Session", "as_function", "miss_metrics", "only_checkpoint", "opened", "with_roles_of"]
