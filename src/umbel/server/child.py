"""What runs in the process of a run with code of the user's: the app's main, folding, and central evaluations.

It is started by exec and never forked, in a process group of its own, and ends with the server. All that is durable,
and all that has to do with nodes, is asked of the server: see `umbel.server.proxies`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, final

from umbel import rng
from umbel.apps.frames import receive
from umbel.apps.load import load_server
from umbel.client.central import CentralTests
from umbel.client.determinism import isolated, prepare
from umbel.client.failures import own_words, trace, words
from umbel.codec import decode, encode
from umbel.engine.app import ServerApp
from umbel.engine.driver import drive
from umbel.engine.federation import Federation
from umbel.engine.plan import Plan
from umbel.engine.submission import Submission
from umbel.errors import FormatError, RunError, UmbelError
from umbel.server.clock import ServerClock
from umbel.server.proxies import AskingRunner, AskingStore, Upward
from umbel.server.telling import Telling
from umbel.simulation.cpus import cores
from umbel.simulation.spawned import begun, flush, leave
from umbel.simulation.threads import large_arrays

_PACKAGE = str(Path(rng.__file__).parent) + os.sep


def main(connection: int, lifeline: int) -> None:
    """Do one run.

    Args:
        connection: a socket to the server; its file descriptor.
        lifeline: a pipe that ends with the server; its file descriptor.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # until there is something to interrupt
    server = begun(connection, lifeline)
    first = receive(server)
    if first is not None:
        _serve(server, first.header)
    leave()


def _serve(server: socket.socket, begin: Mapping[str, Any]) -> None:
    up = Upward(server, Path(begin["handed"]), Path(begin["blobs"]), begin["suffix"])

    def interrupted(number: int, frame: FrameType | None) -> None:
        del number, frame
        up.interrupt()

    signal.signal(signal.SIGINT, interrupted)
    with isolated(begin["threads"]), large_arrays(begin["threads"] or cores()):
        try:
            ended = _ended(up, begin)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    flush()
    with contextlib.suppress(KeyboardInterrupt):  # it has ended anyway
        up.ask("end", ended)


def _ended(up: Upward, begin: Mapping[str, Any]) -> dict[str, Any]:
    """How the run ended; whatever its code raises."""
    try:
        os.chdir(begin["scratch"])
        app = load_server(begin["object"], path=Path(begin["source"]))
        return {"status": "finished", "reason": Work(up, begin, app).do()}
    except KeyboardInterrupt as error:
        return {"status": "interrupted", "reason": _of_main(error)}
    except RunError as error:
        failures = [encode(failure, _no_arrays) for failure in error.failures]
        return {"status": "failed", "reason": str(error), "code": error.code, "failures": failures}
    except UmbelError as error:
        text = own_words(error) or words(error)
        return {"status": "failed", "reason": text, "code": error.code, "traceback": _trace(error)}
    except BaseException as error:  # noqa: BLE001  # a run ends here
        return {"status": "failed", "reason": _of_main(error), "code": RunError.code}


def _no_arrays(_: object) -> str:
    raise FormatError("a failure holds no arrays")


def _of_main(error: BaseException) -> str:
    return f"main raised {words(error)}\n{_trace(error)}".rstrip()


def _trace(error: BaseException) -> str:
    """Its traceback from the first line on that is not ours; all of it, if there is none."""
    begin: TracebackType | None = error.__traceback__
    while begin is not None and begin.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        begin = begin.tb_next
    return trace(error.with_traceback(begin) if begin is not None else error)


@final
class Work:
    """What is done here of one run.

    Args:
        up: the way to the server.
        begin: what the server has said first.
        app: the server app.
    """

    def __init__(self, up: Upward, begin: Mapping[str, Any], app: ServerApp) -> None:
        written: Mapping[str, Any] = up.ask("begin").value
        self._submission: Submission = decode(written["submission"], up.fetch)
        self._app, self._threads, self._rounds = app, begin["threads"], begin["rounds"]
        self._runner = AskingRunner(up)
        self._store = AskingStore(up, written)
        self._telling = Telling(up.say, self._submission.stopped)
        self._clock = ServerClock(begin["offset"])

    def do(self) -> str:
        """Do what is left of the run; gives why it ended early, or ""."""
        submission, store, telling = self._submission, self._store, self._telling
        commits = store.commits()
        plan = Plan(
            seed=submission.seed,
            initial=submission.initial,
            rounds=self._rounds,
            handlers=frozenset(submission.handlers),
            central=CentralTests(self._app.tests, self._prepare) if self._app.tests else None,
            checkpoint=replace(submission.checkpoint, every=1),  # as in `umbel.server.run`
            durable=True,
            race=True,
            reseed=lambda round, call: self._prepare("main", round, call),
            warn=telling.warn,
        )

        def perform(loop: Any) -> Any:
            return drive(loop, self._runner, store, self._clock, telling)

        fed = Federation(plan, perform, commits=commits, records=store.records(), best=store.best())
        telling.watch(fed)
        fed.stopped = submission.stopped(fed.history)
        loop = submission.loop(self._app)
        self._prepare("main")
        try:
            loop(fed)
        finally:
            fed.flush()
        return f"stopped early: {fed.stopped}" if fed.stopped else ""

    def _prepare(self, *names: str | int) -> int:
        """Seed the generators for what is done now, and set the threads, as a simulation does."""
        key = rng.derive(self._submission.seed, *names)
        prepare(key, self._threads)
        return key


__all__ = ["Work", "main"]
