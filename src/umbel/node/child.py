"""What runs in the app's process: imports the app once, then does task after task.

It is started by exec and never forked, in a process group of its own, and ends with the node. It becomes the user that
the owner named before any of the app's code runs; secrets are resolved just before that.
"""

from __future__ import annotations

import contextlib
import importlib.metadata  # noqa: F401  # imports want it (3.12), and who the process becomes may not read it
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, final

from umbel import schedule, wire
from umbel.apps.frames import Frame, pack, receive
from umbel.apps.load import load_client, load_server
from umbel.arrays import Arrays
from umbel.client.context import ClientInfo
from umbel.client.determinism import isolated
from umbel.client.failures import code, own_words, trace, words
from umbel.client.work import Bench
from umbel.codec import own_classes
from umbel.digest import is_named
from umbel.errors import Failure, FormatError, HandlerMissing, UmbelError, UsageError
from umbel.link.tasks import question_of, report_of
from umbel.node.arrays_by_file import Placing, keep_file, pack_state, unpack_state
from umbel.node.secrets import Hiding, resolved
from umbel.simulation.spawned import begun, flush, leave

_interruptible = [False]


def main(connection: int, lifeline: int) -> None:
    """Serve until the node says no more.

    Args:
        connection: a socket to the node; its file descriptor.
        lifeline: a pipe that ends with the node; its file descriptor.
    """
    signal.signal(signal.SIGINT, _interrupted)
    node = begun(connection, lifeline)
    begin = receive(node)
    if begin is not None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            _serve(node, begin.header)
    leave()


def _interrupted(number: int, frame: FrameType | None) -> None:
    """The node wants the task to end; between tasks that means nothing."""
    del number, frame
    if _interruptible[0]:
        _interruptible[0] = False
        raise KeyboardInterrupt


def _serve(node: socket.socket, begin: Mapping[str, Any]) -> None:
    threads = begin["threads"] or os.cpu_count() or 1
    with isolated(threads):
        try:
            site = resolved(begin["site"], os.environ)
        except UsageError as error:
            node.sendall(pack({"is": "failed", "owners": True, **_failure(error, Hiding())}))
            return
        hide = Hiding(begin["site"], site)
        try:
            hide.watch_streams()
            worker = Worker(begin, threads, site, hide)
        except BaseException as error:  # noqa: BLE001  # whatever the app's import raises, the server is told
            flush()
            node.sendall(pack({"is": "failed", **_failure(error, hide)}))
            return
        flush()
        node.sendall(pack({"is": "ready", "handlers": sorted(worker.app.names())}))
        while (frame := receive(node)) is not None:
            node.sendall(worker.hear(frame))
            worker.rest()


@final
class Worker:
    """The app, and where its tasks are done.

    Args:
        begin: what the node has said first.
        threads: how many it computes with.
        site: the data set's settings, with secrets.
        hide: is called with texts that leave.

    Attributes:
        app: the app.
    """

    def __init__(self, begin: Mapping[str, Any], threads: int, site: Mapping[str, Any], hide: Hiding) -> None:
        self._hide = hide
        _become(begin["run_as"])
        with _permitted(begin["run_as"]):
            os.chdir(begin["scratch"])
            self.app = load_client(begin["object"], path=Path(begin["source"]))
        if not self.app.names():
            raise HandlerMissing(
                f"{begin['object']} has no handler, so it can be asked nothing",
                advice="register functions with it: @client.train, @client.evaluate or @client.query",
            )
        self._client = ClientInfo(name=begin["client"], labels=begin["labels"], site=site)
        self._out, self._pid = Path(begin["out"]), os.getpid()
        self._held: list[object] = []
        self._package = begin["object"].partition(":")[0].partition(".")[0]
        self._bench = Bench(
            self.app,
            begin["seed"],
            threads=threads,
            devices=begin["devices"],
            number=begin["number"],
            scratch=lambda: str(begin["scratch"]),
        )

    def hear(self, frame: Frame) -> bytes:
        """Do a task; gives the frame with its answer."""
        begin = time.perf_counter()
        try:
            _interruptible[0] = True
            try:
                head, body = self._do(frame)
            finally:
                _interruptible[0] = False
        except KeyboardInterrupt:
            head, body = {"is": "stopped"}, b""
        except BaseException as error:  # noqa: BLE001  # a task ends here
            head, body = {"is": "failed", **_failure(error, self._hide)}, b""
        if os.getpid() != self._pid:
            os._exit(1)  # a fork that comes back from user code: what it would say is not the client's answer
        flush()
        return pack({**head, "seconds": time.perf_counter() - begin}, body)

    def rest(self) -> None:
        """The answer has left: let go of what the task used. A large model takes a while to free."""
        self._held.clear()
        self._bench.rest()

    def _initial(self, name: str) -> tuple[dict[str, Any], bytes]:
        """What the app's server would send first, for a check without one: the model, and the first round's config."""
        server = load_server(name)
        model = server.initial_model()
        config = schedule.resolve(server.strategy.config, 1) if server.strategy is not None else {}
        digest = None if model is None else keep_file(self._out, model)
        packed, arrays = pack_state(config, lambda arrays: keep_file(self._out, arrays))
        return {"is": "initial", "model": digest, "config": packed}, arrays

    def _do(self, frame: Frame) -> tuple[dict[str, Any], bytes]:
        head, body = frame
        if "initial" in head:
            return self._initial(head["initial"])
        blobs: Mapping[str, str] = head["blobs"]
        task = wire.Task.FromString(body[: head["task"]])

        def by_name(digest: str) -> Arrays:
            return Arrays.load(blobs[digest])

        def fetch(blob: wire.Blob) -> Arrays:
            if not blob.HasField("content"):
                return by_name(blob.digest.hex())
            if not is_named(blob.digest, blob.content):
                raise FormatError(f"the bytes of blob {blob.digest.hex()[:12]} do not have its digest")
            return Arrays.from_bytes(blob.content, source="a blob")

        state = unpack_state(head["state"], body[head["task"] :], by_name)
        question = question_of(task, fetch, allow=self._may_be_made)
        done = self._bench.do(question, self._client, state)
        self._held += [question, done]
        result, after = (self._without_secrets(done), None) if isinstance(done, Failure) else done
        report = report_of(task.id, result, Placing(self._out)).SerializeToString()
        packed, arrays = (
            (None, b"") if after is None else pack_state(after, lambda arrays: keep_file(self._out, arrays))
        )
        return {"is": "answer", "report": len(report), "state": packed}, report + arrays

    def _without_secrets(self, failure: Failure) -> Failure:
        return replace(failure, message=self._hide(failure.message), traceback=self._hide(failure.traceback))

    def _may_be_made(self, path: str) -> bool:
        """Values of our own classes, and of the app's, whose code runs here anyway."""
        return own_classes(path) or path.replace(":", ".").partition(".")[0] == self._package


def _become(user: str) -> None:
    """Become a user of the system; there is no way back.

    Raises:
        UsageError: there is none of this name, or the node may not.
    """
    if not user:
        return
    import pwd

    try:
        entry = pwd.getpwnam(user)
        os.initgroups(user, entry.pw_gid)
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    except (KeyError, OSError) as error:
        raise UsageError(
            f"the app cannot run as user {user!r}: {error}",
            advice="name a user of this system in run_as, and start the node as root",
        ) from error
    os.environ["HOME"], os.environ["USER"] = entry.pw_dir, user


@contextlib.contextmanager
def _permitted(user: str) -> Iterator[None]:
    """Reach files of the node and of the app, which the user must be able to.

    Raises:
        UsageError: this user may not pass through a directory above them, or not read them.
    """
    try:
        yield
    except PermissionError as error:
        if not user or not error.filename:
            raise
        found = Path(error.filename)
        closed = next((path for path in reversed(found.parents) if not os.access(path, os.X_OK)), found)
        raise UsageError(
            f"the app cannot run as user {user!r}, who may not reach {found}, because of {closed}",
            advice=f"let this user pass, and read the app's files: chmod o+rx {closed}; or move what lies there: --dir "
            "says where the node's files are, --app where the app is",
        ) from error


def _failure(error: BaseException, hide: Hiding) -> dict[str, str]:
    ours = own_words(error) if isinstance(error, UmbelError) else None
    shown = "" if ours else trace(error)
    return {"code": code(error), "message": hide(ours or words(error)), "traceback": hide(shown)}


__all__ = ["Worker", "main"]
