"""`Node`: the long-running program at a data owner.

It connects to the server, works on the tasks that it gets, and keeps what is finished until the server has it: over
broken connections, restarts of the server, and its own. Work goes on while there is no connection.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, final

from umbel import wire
from umbel.errors import DiskFull, InUse, LinkError, NotAllowed, NotThere, Rejected, Unauthenticated, Unreachable
from umbel.link.base import Link
from umbel.link.ending import ending
from umbel.node import answers
from umbel.node.backoff import Backoff
from umbel.node.cache import Read
from umbel.node.children import ChildDied
from umbel.node.config import NodeConfig
from umbel.node.delivery import deliver
from umbel.node.installed import InstalledApp
from umbel.node.observer import Observer, Silent
from umbel.node.outbox import Finished, Key
from umbel.node.workshop import Workshop
from umbel.store.durable import readable_errors
from umbel.store.lock import DirectoryLock
from umbel.version import __version__

logger = logging.getLogger("umbel")
_VERDICTS: Mapping[int, str] = {
    wire.ReportResponse.VERDICT_ACCEPTED: "accepted",
    wire.ReportResponse.VERDICT_REPEATED: "repeated",
    wire.ReportResponse.VERDICT_LATE: "late",
}
_MORE_TASKS = 16  # than there are slots, that may wait; a server of ours gives none
_LATEST = 30.0  # seconds until an app is loaded again whose process was killed while it was
_TRIM = 30.0  # seconds between two looks at processes that have nothing to do
_STUBBORN = 5  # sessions that the server refuses in a row, after which that is no coincidence of a restart


def hold(directory: Path) -> DirectoryLock:
    """Hold a node's directory, which is made if it does not exist.

    Raises:
        InUse: another node works in it.
        StoreError: it cannot be made, or the lock in it.
    """
    with readable_errors(directory):
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
    try:
        return DirectoryLock(directory)
    except InUse as error:
        raise InUse(
            f"{directory} is in use by another node",
            advice="stop that node, or give this one a directory, and a name, of its own: --dir, --name",
        ) from error


@final
class Ended(Exception):
    """The session is over; its text says why.

    Attributes:
        wait: seconds that the server wants the node to stay away.
    """

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


@final
class Node:
    """A node.

    Args:
        config: what the owner says.
        link: to the server, with the node's key; `run` does not close it.
        apps: what may run here.
        directory: all that the node needs over restarts; one process at a time works there.
        environment: the variables that the apps' processes start with.
        observer: is told what happens.
        now: seconds since 1970.
        draw: a number from 0 to 1, for how long to wait before connecting again.
    """

    def __init__(
        self,
        config: NodeConfig,
        link: Link,
        apps: Iterable[InstalledApp],
        directory: Path,
        *,
        environment: Mapping[str, str],
        observer: Observer | None = None,
        now: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._config, self._link, self._apps, self._directory = config, link, tuple(apps), directory
        self._environment, self._observer, self._now = environment, observer or Silent(), now
        self._backoff = Backoff(draw)
        self._work: dict[Key, tuple[wire.Task, asyncio.Task[None]]] = {}
        self._waiting: OrderedDict[Key, Finished] = OrderedDict()  # to be delivered
        self._under_way: set[Key] = set()
        self._slots = asyncio.Semaphore(config.slots)
        self._session: tuple[asyncio.TaskGroup, wire.OpenSessionResponse] | None = None
        self._connected, self._refused, self._was_connected = asyncio.Event(), 0, False

    async def run(self) -> NoReturn:
        """Work until this is cancelled; then children are ended and files closed, and what is finished is kept.

        Raises:
            InUse: another node works in the directory.
            AppError: an app cannot be loaded.
            NotAllowed: the server does not know this node, or no longer wants it.
            Unauthenticated: the server does not accept its key, or shows a wrong certificate, from the start on.
            Incompatible: the server speaks other versions of the protocol.
        """
        lock = hold(self._directory)
        try:
            shop = Workshop(self._config, self._apps, self._directory, environment=self._environment, now=self._now)
            try:
                for answer in await shop.recovered():
                    self._waiting[answer.key] = answer
                apps = [await self._loaded(shop, app) for app in self._apps]
                await self._run(shop, apps)
            except BaseExceptionGroup as errors:
                raise _first(errors) from errors
            finally:
                await shop.close()
        finally:
            lock.close()

    async def _loaded(self, shop: Workshop, app: InstalledApp) -> InstalledApp:
        """Load an app; later again, if the system or somebody has killed its process, for that passes."""
        pause = 1.0
        while True:
            try:
                return await shop.load(app)
            except ChildDied as died:
                words = "app-killed: %r cannot be loaded on node %s, and is tried again in %g s: %s"
                logger.warning(words, app.app.name, self._config.name, pause, died)
            await asyncio.sleep(pause)
            pause = min(_LATEST, 2 * pause)

    async def _run(self, shop: Workshop, apps: list[InstalledApp]) -> NoReturn:
        async with asyncio.TaskGroup() as group:
            group.create_task(_trim(shop))
            self._group = group
            while True:
                try:
                    await self._connect(shop, apps)
                    reason, wait = "the server has ended the session", 0.0
                except Ended as ended:
                    reason, wait = str(ended), ended.wait
                pause = self._backoff.next(time.monotonic(), wait)
                self._observer.disconnected(reason, pause)
                await asyncio.sleep(pause)

    async def _connect(self, shop: Workshop, apps: list[InstalledApp]) -> None:
        """One session, from its beginning to its end."""
        request = wire.OpenSessionRequest(
            program=f"umbel {__version__}, Python {sys.version_info.major}.{sys.version_info.minor}",
            apps=[app.app.message() for app in apps],
            labels=[wire.Label(name=name, value=value) for name, value in self._config.labels.items()],
            slots=self._config.slots,
            datasets=list(self._config.data),
            time=self._now(),
            takes_code=self._config.policy.code_from_server,
        )
        try:
            opened = await self._link.open(request)
        except (Unreachable, Rejected, NotThere) as error:
            raise Ended(str(error)) from error
        except Unauthenticated as error:
            self._refused += 1  # a server that restarts has forgotten the challenge
            if self._refused >= _STUBBORN and not self._was_connected:
                raise  # else it may well be mended: somebody else answers, as where a name leads elsewhere for a while
            raise Ended(str(error)) from error
        self._refused, self._was_connected = 0, True
        self._observer.connected(opened)
        try:
            async with asyncio.TaskGroup() as group:
                self._session = group, opened
                self._connected.set()
                for answer in self._waiting.values():
                    self._deliver(shop, answer)
                await self._listen(shop)
                raise Ended("the server has ended the session")
        except BaseExceptionGroup as errors:
            raise _ended(_first(errors)) from errors
        finally:
            self._session = None
            self._connected.clear()
            self._under_way.clear()

    async def _listen(self, shop: Workshop) -> None:
        """Hear what the server has to say."""
        async with ending(self._link.subscribe()) as notices:
            async for notice in notices:
                self._backoff.reset()
                match notice.WhichOneof("notice"):
                    case "task":
                        await self._hear_task(shop, notice.task)
                    case "revoke":
                        for id_ in notice.revoke.tasks:
                            await self._revoke(shop, id_, notice.revoke.reason)
                    case "goodbye":
                        raise Ended(notice.goodbye.reason or "the server has said goodbye", notice.goodbye.wait)

    async def _hear_task(self, shop: Workshop, task: wire.Task) -> None:
        """Work on a task, but for one that is being worked on, or is finished."""
        key = answers.key_of(task.id)
        if key in self._work:
            same, work = self._work[key]
            if answers.question_digest(same) == answers.question_digest(task):
                same.id.attempt = max(same.id.attempt, task.id.attempt)  # its answer is that of the last attempt
                return
            work.cancel()
            await asyncio.wait([work])
        elif len(self._work) >= self._config.slots + _MORE_TASKS:
            raise Ended(f"the server gives more tasks than this node has slots, which are {self._config.slots}")
        try:
            done = await shop.begin(task, answers.question_digest(task))
        except DiskFull as error:
            await self._say_full(task, error)
            return
        if done is not None:
            self._waiting[key] = done
            self._deliver(shop, done)
            return
        self._waiting.pop(key, None)
        self._work[key] = task, self._group.create_task(self._do(shop, task))

    async def _do(self, shop: Workshop, task: wire.Task) -> None:
        """Do a task when it is its turn, and have its answer delivered."""
        key = answers.key_of(task.id)
        try:
            async with self._slots:
                self._soon(self._observer.began, task)
                answer = await shop.do(task, self._fetch)
            self._waiting[key] = answer
        except* DiskFull as errors:
            await self._say_full(task, errors.exceptions[0])
        finally:
            if key in self._work and self._work[key][0] is task:
                del self._work[key]
        if key in self._waiting:
            answer = self._waiting[key]
            self._deliver(shop, answer)
            self._soon(self._observer.finished, task, wire.ReportRequest.FromString(answer.report))

    async def _say_full(self, task: wire.Task, error: BaseException) -> None:
        """What is to be kept of a task cannot be, but the server need not wait for nothing."""
        logger.error("node-full: run %s, round %d: %s", task.run_name, task.round, _freed(error))
        with suppress(LinkError):
            await self._link.report(answers.full(task))

    def _soon(self, tell: Callable[..., object], *args: Any) -> None:
        """Tell the observer when what is next has been begun: the task, or its delivery, need not wait for that."""
        asyncio.get_running_loop().call_soon(tell, *args)

    def _fetch(self, blob: wire.Blob) -> Read:
        """Reads a blob, also over several connections."""

        async def read(offset: int) -> AsyncIterator[Any]:
            while True:
                await self._connected.wait()
                try:
                    request = wire.ReadBlobRequest(digest=blob.digest, offset=offset)
                    async with ending(self._link.read_blob(request)) as pieces:
                        async for piece in pieces:
                            offset += len(piece)
                            yield piece
                    return
                except (Unreachable, Unauthenticated):
                    await asyncio.sleep(self._backoff.moment())

        return read

    def _deliver(self, shop: Workshop, answer: Finished) -> None:
        if self._session is None or answer.key in self._under_way:
            return
        group, opened = self._session
        work = self._delivered(shop, answer, opened.chunk or wire.CHUNK)
        try:
            group.create_task(work)
            self._under_way.add(answer.key)
        except RuntimeError:  # the session is about to end; the next one delivers it
            work.close()

    async def _delivered(self, shop: Workshop, answer: Finished, chunk: int) -> None:
        """Send an answer until the server has it, or does not want it."""
        key = answer.key
        try:
            verdict = await self._verdict(shop, answer, chunk)
        except (Rejected, NotThere, NotAllowed) as error:
            logger.warning("answer-rejected: run %s, exchange %d: %s", key.run, key.exchange, error)
            verdict = "rejected"
            with suppress(Rejected, NotThere, NotAllowed):  # it waits for an answer, and none comes otherwise
                await self._link.report(answers.undelivered(answer.report, error))
        finally:
            self._under_way.discard(key)
        if self._waiting.get(key) is not answer:
            return  # it was asked again, or revoked
        del self._waiting[key]
        ended = {"run": key.run, "exchange": key.exchange, "attempt": answer.attempt, "verdict": verdict}
        id_ = wire.TaskId(run=key.run, exchange=key.exchange, client=key.client, attempt=answer.attempt)
        self._soon(self._observer.delivered, id_, verdict)
        await _end(shop, key, "delivered", ended)

    async def _verdict(self, shop: Workshop, answer: Finished, chunk: int) -> str:
        """Send an answer; gives what the server says."""
        try:
            return _VERDICTS.get(await deliver(self._link, answer, shop.outbox, chunk=chunk), "late")
        except Rejected:
            if not answer.files:
                raise
        # perhaps other bytes stood where these belong, from another connection or before a loss of power
        verdict = _VERDICTS.get(await deliver(self._link, answer, shop.outbox, chunk=chunk), "late")
        return "rejected" if verdict == "repeated" else verdict

    async def _revoke(self, shop: Workshop, id_: wire.TaskId, reason: str) -> None:
        """Stop working on a task, and forget its answer."""
        key = answers.key_of(id_)
        if key in self._work and self._work[key][0].id.attempt <= id_.attempt:
            _, work = self._work.pop(key)
            work.cancel()
        elif key in self._waiting and self._waiting[key].attempt <= id_.attempt:
            del self._waiting[key]
        else:
            return
        await _end(shop, key, "revoked", {"run": key.run, "exchange": key.exchange, "reason": reason})
        self._observer.revoked(id_, reason)


async def _trim(shop: Workshop) -> None:
    while True:
        await asyncio.sleep(_TRIM)
        try:
            await shop.trim()
        except DiskFull as error:  # the next time may do better
            logger.error("node-full: %s", _freed(error))


async def _end(shop: Workshop, key: Key, event: str, content: Mapping[str, Any]) -> None:
    """Write down how it ended. Without room for that, the next start delivers the answer once more, and asks again."""
    try:
        await shop.end(key, event, content)
    except DiskFull as error:
        logger.error("node-full: run %s, exchange %d: %s", key.run, key.exchange, _freed(error))


def _freed(error: BaseException) -> BaseException:
    """The error with what helps a node; who writes files thinks of runs that somebody starts."""
    if not isinstance(error, DiskFull):
        return error
    return DiskFull(error.what, advice="free some space; the node then goes on")


def _ended(error: BaseException) -> BaseException:
    """What becomes of an error during a session: a revoked node does not come back, nor one whose files are broken."""
    passing = isinstance(error, LinkError | DiskFull) and not isinstance(error, NotAllowed)
    return Ended(str(error)) if passing else error


def _first(errors: BaseExceptionGroup[Any]) -> BaseException:
    """What ended a session: what says most."""
    found: list[BaseException] = []
    todo: list[BaseException] = [errors]
    for error in todo:  # grows while it is walked
        if isinstance(error, BaseExceptionGroup):
            todo.extend(error.exceptions)
        else:
            found.append(error)
    ended = next((e for e in found if isinstance(e, Ended)), None)
    if ended is not None:
        return ended
    return next((e for e in found if not isinstance(e, LinkError)), found[0])


__all__ = ["Node", "hold"]
