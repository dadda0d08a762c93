"""What runs in a worker process: takes tasks from the board, does them, and puts the updates into shared memory."""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import io
import logging
import math
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import get_ident
from typing import Any, final

import numpy as np

from umbel.arrays import SMALL, Array, Arrays
from umbel.buffers import allocating
from umbel.client.context import ClientInfo
from umbel.client.determinism import isolated, seed_late
from umbel.client.memory import resident, uncollected
from umbel.client.work import Bench, Done
from umbel.engine.question import Question
from umbel.errors import Failure
from umbel.rows import Rows
from umbel.simulation.arena import LINE
from umbel.simulation.board import NOBODY, WINDOW, Board
from umbel.simulation.cpus import let_others_first
from umbel.simulation.descriptors import take_standard
from umbel.simulation.heap import Heap
from umbel.simulation.heard import BROADCAST, ROOM, Exchange, Heard
from umbel.simulation.limits import next_within
from umbel.simulation.messages import (
    Answer,
    Answers,
    AskState,
    Broken,
    End,
    Hello,
    Load,
    Loaded,
    Lot,
    More,
    Open,
    Rest,
    Room,
    Search,
    State,
    Stored,
)
from umbel.simulation.outbox import Outbox
from umbel.simulation.region import Region
from umbel.simulation.scratch import Scratch
from umbel.simulation.shipping import search_there, unpack_app
from umbel.simulation.spawn import connected, die_with_parent, unblock_interrupt
from umbel.simulation.units import in_short
from umbel.spec import Spec
from umbel.update import Kind, Metrics, Update

_OFTEN = 10e-3  # seconds between two messages, where tasks are short; each may cost the worker its core for a moment
_AT_ONCE = 12e-3  # seconds that the units take, about, which it takes from the board at once
_AT_LEAST = 3e-4  # however few are left, since it costs time to take them
_AT_MOST = 512  # such units
_IN_MESSAGE = 1 << 14  # bytes of updates side by side that are sent with what is said of them
_LARGE = 1 << 20  # bytes of arrays from which on it waits for memory that they will lie in


@final
class Over(Exception):
    """The exchange ended while a task waited for the main process."""


@final
class Worker:
    """One worker process.

    Args:
        connection: to the main process.
        hello: what it said first.
        lifeline: a pipe that ends with the main process; a file descriptor.
        crash: where a traceback goes when the process ends against its will; a file descriptor.
    """

    def __init__(self, connection: Any, hello: Hello, lifeline: int, crash: int) -> None:
        self._connection, self._number, self._limit, self._crash = connection, hello.number, hello.limit, crash
        self._threads = hello.threads
        self._board = Board(hello.workers, handles=hello.board)
        self._heard = Heard(Region(BROADCAST, hello.broadcast, writable=False))
        self._scratch = Scratch(hello.scratch, lifeline)
        self._outbox = Outbox(Region(ROOM, hello.updates))
        self._heap = Heap()
        self._benches: dict[int, Bench] = {}
        self._exchange: Exchange
        self._bench: Bench
        self._answers: list[Answer] = []
        self._lots: list[Lot] = []
        self._seconds = {"training": 0.0, "moving": 0.0, "waiting": 0.0}
        self._over = False  # has the exchange ended while a task waited for the main process?
        self._said = self._since = time.perf_counter()
        self._pace = math.inf  # seconds per unit of the board, about
        self._weighed = False  # has it said, with what it did, how much memory its process takes?
        self._serving = 0  # the thread that does tasks; 0, which is none, in a fork of this process

    def serve(self) -> None:
        """Do what the main process says, until it says no more."""
        self._serving = get_ident()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork, after_in_parent=self._outbox.pin)
        with isolated(self._threads), allocating(self._lend):
            seed_late()
            while True:
                self._hear(self._receive())

    def _after_fork(self) -> None:
        """In a fork that user code made of this process."""
        self._serving = 0

    def _end_fork(self) -> None:
        """A fork that comes back from user code ends: what it would do, and say, is the worker's."""
        if not self._serving:
            os._exit(1)

    def _receive(self) -> Any:
        self._end_fork()
        begin = time.perf_counter()
        message = pickle.loads(self._connection.recv_bytes())  # noqa: S301  # from our own parent
        self._since = time.perf_counter()
        self._seconds["waiting"] += self._since - begin
        return message

    def _hear(self, message: Any) -> None:
        match message:
            case Search():
                search_there(message)
            case Load():
                self._load(message)
            case Open():
                self._open(message)
                self._work()
            case More():
                self._exchange.extend(message)
                self._work()

    def _send(self, message: Any) -> None:
        self._end_fork()
        self._connection.send_bytes(pickle.dumps(message, protocol=5))

    def _load(self, message: Load) -> None:
        try:
            app = unpack_app(message.app)
        except BaseException as error:  # noqa: BLE001  # the user's modules may do anything
            self._send(Broken.by(error))
            return
        self._benches[message.key] = Bench(
            app,
            message.seed,
            threads=self._threads,
            devices=message.device,
            number=self._number,
            scratch=self._scratch.directory,
        )
        self._benches.pop(message.forget, None)
        self._send(Loaded())

    def _open(self, message: Open) -> None:
        self._bench = self._benches[message.key]
        self._heard.grow(message.size)
        self._exchange = Exchange(message, self._heard.get)
        self._board.exchange = message.number

    # --- tasks -------------------------------------------------------------------------------

    def _work(self) -> None:
        """Do tasks until there are none, or the exchange ends."""
        self._over = False
        try:
            self._work_on()
        except Over:  # not here: while it is handled, what it came through is held
            self._over = True
        if self._over:
            self._outbox.task_given_up()
            self._rest()

    def _work_on(self) -> None:
        fits = self._exchange.fits
        window = min(fits, WINDOW) if self._bench.loads_data else 0
        while taken := self._board.take(
            self._number, min(fits, self._chunk(_AT_ONCE)), self._chunk(_AT_LEAST), window=window
        ):
            self._flush_if_due()  # not behind the last tasks, where it is said at once that there are no more
            units = self._exchange.units
            while len(units) <= max(taken):  # the board was quicker than the message
                self._exchange.extend(self._receive_this(More))
            if len(taken) > 1 and self._is_small and (tasks := units.singles(taken)) is not None:
                self._do_in_turn(tasks)
                continue
            for unit in taken:
                self._do(units[unit])
                if self._over:
                    return
        self._rest()

    def _rest(self) -> None:
        """Say that there is nothing more to do, and hold nothing of the exchange until there is."""
        self._board.note(self._number, NOBODY)
        self._exchange.rest()
        self._bench.rest()
        self._flush(rest=Rest(self._exchange.heard, self._heard.held()))
        self._heap.settle()

    @property
    def _is_small(self) -> bool:
        """Is the model so small that clients are done in turn, and does no clock run for each?"""
        question = self._exchange.question
        return self._limit is None and (question.model is None or question.model.spec.size <= SMALL)

    def _note_pace(self, seconds: float) -> None:
        """Units took so long: at once if less than before, since the first may have loaded what the others find."""
        self._pace = seconds if seconds < self._pace else self._pace + (seconds - self._pace) / 4

    def _chunk(self, seconds: float) -> int:
        """How many units take so long, about."""
        return 1 if self._pace > seconds else min(_AT_MOST, int(seconds / max(self._pace, 1e-6)))

    def _do(self, tasks: Sequence[int]) -> None:
        """Do one task, or several that come one after the other or as a group."""
        question = self._exchange.question
        results = self._alone(question, tasks[0]) if len(tasks) == 1 else self._several(question, tasks)
        started = time.perf_counter()
        alike: dict[tuple[Kind, Spec], list[tuple[int, Update]]] = {}
        for task in tasks:
            begin = time.perf_counter()
            done = self._next(results, len(tasks))
            trained = time.perf_counter()
            if len(tasks) > 1 and (update := _small(done)) is not None:
                alike.setdefault((update.kind, update.arrays.spec), []).append((task, update))
            else:
                self._keep(task, done)
            del done
            self._outbox.task_done()
            said = time.perf_counter()
            self._seconds["training"] += trained - begin
            self._seconds["moving"] += said - trained
            self._flush_if_due()
        for members in alike.values():
            rows = Rows.packed([update for _, update in members], self._room)
            self._lots.append(self._lot(in_short([task for task, _ in members]), rows))
        self._outbox.task_done()
        self._note_pace(time.perf_counter() - started)

    def _alone(self, question: Question, task: int) -> Iterator[Done | Failure]:
        clients, state = self._known([task])
        self._board.note(self._number, task)
        yield self._bench.do(question, clients[0], state(clients[0].name))

    def _several(self, question: Question, tasks: Sequence[int]) -> Iterator[Done | Failure]:
        clients, state = self._known(tasks)
        return self._bench.do_many(question, clients, state, begin=self._noting(tasks))

    def _noting(self, tasks: Sequence[int]) -> Callable[[int], None]:
        """What says on the board which of these tasks is done now, by its place."""
        note, number = self._board.note, self._number
        return lambda place: note(number, tasks[place])

    def _known(self, tasks: Sequence[int]) -> tuple[list[ClientInfo], Callable[[str], Mapping[str, Any]]]:
        """The clients of these tasks, and what asks for the state of one of them."""
        clients, has_state = self._exchange.clients(tasks), self._exchange.stateful
        if not has_state:
            return clients, lambda _: {}
        stateful = {client.name: task for task, client in zip(tasks, clients, strict=True) if client.name in has_state}
        return clients, lambda name: self._state(stateful[name]) if name in stateful else {}

    def _do_in_turn(self, tasks: Sequence[int]) -> None:
        """Do small tasks stage by stage."""
        question = self._exchange.question
        begin = time.perf_counter()
        clients, state = self._known(tasks)
        with uncollected() as collect:
            noting, late = self._noting(tasks), begin + 2 * _AT_ONCE

            def note(place: int) -> None:
                self._end_fork()
                noting(place)
                if time.perf_counter() > late:  # it was to be over: garbage may be large
                    collect()

            for places, done in self._bench.do_in_turn(question, clients, state, begin=note, room=self._room):
                self._end_fork()
                if isinstance(done, Rows):
                    self._lots.append(self._lot(in_short([tasks[i] for i in places]), done))
                else:
                    self._keep(tasks[places[0]], done)
        self._outbox.task_done()
        said = time.perf_counter()
        self._seconds["training"] += said - begin
        self._note_pace((said - begin) / len(tasks))

    def _room(self, size: int) -> Array:
        """Memory for updates side by side; waits until there is some."""
        self._end_fork()
        if size <= _IN_MESSAGE:
            return np.empty(size, np.uint8)
        if self._over:  # while a handler asked for memory: nobody will make room any more
            raise Over
        while (piece := self._outbox.reserve(size)) is None:
            self._starve(LINE + size)
        return piece

    def _lot(self, tasks: Sequence[int], rows: Rows) -> Lot:
        values = rows.values
        assert isinstance(values, np.ndarray)
        where = values.tobytes() if values.nbytes <= _IN_MESSAGE else self._outbox.claim(values)
        return Lot(tasks, rows.kind, self._outbox.number(rows.spec), rows.weights, rows.metrics, where)

    def _next(self, results: Iterator[Done | Failure], many: int) -> Done | Failure:
        """The next result, within the limit for so many clients."""
        done: Done | Failure = next_within(self._limit and self._limit * many, results, self._crash)
        self._end_fork()
        return done

    def _keep(self, task: int, done: Done | Failure) -> None:
        """What came of a task, for the next message."""
        self._board.note(self._number, task)
        answer = self._answer(task, done)
        self._answers.append(answer)  # not in one line: making the answer may send those before it

    def _answer(self, task: int, done: Done | Failure) -> Answer:
        if isinstance(done, Failure):
            return Answer(task, "failure", failure=done, full=self._bench.full)
        update = done.update
        if isinstance(update, Metrics):
            return Answer(task, "metrics", update.weight, update.values)
        return Answer(
            task,
            update.kind,
            update.weight,
            update.metrics,
            self._store(update.arrays),
            {name: self._store(arrays) for name, arrays in update.extra.items()} if update.extra else {},
            done.state,
        )

    def _lend(self, size: int) -> Array | None:
        """Memory for arrays that user code makes: where they will lie, if they become an update.

        For large ones it waits until there is room, which costs less than to copy them there. Only for the thread that
        does tasks: others would take from the outbox, and hear what it waits for, at the same time.
        """
        if get_ident() != self._serving:
            return None
        box = self._outbox
        while (piece := box.lend(size)) is None and size >= _LARGE and box.lends and not self._over:
            try:
                self._starve(LINE + size)
            except Over:  # it may not go through the user's code
                self._over = True
        return piece

    def _store(self, arrays: Arrays) -> Stored:
        """Put arrays into the outbox; waits until there is room."""
        if self._over:
            raise Over
        while isinstance(stored := self._outbox.put(arrays), int):
            self._starve(stored)
        return stored

    def _starve(self, size: int) -> None:
        """Wait until there is room for so many bytes."""
        self._flush(starved=size)
        self._outbox.grow(self._receive_this(Room).size)

    def _state(self, task: int) -> Mapping[str, Any]:
        self._send(AskState(self._exchange.number, task))
        values: Mapping[str, Any] = self._receive_this(State).values
        return values

    def _receive_this(self, kind: type) -> Any:
        """The next message of a kind; what else comes meanwhile is heard as well."""
        while not isinstance(message := self._receive(), kind):
            if isinstance(message, End):
                raise Over
            if isinstance(message, More):
                self._exchange.extend(message)
        return message

    def _flush_if_due(self) -> None:
        """Say what was done, if there is much of it, or it was a while ago."""
        waits = self._lots or self._answers
        if waits and (time.perf_counter() - self._said > _OFTEN or self._outbox.unsaid > ROOM // 2):
            self._flush()

    def _flush(self, *, rest: Rest | None = None, starved: int = 0) -> None:
        """Say what was done."""
        self._send(
            Answers(
                self._exchange.number,
                self._answers,
                self._lots,
                self._outbox.fresh,
                dict(self._seconds),
                rest=rest,
                starved=starved,
                device=self._bench.device,
                resident=0 if self._weighed else resident(),
            )
        )
        self._weighed = self._weighed or bool(self._answers or self._lots)
        self._answers, self._lots, self._outbox.fresh, self._outbox.unsaid = [], [], [], 0
        self._seconds = dict.fromkeys(self._seconds, 0.0)
        self._said = time.perf_counter()


def _small(done: Done | Failure) -> Update | None:
    """The update, if it is all that came of a task, and had better lie side by side with others."""
    if isinstance(done, Failure) or isinstance(done.update, Metrics) or done.state is not None or done.update.extra:
        return None
    return done.update if done.update.arrays.spec.size <= SMALL else None


def run(number: int, lifeline: int, crash: int) -> None:
    """The life of a worker process.

    Args:
        number: of the connection to the main process.
        lifeline: a pipe that ends with the main process.
        crash: a file descriptor for a last traceback.
    """
    take_standard()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which ends us
    unblock_interrupt()
    connection = connected(number, lifeline)
    die_with_parent(lifeline)
    let_others_first()
    faulthandler.enable(file=crash)
    hello: Hello = pickle.loads(connection.recv_bytes())  # noqa: S301  # from our own parent
    for file in (lifeline, crash, *hello.board, hello.broadcast, hello.updates):
        if isinstance(file, int):
            os.set_inheritable(file, False)  # programs that user code starts must not keep them
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, write_through=False)  # whole lines, and none is lost
    search_there(hello.search)
    logging.basicConfig(format="%(message)s")
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        worker = Worker(connection, hello, lifeline, crash)  # it has to be there until this process ends
        worker.serve()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(0)  # not a tidy end, which may take long, and which user code may keep from coming


__all__ = ["Over", "Worker", "run"]
