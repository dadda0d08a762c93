"""`connect`: a server somewhere else, as a place for runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

from umbel.arguments import whole
from umbel.errors import HandlerMissing, UsageError

if TYPE_CHECKING:
    from umbel.apps.describe import App
    from umbel.arrays import Arrays
    from umbel.client.app import ClientApp
    from umbel.engine.app import ServerApp
    from umbel.engine.submission import EvaluationOnly
    from umbel.errors import Failure
    from umbel.link.address import Address
    from umbel.progress import Display
    from umbel.remote.follower import Event
    from umbel.remote.line import Line
    from umbel.remote.place import RemotePlace
    from umbel.remote.session import RemoteSession
    from umbel.remote.shipment import Shipment
    from umbel.result import Result


@final
class Remote:
    """A server, and which of its nodes: what ``on=`` takes; made by `connect`.

    Attributes:
        address: of the server, with the token.
        place: which nodes, by name, label and data set.
        shipment: the app's wheel, which travels with each run; or None.
    """

    def __init__(self, address: Address, place: RemotePlace, shipment: Shipment | None = None) -> None:
        self.address, self.place, self.shipment = address, place, shipment

    def __repr__(self) -> str:
        return f"Remote({self.address.without_secret()!r}, {self.place!r})"

    def line(self) -> Line:
        """A line to the server; a context manager."""
        from umbel.remote.line import Line

        return Line(self.address)

    def run(
        self,
        server: ServerApp,
        client: ClientApp | str,
        *,
        seed: int | None = None,
        dir: str | os.PathLike[str] | None = None,
        rounds: int | None = None,
        initial: Any = None,
        callbacks: Sequence[Any] = (),
        name: str | None = None,
        app: App | None = None,
        shown: Display | None = None,
        heard: Callable[[Event], object] = lambda _: None,
    ) -> Result:
        """What ``umbel.run(on=...)`` does here; most arguments are explained there.

        Args:
            server: the server's side.
            client: the clients' side, or its name.
            seed: of all randomness.
            dir: a directory that makes the same call find the same run.
            rounds: how many in all.
            initial: the model to start from.
            callbacks: called here after rounds.
            name: of the run, for people.
            app: which app nodes run; None: that of the client.
            shown: shows how it goes; None: a bar where a person watches.
            heard: is called with each event of the run.
        """
        from umbel.progress import display

        with self.line() as line:
            session = self.session(
                line,
                server,
                client,
                seed=seed,
                dir=dir,
                rounds=rounds,
                initial=initial,
                callbacks=callbacks,
                name=name,
                app=app,
                heard=heard,
            )
            run = session.submit()
            return session.follow(shown or display(run.name, run.rounds or None))

    def session(
        self,
        line: Line,
        server: ServerApp,
        client: ClientApp | str,
        *,
        seed: int | None = None,
        dir: str | os.PathLike[str] | None = None,
        rounds: int | None = None,
        initial: Any = None,
        callbacks: Sequence[Any] = (),
        name: str | None = None,
        app: App | None = None,
        heard: Callable[[Event], object] = lambda _: None,
    ) -> RemoteSession:
        """A run that is packed and not yet submitted; arguments as in `run`."""
        from umbel.remote.session import RemoteSession, directory_of, submission_of

        loaded, its = _client(client, app)
        directory = directory_of(dir)
        submission, recipe = submission_of(
            server,
            loaded,
            self.place,
            seed=seed,
            rounds=rounds,
            given=initial,
            callbacks=callbacks,
            directory=directory,
        )
        return RemoteSession(
            line,
            self.place,
            submission,
            its,
            server=server,
            callbacks=callbacks,
            name=name or (directory.path.name if directory is not None else its.name),
            directory=directory,
            recipe=recipe,
            heard=heard,
            shipment=self.shipment,
        )

    def evaluate(
        self,
        model: Arrays,
        client: ClientApp | str,
        what: EvaluationOnly,
        *,
        seed: int = 0,
        name: str = "evaluation",
        app: App | None = None,
        shown: Display | None = None,
    ) -> tuple[Mapping[str, Any], Mapping[str, Mapping[str, Any]], Sequence[Failure]]:
        """What ``umbel.evaluate(on=...)`` does here.

        Args:
            model: that is evaluated.
            client: the clients' side, or its name.
            what: who evaluates, and how.
            seed: of all randomness.
            name: of the run at the server, which an evaluation is, too.
            app: which app nodes run; None: that of the client.
            shown: shows how it goes.

        Returns:
            The metrics combined, each client's own, and who failed.
        """
        from umbel.progress import Quiet
        from umbel.remote.session import RemoteSession, evaluation_of

        loaded, its = _client(client, app)
        if "evaluate" not in loaded.names():
            raise HandlerMissing("the client app has no handler for 'evaluate'", advice="write @client.evaluate")
        with self.line() as line:
            submission = evaluation_of(model, loaded, self.place, what, seed)
            session = RemoteSession(line, self.place, submission, its, name=name, shipment=self.shipment)
            session.follow(shown or Quiet())
        found = session.outcome
        metrics = found.rows[-1].stages.get("evaluate", {}) if found.rows else {}
        return metrics, found.clients, found.failures


def _client(client: ClientApp | str, app: App | None) -> tuple[ClientApp, App]:
    """A client's side, and which app nodes must have for it."""
    from umbel.apps.describe import describe
    from umbel.apps.load import load_client
    from umbel.remote.named import name_of_client

    loaded = load_client(client) if isinstance(client, str) else client
    if app is None:
        name = client if isinstance(client, str) else name_of_client(client)
        app = describe(name, handlers=sorted(loaded.names()))
    return loaded, app


def connect(
    where: str = "",
    *,
    nodes: Sequence[str] = (),
    labels: Mapping[str, str | int | float] | None = None,
    dataset: str = "",
    threads: int = 1,
    ship: str | os.PathLike[str] | None = None,
) -> Remote:
    """A server, as a place for runs: ``umbel.run(server, "myfed:client", on=umbel.connect(...))``.

    Nothing is sent yet.

    Args:
        where: the address that ``umbel token create`` printed, the name of a login that ``umbel login`` made, or the
            server's address without a token, if there is a login for it; "": the login that is the default.
        nodes: names of the nodes that may be asked; by default all that have the app.
        labels: that nodes must have.
        dataset: which of the nodes' data sets; by default their only one.
        threads: how many each handler may compute with, as in `umbel.Simulation`: the same number, the same bits.
        ship: the app's wheel, for nodes that do not have the app and whose owners let code come from the server; the
            signatures beside it go along. By default no code travels.

    Raises:
        UsageError: it is no address, or one that is cut off; or nobody is logged in there; or ``ship`` is no wheel.
        BadSignature: a signature beside the wheel is wrong.
    """
    from umbel.remote.logins import Logins
    from umbel.remote.place import RemotePlace
    from umbel.remote.session import check_labels
    from umbel.remote.shipment import Shipment

    if not isinstance(where, str):
        raise UsageError(f"the server's address is a {type(where).__name__}", advice='give text: "umbel://..."')
    if isinstance(nodes, str) or not all(isinstance(node, str) for node in nodes):
        raise UsageError(f"nodes is {nodes!r}", advice='give a list of names: nodes=["berlin"]')
    place = RemotePlace(
        nodes=tuple(nodes),
        labels=check_labels(labels or {}),
        dataset=dataset,
        threads=whole(threads, "connect: threads"),
    )
    return Remote(Logins.read().find(where), place, Shipment.read(ship) if ship is not None else None)


__all__ = ["Remote", "connect"]
