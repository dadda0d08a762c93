"""The server: everything put together, started, and stopped."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import final

from umbel.apps.project import Project
from umbel.errors import UmbelError, Unauthenticated
from umbel.link.address import Address, target_of
from umbel.link.dispatch import Dispatch
from umbel.link.grpc_server import GrpcServer, serve
from umbel.link.sessions import Sessions
from umbel.server.calls import NodeDesk
from umbel.server.certificates import DAY, Authority
from umbel.server.control import ControlDesk
from umbel.server.counts import Counts
from umbel.server.hub import Hub
from umbel.server.installed import Installed
from umbel.server.people import SERVER, Person, hashed, new_ticket, new_token, permit, secret_of
from umbel.server.runs import AT_ONCE, Runs
from umbel.server.trouble import Trouble
from umbel.server.uploads import Uploads
from umbel.server.welcome import Welcome
from umbel.store.sql import ServerStore

logger = logging.getLogger("umbel")
_GRACE = 3.0  # seconds that calls under way have when the server ends; all of it is to take no more than five
_NOBODY_TRUSTS = (
    "authority-new: it was made now, and %s joined with another; bring authority.pem back from a backup and "
    "start again; if it is lost, nodes have to join with new tickets, and people to log in anew"
)
_SWEPT_EVERY = 600.0  # seconds


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How a server is set up.

    Attributes:
        directory: of blobs, keys and the database.
        database: a URL of SQLAlchemy's; "": SQLite in the directory.
        host, port: where it listens; port 0 takes a free one.
        pages: host and port of the pages for operators; None: none.
        allowed: names of nodes that may open a session; None: all that are enrolled.
        at_once: how many runs are under way at one time.
        keep_days: how long a run that has ended is kept; 0: until somebody removes it.
        apps: whose code may run at the server, in processes of their own.
        new_operator: are the operators' tokens to be revoked at the start, and another to be made?
    """

    directory: Path
    database: str = ""
    host: str = "0.0.0.0"
    port: int = 8443
    pages: tuple[str, int] | None = ("127.0.0.1", 8444)
    allowed: Collection[str] | None = None
    at_once: int = AT_ONCE
    keep_days: float = 0.0
    apps: Sequence[Project] = ()
    new_operator: bool = False


@final
@dataclass(slots=True)
class Server:
    """A server that runs; made by `Server.start`.

    Attributes:
        settings: how it is set up.
        port, pages_port: where it listens.
        ticket, token: addresses to join and to log in with, if this start has made them; else "".
    """

    settings: ServerSettings
    authority: Authority
    show: Callable[[], Authority]
    store: ServerStore
    hub: Hub
    runs: Runs
    port: int = 0
    pages_port: int = 0
    ticket: str = ""
    token: str = ""
    _listening: GrpcServer | None = None
    _warned: float = 0.0
    _exit: AsyncExitStack = field(default_factory=AsyncExitStack)

    @classmethod
    async def start(cls, settings: ServerSettings, show: Callable[[], Authority]) -> Server:
        """Open the store, go on with all runs, and listen.

        Args:
            settings: how it is set up.
            show: gives what it shows to nodes and people; asked when no other server can be in the directory, and again
                when that expires soon.

        Raises:
            InUse: another server has this store.
            NewerSchema: a newer version of Umbel has written it.
            Unreachable: a port is taken.
        """
        async with AsyncExitStack() as exit:
            url = settings.database or f"sqlite:///{settings.directory / 'umbel.sqlite'}"
            store = await asyncio.to_thread(ServerStore, url, settings.directory, now=time.time)
            exit.callback(store.close)
            hub = Hub([node.name for node in store.nodes() if node.connected], enrolled=store.nodes)
            apps = [await asyncio.to_thread(app.unpacked, settings.directory / "apps") for app in settings.apps]
            runs, counts = Runs(store, hub, at_once=settings.at_once, installed=Installed(apps)), Counts()
            authority = await asyncio.to_thread(show)
            if authority.is_new and (joined := len(store.nodes())):
                logger.warning(_NOBODY_TRUSTS, f"{joined} nodes have" if joined > 1 else "a node has")
            self = cls(settings, authority, show, store, hub, runs)
            await self._listen(exit, authority, counts)
            runs.start()
            self.warn(time.time())
            self._exit = exit.pop_all()
            return self

    async def _listen(self, exit: AsyncExitStack, authority: Authority, counts: Counts) -> None:
        settings, store, hub, runs = self.settings, self.store, self.hub, self.runs
        sessions, uploads = Sessions(), Uploads(store, counts)
        nodes = NodeDesk(store, sessions, hub, runs, uploads, counts=counts, allowed=settings.allowed)
        control = ControlDesk(store, hub, runs, uploads, nodes=nodes, authority_expires=self._expires)
        listening = await serve(
            Dispatch(nodes, control, sessions=sessions, authorize=self._authorize, told=Trouble()),
            address=target_of(settings.host, settings.port),
            certificate=authority.certificate_pem,
            key=authority.key_pem,
        )
        self.port, self._listening = listening.port, listening
        control.joined = self._joined
        exit.push_async_callback(listening.stop, _GRACE)
        exit.push_async_callback(self._let_go, nodes)
        if settings.pages is not None:
            from umbel.server.http import Pages, pages  # nodes can come in already: it takes a while to import

            shown = pages(store, hub, runs, counts, expires=self._expires, ready=self._ready)
            served = Pages(shown, *settings.pages)
            self.pages_port = await served.start()
            exit.push_async_callback(served.close)
        keeping = asyncio.create_task(self._keep_house(), name="umbel-housekeeping")
        exit.callback(keeping.cancel)
        await self._let_somebody_in()

    async def _let_go(self, nodes: NodeDesk) -> None:
        """Say goodbye to nodes, and let runs stop where they stand."""
        nodes.ending = True
        await self.runs.close()
        self.hub.goodbye("the server ends", 0.0)

    def _joined(self, secret: str) -> str:
        """The address of this server with a secret, for who is to come in."""
        return str(Address(self.authority.names[0], self.port, secret_of(secret), self.authority.authority_der or None))

    async def _let_somebody_in(self) -> None:
        """An operator's token if nobody has one that is valid; on the first start a ticket, too.

        Those that a start made and could not show are shown now.
        """
        if self.settings.new_operator:
            await self._revoke_operators()
        now, known = time.time(), self.store.tokens()
        welcome = await asyncio.to_thread(Welcome.read, self.settings.directory)
        mine = next((token for token in known if welcome and token.secret == hashed(welcome.token)), None)
        if mine is None or not mine.valid(now):
            if any(token.role == "operator" and token.valid(now) for token in known):
                return
            if welcome is None or mine is not None:
                welcome = await asyncio.to_thread(Welcome.make, self.settings.directory, ticket=not known)
            await self._keep_token(welcome, {token.name for token in known}, now)
        assert welcome is not None
        self.token = self._joined(welcome.token)
        if welcome.ticket:
            await self._keep_ticket(welcome, now)
            self.ticket = self._joined(welcome.ticket)

    async def _revoke_operators(self) -> None:
        """Whoever has an operator's token has lost it, or somebody else has it."""
        for token in self.store.tokens():
            if token.role == "operator" and token.valid(time.time()):
                await asyncio.wrap_future(self.store.revoke("token", token.name, SERVER))

    async def _keep_token(self, welcome: Welcome, taken: Collection[str], now: float) -> None:
        names = itertools.chain(["operator"], (f"operator-{number}" for number in itertools.count(2)))
        name = next(name for name in names if name not in taken)
        _, token = new_token(name, "operator", seconds=0.0, now=now)
        await asyncio.wrap_future(self.store.keep_token(replace(token, secret=hashed(welcome.token)), SERVER))

    async def _keep_ticket(self, welcome: Welcome, now: float) -> None:
        if hashed(welcome.ticket) in {ticket.secret for ticket in self.store.tickets()}:
            return
        _, ticket = new_ticket(uses=100, seconds=7 * 86400.0, creator=SERVER, now=now)
        await asyncio.wrap_future(self.store.keep_ticket(replace(ticket, secret=hashed(welcome.ticket)), SERVER))

    def introduced(self) -> None:
        """Token and ticket have been shown: no later start shows them."""
        Welcome.forget(self.settings.directory)

    def _authorize(self, token: str | None, method: str) -> Person:
        """Who may do this.

        Raises:
            Unauthenticated: there is no such token, or not any more.
            NotAllowed: the role does not permit it.
        """
        row = self.store.token(hashed(token)) if token else None  # refuses what has expired, or was revoked
        if row is None:
            raise Unauthenticated(
                "this token is not known here",
                advice="take the address that the server printed behind `umbel login`, not that behind `umbel node`; "
                "or ask its operator for a new one: umbel token create",
            )
        person = Person(row.name, row.role, row.expires)
        permit(person, method)
        return person

    def _expires(self) -> float:
        """When what nodes trust ends, seconds since 1970: of what is shown now, which may be newer than the start."""
        return self.authority.expires

    def _ready(self) -> str:
        """Why the server cannot serve now; "" if it can."""
        if self.store.broken is not None:  # it can still be read
            return f"nothing can be written any more: {self.store.broken}"
        try:
            self.store.tokens()
        except Exception as error:  # noqa: BLE001  # that is the answer
            return f"the store does not answer: {error}"
        return ""

    async def _keep_house(self) -> None:
        """What is done now and then, as long as the server lives."""
        while True:
            await self._renew_certificate()
            self.warn(time.time())
            try:
                await self._forget_old()
                await asyncio.wrap_future(self.store.sweep())
            except Exception as error:  # the next time may do better
                logger.warning("not-swept: %s", error, exc_info=_unforeseen(error))
            await asyncio.sleep(_SWEPT_EVERY)

    def warn(self, now: float) -> None:
        """Say at the start, and then once a day, what is to be done about certificates."""
        if now >= self._warned + DAY and (warning := self.authority.warning(now)):
            self._warned = now
            logger.warning("certificate-expires: %s", warning)

    async def _renew_certificate(self) -> None:
        """Show another certificate before this one expires."""
        if self._listening is None or time.time() < self.authority.renewed:
            return
        before = self.authority.certificate_pem
        try:
            self.authority = await asyncio.to_thread(self.show)
        except Exception as error:  # the next time may do better
            logger.warning(
                "certificate-expires: the certificate was not renewed: %s", error, exc_info=_unforeseen(error)
            )
            return
        if self.authority.certificate_pem == before:  # its owner has not brought another yet
            return
        self._listening.renew(self.authority.certificate_pem, self.authority.key_pem)
        logger.info("certificate-renewed: for %s", ", ".join(self.authority.names))

    async def _forget_old(self) -> None:
        """Remove runs that ended long ago, if they are to be."""
        if not self.settings.keep_days:
            return
        before = time.time() - self.settings.keep_days * 86400
        for run in self.store.runs(submissions=False):
            if run.ended and run.ended < before:
                logger.info("run-removed: %s ended more than %g days ago", run.id, self.settings.keep_days)
                await asyncio.wrap_future(self.store.remove_run(run.id, SERVER))

    async def close(self) -> None:
        """Stop within five seconds; runs go on when the server comes back."""
        self.store.hurry()
        await self._exit.aclose()


def _unforeseen(error: Exception) -> Exception | None:
    """The error, if its words alone would not say enough."""
    return None if isinstance(error, UmbelError) else error


__all__ = ["Server", "ServerSettings"]
