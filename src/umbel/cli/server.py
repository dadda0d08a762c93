"""``umbel server``: the process with the durable state."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter
from cyclopts.validators import Number

from umbel.cli.reach import Json

if TYPE_CHECKING:
    from umbel.server.certificates import Authority
    from umbel.server.program import Server, ServerSettings

server_app = App(name="server", help="Run a server, or make a copy of one.")
_PAGES = "127.0.0.1:8444"
_NEEDED = ("alembic", "prometheus_client", "sqlalchemy", "starlette", "uvicorn")  # as umbel[server] of pyproject.toml
Port = Annotated[int, Parameter(validator=Number(gte=0, lt=1 << 16))]
Runs = Annotated[int, Parameter(validator=Number(gte=1))]
Days = Annotated[float, Parameter(validator=Number(gte=0))]
_CLOSE = 4.5  # seconds that ending may take


@server_app.default
def server(
    *,
    dir: Path,
    name: Annotated[list[str] | None, Parameter(name="--name")] = None,
    host: str = "0.0.0.0",
    port: Port = 8443,
    pages: str = _PAGES,
    app: Annotated[list[str] | None, Parameter(name="--app")] = None,
    cert: Path | None = None,
    key: Path | None = None,
    database: str = "",
    allow: Annotated[list[str] | None, Parameter(name="--allow")] = None,
    runs: Runs = 8,
    keep_days: Days = 0.0,
    new_operator: bool = False,
    json: Json = False,
) -> None:
    """Run a server until SIGTERM or Ctrl-C; runs go on when it is started again, also after kill -9.

    The first start prints a ticket that nodes join with and an address that its operator logs in with.

    Args:
        dir: of the database, models, keys and certificates; all that a backup needs.
        name: that nodes and people reach it by; may be given more than once, and the first stands in tickets.
        host: the address that it listens on.
        port: the port that nodes and people connect to; 0 takes a free one.
        pages: HOST:PORT of /healthz, /readyz and /metrics, for operators; "" serves none.
        app: an app whose code may run at the server: its directory, its wheel or its name; may be given more than once.
        cert: a certificate of your own (PEM), with those that stand between it and its authority.
        key: its private key (PEM).
        database: of a PostgreSQL: postgresql://USER@HOST/NAME; SQLite in the directory if it is left out. With a
            password, which others may see in a command, it can stand in the variable UMBEL_DATABASE instead.
        allow: a node that may connect; may be given more than once; all that are enrolled if it is left out.
        runs: how many are under way at one time; the others wait their turn.
        keep_days: remove runs so many days after they have ended; 0 keeps them.
        new_operator: revoke all operators' tokens, and print another: when the last one was lost.
        json: print a JSON object for each event.
    """
    import asyncio

    _check_installed()
    from umbel.cli.lines import log_to_lines
    from umbel.server.program import ServerSettings

    _check_pair(cert, key)
    log_to_lines(json=json)
    _make(dir)
    settings = ServerSettings(
        directory=dir.absolute(),
        database=_database(database),
        host=host,
        port=port,
        pages=_place(pages),
        allowed=frozenset(allow) if allow else None,
        at_once=runs,
        keep_days=keep_days,
        new_operator=new_operator,
        **_apps(app or []),
    )
    asyncio.run(_serve(settings, partial(_authority, dir, name or ["localhost"], cert, key), json=json))


def _check_pair(cert: Path | None, key: Path | None) -> None:
    """Refuse a certificate without its key.

    Raises:
        UsageError: one of the two is missing.
    """
    from umbel.errors import UsageError

    if (cert is None) != (key is None):
        raise UsageError("--cert and --key go together", advice="give both, or neither")


def _check_installed() -> None:
    """Refuse to begin without the libraries that only servers need.

    Raises:
        UsageError: one is not installed.
    """
    from importlib.util import find_spec

    from umbel.errors import UsageError

    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"a server needs {', '.join(missing)}, which this Python does not have",
            advice="pip install 'umbel[server]'",
        )


def _make(directory: Path) -> None:
    from umbel.store.durable import readable_errors

    _keep_to_oneself()
    with readable_errors(directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def _keep_to_oneself() -> None:
    """What is written from now on others may not read, wherever it lies."""
    import os

    os.umask(0o077)


def _database(given: str) -> str:
    """The database that was given, or that the environment names; which apps are not to see there."""
    import os

    named = os.environ.pop("UMBEL_DATABASE", "")
    return given or named


def _apps(apps: list[str]) -> dict[str, Any]:
    """The apps whose code may run at the server."""
    from umbel.apps.project import Project

    return {"apps": tuple(Project.find(app) for app in apps)} if apps else {}


def _authority(directory: Path, names: list[str], cert: Path | None, key: Path | None) -> Authority:
    import time

    from umbel.server.certificates import Authority

    if cert is not None and key is not None:
        return Authority.brought(cert, key, names if names != ["localhost"] else [], time.time())
    return Authority.open(directory, names, time.time())


def _place(pages: str) -> tuple[str, int] | None:
    """Host and port of the pages."""
    from umbel.errors import UsageError

    if not pages:
        return None
    host, _, port = pages.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"--pages is {pages!r}", advice=f'give HOST:PORT, as in {_PAGES}, or "" for none')
    return host.strip("[]"), int(port)


async def _serve(settings: ServerSettings, show: Callable[[], Authority], *, json: bool) -> None:
    import asyncio

    from umbel.cli.lines import say
    from umbel.cli.signals import on_signal
    from umbel.link.allocation import hold_message_memory
    from umbel.server.program import Server

    hold_message_memory()
    ending = asyncio.Event()
    on_signal(ending.set)
    started = await Server.start(settings, show)
    try:
        _introduce(started, started.authority, json=json)
        started.introduced()
        await ending.wait()
        say("server-ends: runs go on when it is started again", json=json)
    finally:
        try:
            await asyncio.wait_for(started.close(), _CLOSE)
        except TimeoutError:
            say("server-ends: not all calls have ended in time", json=json, level="warning")


def _introduce(server: Server, authority: Authority, *, json: bool) -> None:
    """Say where the server is, and, on its first start, how to come in."""
    from umbel.cli.lines import say
    from umbel.cli.printing import give, line
    from umbel.link.address import Address, target_of

    settings = server.settings
    address = Address(authority.names[0], server.port).without_secret()
    pages = f"http://{target_of(settings.pages[0], server.pages_port)}" if settings.pages is not None else ""
    if json:
        give(
            {
                "event": "ready",
                "address": address,
                "port": server.port,
                "pages": pages,
                "ticket": server.ticket,
                "token": server.token,
                "directory": str(settings.directory),
                "authority_expires": authority.expires,
            }
        )
        return
    if server.ticket:
        line("This is the first start. Keep these two lines; they are not shown again, and whoever has them gets in.")
        line("")
        line("A node joins with:")
        line(f"  umbel node {server.ticket} --name NAME --app APP")
    elif server.token:
        line("No operator has a valid token any more. Keep this new one; it is not shown again.")
        line("")
    if server.token:
        line("You log in, as the operator, with:")
        line(f"  umbel login {server.token}")
        line("")
    say(
        f"Server at {address}, listening on {target_of(settings.host, server.port)}; "
        f"its files are in {settings.directory}",
        json=False,
    )
    if pages:
        say(f"Pages for operators: {pages}/healthz, /readyz, /metrics", json=False)
    say("Ready.", json=False)


@server_app.command
def backup(path: Path, *, dir: Path, database: str = "", json: Json = False) -> None:
    """Copy a server's database, models and keys, also while it runs. A server can be started on the copy.

    Args:
        path: a directory that does not exist yet.
        dir: the server's directory.
        database: of a PostgreSQL, as the server was given it, UMBEL_DATABASE included; pg_dump must be installed.
        json: print one JSON object.
    """
    from umbel.cli.backup import back_up
    from umbel.cli.printing import give, line

    _check_installed()
    _keep_to_oneself()
    size = back_up(dir, path, _database(database))
    if json:
        give({"path": str(path), "bytes": size})
    else:
        line(f"{path} holds a copy of {dir}: {size:,} bytes. Keep it safe: it holds keys.")


__all__ = ["server_app"]
