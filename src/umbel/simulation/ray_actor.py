"""What runs in a Ray actor: does tasks in order of places and, where that is asked, folds the updates of a shard.

Arrays travel beside what is pickled, as NumPy arrays of bytes, which Ray puts into its shared memory and maps in every
process of a machine. So the model is copied once into that memory, and nowhere else on one machine.
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
import traceback
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from itertools import groupby
from typing import Any, final

import numpy as np

from umbel.arrays import SMALL, Array, Arrays
from umbel.client.determinism import isolated
from umbel.client.work import Bench, Done
from umbel.engine.checksum import Checksum
from umbel.engine.folding import Answered, AnsweredRows, Folding
from umbel.engine.question import Question
from umbel.errors import Failure, UmbelError
from umbel.rows import Rows
from umbel.simulation.messages import Cohort
from umbel.simulation.ray_clock import Clock
from umbel.simulation.shipping import pack, unpack, unpack_app
from umbel.store.memory import MemoryClientStates

KEPT = 4  # apps and seeds whose set-up and data are kept
_ALIGN = 64
_QUICK = 2e-3  # seconds; tasks that take less are done in turn: the 64 of a shard then take no longer than 128 ms
Sealed = tuple[bytes, list[Array], list[bool]]
"""A pickled value, its arrays, and which of them are still being written."""
Asked = tuple[str, int, int]
"""A client, the attempt, its place."""
Came = tuple[Sequence[Asked], Done | Failure | Rows]
"""Tasks, and what came of them; rows of several, else of one."""


def seal(value: Any) -> Sealed:
    """A value as Ray carries it."""
    pieces: list[Array] = []
    writable: list[bool] = []

    def put(arrays: Arrays) -> int:
        pieces.append(np.frombuffer(arrays.to_bytes(), np.uint8))
        writable.append(arrays.writable)
        return len(pieces) - 1

    return pack(value, put), pieces, writable


def unseal(sealed: Sealed) -> Any:
    """The value; its arrays are Ray's memory, but those that are still being written, and what is not aligned."""
    data, pieces, writable = sealed

    def get(index: int, size: int) -> Array:
        piece = pieces[index]
        if writable[index] or piece.ctypes.data % _ALIGN:
            memory = np.empty(size + _ALIGN, np.uint8)
            begin = -memory.ctypes.data % _ALIGN
            copy = memory[begin : begin + size]
            np.copyto(copy, piece)
            copy.flags.writeable = writable[index]
            return copy
        return piece

    return unpack(data, get)


@final
@dataclass(frozen=True, slots=True)
class Order:
    """Tasks for one actor.

    Attributes:
        tasks: client, attempt and place, in order of places.
        cohort: what is known of these clients, in the same order.
        states: of those that keep one.
        folds: are the updates folded, too? Then all are of one shard, and what comes back is that shard.
        together: are the clients a group that is trained together?
        alone: whose failure it is if a device is full; of others the actor says so at once, since other actors may
            compute there, and with fewer of them it may fit.
    """

    tasks: Sequence[Asked]
    cohort: Cohort
    states: Mapping[str, Mapping[str, Any]]
    folds: bool
    together: bool
    alone: frozenset[str]


@final
@dataclass(slots=True)
class Report:
    """What came of an `Order`; updates, or the folded shard, are a second object, which stays where it was made.

    Attributes:
        failures: of clients that failed, by name.
        seconds: by what they went to.
        misfit: an update could not be folded with the others of its shard; nothing else came of it.
        full: whose task did not fit on its device, and that in words; nothing else came of it then.
        broken: why the run cannot go on, and what to do about it; or "".
    """

    failures: dict[str, Failure] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    misfit: bool = False
    full: tuple[str, str] | None = None
    broken: tuple[str, str] = ("", "")


@final
@dataclass(frozen=True, slots=True)
class Started:
    """What an actor says of itself when it has started.

    Attributes:
        node: its machine, as Ray calls it.
        device: what it computes on; others that say the same share it.
        file: where its last words would stand; see `Clock`.
    """

    node: str
    device: str
    file: str


@final
class Over(Exception):
    """Nobody wants what a task would give."""


@final
class Actor:
    """One worker process of a Ray cluster.

    Args:
        threads: how many a handler may compute with.
        devices: "auto", or the name of a device.
        limit: seconds that one task may take; None: any.
    """

    def __init__(self, threads: int, devices: str, limit: float | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Ray's raises SystemExit, which would be the client's that runs
        self._ray = import_module("ray")
        self._context = self._ray.get_runtime_context()
        self._gpus = self._ray.get_gpu_ids()
        # Ray shows a process the GPUs that it was given, and no others; without any it may show all of them
        self._device = devices if devices != "auto" or self._gpus else "cpu"
        self._threads, self._clock = threads, Clock(limit)
        self._conditions = contextlib.ExitStack()
        self._conditions.enter_context(isolated(threads))
        self._benches: OrderedDict[int, Bench] = OrderedDict()
        self._broken: dict[int, str] = {}
        self._exchange = self._over = -1
        self._question: Question
        self._checksum: Checksum
        self._since = time.perf_counter()
        self._pace = math.inf  # seconds that a task of the last order took

    def hello(self) -> Started:
        """Say that it has started, where, and on what."""
        node = self._context.get_node_id()
        return Started(node, f"{self._device} {self._gpus} {node}", self._clock.file)

    def load(self, key: int, app: bytes, seed: int) -> None:
        """Take in an app, unless it is here; if that fails, the first order says so."""
        if key in self._benches:
            self._benches.move_to_end(key)
            return
        try:
            loaded = unpack_app(app)
        except BaseException as error:  # noqa: BLE001  # the user's modules may do anything
            self._broken[key] = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
            return
        self._benches[key] = Bench(loaded, seed, threads=self._threads, devices=self._device)
        if len(self._benches) > KEPT:
            self._benches.popitem(last=False)

    def work(self, key: int, exchange: int, question: list[Any], order: Sealed) -> tuple[Report, Sealed | None]:
        """Do tasks.

        Args:
            key: of the app.
            exchange: its number in the life of the actors.
            question: where it lies in Ray's memory.
            order: what to do.
        """
        begin = time.perf_counter()
        if self._is_over(exchange):
            return Report(), None
        if key in self._broken:
            advice = "install what it imports on all machines, or send it along: ray.init(runtime_env=...)"
            return Report(broken=(f"a Ray worker cannot load the client app: {self._broken[key]}", advice)), None
        seconds = {"training": 0.0, "folding": 0.0, "moving": 0.0, "waiting": 0.0}
        if exchange == self._exchange:
            seconds["waiting"] = begin - self._since
        else:
            self._open(exchange, question)
        self._benches.move_to_end(key)
        report = Report(seconds=seconds)
        todo: Order = unseal(order)
        try:
            made = self._do(self._benches[key], todo, report)
        except UmbelError as error:  # not a client's failure: what all clients share was written to
            return Report(broken=(error.what, error.advice)), None
        sealing = time.perf_counter()
        self._pace = seconds["training"] / len(todo.tasks)
        sealed = None if made is None else seal(made)
        self._since = time.perf_counter()
        seconds["moving"] = self._since - sealing + max(0.0, sealing - begin - seconds["training"] - seconds["folding"])
        return report, sealed

    def _open(self, exchange: int, question: list[Any]) -> None:
        self._question = unseal(self._ray.get(question[0]))
        self._checksum = Checksum(self._question.model, *self._question.extra.values())
        self._exchange = exchange

    def _is_over(self, exchange: int) -> bool:
        """Does nobody want any more of this exchange? Older versions of Ray do not tell."""
        if hasattr(self._context, "is_canceled") and self._context.is_canceled():
            self._over = exchange
        return self._over == exchange

    def _do(self, bench: Bench, order: Order, report: Report) -> Any:
        """What was made; None if nothing was, as the report says, or since nobody wants it."""
        folding = Folding(self._question, MemoryClientStates()) if order.folds else None
        done: list[Done] = []
        answers = self._in_turn(bench, order, report) if self._are_small(order) else self._each(bench, order, report)
        for tasks, one in answers:
            begin = time.perf_counter()
            if isinstance(one, Failure):
                if bench.full and one.client not in order.alone:
                    report.full = one.client, f"{bench.device or 'a device'} of {self._ray.util.get_node_ip_address()}"
                    return None
                report.failures[one.client] = one
            elif isinstance(one, Done) and folding is None:
                done.append(one)
            elif folding is not None and _refused(folding, tasks, one):
                report.misfit = True
                return None
            report.seconds["folding"] += time.perf_counter() - begin
        if self._is_over(self._exchange):  # also for what waits
            return None
        return done if folding is None else folding.part()

    def _each(self, bench: Bench, order: Order, report: Report) -> Iterator[Came]:
        """What comes of the tasks, one after the other, as long as anybody wants it."""
        results = self._results(bench, order)
        for task in order.tasks:
            if self._is_over(self._exchange):
                return
            begin = time.perf_counter()
            one = self._clock.next(results, len(order.tasks) if order.together else 1)
            self._check(task)
            report.seconds["training"] += time.perf_counter() - begin
            yield [task], one

    def _are_small(self, order: Order) -> bool:
        """Are these tasks so small that they are done in turn, and does no clock run for each?"""
        model = self._question.model
        small = self._pace < _QUICK and (model is None or model.spec.size <= SMALL)
        return small and order.folds and not order.together and not self._clock.file

    def _in_turn(self, bench: Bench, order: Order, report: Report) -> Iterator[Came]:
        """What comes of small tasks, done stage by stage; in order of places, and side by side where they are alike."""
        begin = time.perf_counter()
        clients = order.cohort.clients(range(len(order.tasks)))
        ran: list[int] = []  # of whom code ran last
        wrote: list[UmbelError] = []  # in a stage, what is raised is a client's failure

        def before(i: int) -> None:
            if self._is_over(self._exchange):
                raise Over
            check()
            ran[:] = [i]

        def check() -> None:
            try:
                if ran and not wrote:
                    self._check(order.tasks[ran[0]])
            except UmbelError as error:
                wrote.append(error)

        came: dict[int, tuple[Rows | None, Any]] = {}
        for places, one in bench.do_in_turn(
            self._question, clients, lambda name: order.states.get(name, {}), begin=before, room=_memory
        ):
            rows = one if isinstance(one, Rows) else None
            came |= {place: (rows, at if rows else (one, bench.full)) for at, place in enumerate(places)}
        check()
        if wrote:
            raise wrote[0]
        if self._over == self._exchange:
            return
        report.seconds["training"] += time.perf_counter() - begin
        for rows, group in groupby(range(len(clients)), key=lambda place: came[place][0]):
            mine = list(group)
            if rows is not None:
                yield [order.tasks[place] for place in mine], rows.take([came[place][1] for place in mine])
                continue
            for place in mine:
                one, bench.full = came[place][1]
                yield [order.tasks[place]], one

    def _check(self, task: Asked) -> None:
        """Has the code of this client left alone what all share?"""
        client, _, _ = task
        self._checksum.check(f"round {self._question.round}, client {client!r}, {self._question.label}: its code")

    def _results(self, bench: Bench, order: Order) -> Iterator[Done | Failure]:
        """What comes of the tasks, each when it is asked for; of a group all with the first."""
        clients = order.cohort.clients(range(len(order.tasks)))

        def begin(i: int) -> None:
            _, _, place = order.tasks[i]
            self._clock.note(self._exchange, place)

        def state(name: str) -> Mapping[str, Any]:
            return order.states.get(name, {})

        if order.together:
            yield from bench.do_many(self._question, clients, state, begin=begin)
            return
        for i, client in enumerate(clients):
            begin(i)
            yield bench.do(self._question, client, state(client.name))


def _refused(folding: Folding, tasks: Sequence[Asked], answer: Done | Rows) -> bool:
    """Fold what these clients answered. Does any of it not fit those before?"""
    if isinstance(answer, Rows):
        clients, attempts, places = zip(*tasks, strict=True)
        return bool(folding.fold_rows(AnsweredRows(clients, attempts, places, answer)))
    ((client, attempt, place),) = tasks
    return bool(folding.fold([Answered(client, attempt, place, answer.update, answer.state)]))


def _memory(size: int) -> Array:
    return np.empty(size, np.uint8)


__all__ = ["KEPT", "Actor", "Asked", "Order", "Over", "Report", "Sealed", "Started", "seal", "unseal"]
