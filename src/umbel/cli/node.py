"""``umbel node``: the process at a data owner."""

from __future__ import annotations

import os
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from umbel.cli.reach import Json
from umbel.cli.run import Labels

if TYPE_CHECKING:
    from umbel.cli.joined import Joined
    from umbel.cli.nodeevents import NodeLines
    from umbel.link.address import Address
    from umbel.link.identity import Identity
    from umbel.node.config import NodeConfig
    from umbel.node.installed import InstalledApp

node_app = App(name="node", help="Run a node, look at its journal, or try an app on its data.")
Apps = Annotated[list[str] | None, Parameter(name="--app")]


@node_app.default
def node(
    address: str = "",
    *,
    name: str = "",
    app: Apps = None,
    site: Path | None = None,
    config: Path | None = None,
    dir: Path | None = None,
    slots: int | None = None,
    label: Labels = None,
    ca: Path | None = None,
    json: Json = False,
) -> None:
    """Run a node until SIGTERM or Ctrl-C. It connects to the server, never the other way round.

    The first start joins with a ticket; later ones need none.

    Args:
        address: as the server, or `umbel ticket create`, printed it; not needed by a node that has joined. Where others
            may see which commands run, it can stand in the variable UMBEL_TICKET instead.
        name: of the node, which is also its client's.
        app: an app that may run here: its directory, its wheel, or its name; may be given more than once.
        site: a TOML file with the settings of the node's only data set: ctx.site.
        config: a node.toml: data sets, policy, limits.
        dir: where the node keeps its key, states and journal; below ~/.local/state/umbel if it is left out.
        slots: how many tasks it works on at once.
        label: a label for the server's samplers: country=de; may be given more than once.
        ca: the certificate of the server's authority (PEM), if the address does not carry it.
        json: print a JSON object for each event.
    """
    import asyncio

    from umbel.cli.lines import log_to_lines
    from umbel.cli.nodeevents import NodeLines
    from umbel.link.allocation import hold_message_memory

    settings = node_config(config, site=site, name=name, slots=slots, label=label)
    keep_from_others(settings.run_as)
    directory = _directory(dir, settings)
    apps = installed(app or [], directory, needed=not settings.policy.code_from_server)
    log_to_lines(json=json)
    hold_message_memory()
    ticket = os.environ.pop("UMBEL_TICKET", "")  # which apps would see, else
    asyncio.run(_work(address or ticket, settings, apps, directory=directory, ca=ca, lines=NodeLines(json=json)))


def node_config(
    config: Path | None,
    *,
    site: Path | None = None,
    name: str = "",
    slots: int | None = None,
    label: list[str] | None = None,
) -> NodeConfig:
    """What the owner says, in files and on the command line.

    Args:
        config: a node.toml.
        site: the settings of the only data set.
        name: of the node.
        slots: how many tasks at once.
        label: labels, each NAME=VALUE.

    Raises:
        UsageError: something of that makes no sense.
    """
    from umbel.cli.run import labels_of
    from umbel.errors import UsageError
    from umbel.node.config import NodeConfig, check_name, read_config, read_site
    from umbel.wire.limits import MANY

    found = read_config(config) if config is not None else NodeConfig()
    if site is not None:
        if config is not None:
            raise UsageError(
                "--site and --config are two ways to say the same",
                advice="write the site's settings into node.toml: [data.NAME]",
            )
        data = read_site(site)
        found = found.with_(data={data.name: data})
    if name:
        try:
            found = found.with_(name=check_name(name))
        except ValueError as error:
            raise UsageError(str(error), advice="give another --name") from error
    if slots is not None:
        if not 1 <= slots <= MANY:
            raise UsageError(f"--slots is {slots}", advice=f"give a whole number from 1 to {MANY}")
        found = found.with_(slots=slots)
    return found.with_(labels={**found.labels, **labels_of(label)}) if label else found


def keep_from_others(run_as: str) -> None:
    """Let nobody else write what the node writes, whatever umask it was started with.

    Args:
        run_as: who apps run as; this user must reach models, apps unpacked from wheels, and a place to work.
    """
    before = os.umask(0o022)
    if not run_as:
        os.umask(before | 0o022)


def _directory(given: Path | None, settings: NodeConfig) -> Path:
    from umbel.cli.joined import usual_directory
    from umbel.errors import UsageError

    if given is not None:
        return given.absolute()
    if not settings.name:
        raise UsageError("the node has no name", advice="give --name NAME, or write name = into node.toml")
    return usual_directory(settings.name)


def installed(apps: list[str], directory: Path, *, needed: bool = True) -> list[InstalledApp]:
    """The apps that may run here; wheels are unpacked below the directory.

    Args:
        apps: directories, wheels or names.
        directory: of the node.
        needed: there must be one.

    Raises:
        UsageError: there is none.
    """
    from umbel.apps.project import Project
    from umbel.errors import UsageError
    from umbel.node.installed import InstalledApp

    if needed and not apps:
        raise UsageError(
            "the node has no app, and could do nothing",
            advice="give --app: a directory, a wheel, or a name; "
            "or let code come from the server: [policy] of node.toml",
        )
    return [InstalledApp.of(Project.find(app).unpacked(directory / "apps")) for app in apps]


async def _work(
    address: str,
    settings: NodeConfig,
    apps: list[InstalledApp],
    *,
    directory: Path,
    ca: Path | None,
    lines: NodeLines,
) -> None:
    import asyncio
    import os
    from dataclasses import replace

    from umbel.cli.joined import own_identity
    from umbel.cli.signals import on_signal
    from umbel.link.grpc_client import GrpcLink
    from umbel.node.program import Node, hold

    working = asyncio.current_task()
    assert working is not None
    on_signal(working.cancel)
    with closing(hold(directory)):  # nothing changes below a node that works there
        identity = own_identity(directory)
        member = await _member(address, settings, directory, identity, ca=ca, lines=lines)
        if ca is not None and (trusted := (_authority(ca) or b"").decode()) != member.ca:
            member = replace(member, ca=trusted)
            member.write(directory)  # later starts need no --ca, as they need no address
    settings = settings.with_(name=member.name)
    link = GrpcLink(member.address, identity, member.name, authority=member.pem)
    node = Node(settings, link, apps, directory, environment=dict(os.environ), observer=lines)
    lines.starts(member, apps, directory)
    if settings.labels and settings.labels != member.labels:
        lines.has_labels(member, settings.labels)
    try:
        await node.run()
    except asyncio.CancelledError:
        lines.ends()
    finally:
        await link.close()


def _authority(ca: Path | None) -> bytes | None:
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509 import load_pem_x509_certificates

    from umbel.errors import FormatError
    from umbel.store.durable import readable_errors

    if ca is None:
        return None
    with readable_errors(ca):
        pem = ca.read_bytes()
    try:
        found = load_pem_x509_certificates(pem)  # of a file without any, gRPC does not say which one it is
    except ValueError as error:
        raise FormatError(
            f"{ca} holds no certificate", advice="give --ca the certificate of the server's authority, in PEM"
        ) from error
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in found)


async def _member(
    text: str, settings: NodeConfig, directory: Path, identity: Identity, *, ca: Path | None, lines: NodeLines
) -> Joined:
    """Which server the node has joined; it joins now if it has not."""
    from dataclasses import replace

    from umbel.cli.joined import Joined
    from umbel.errors import UsageError
    from umbel.link.address import Address

    known = Joined.read(directory)
    address = Address.parse(text) if text else None
    if known is not None and settings.name not in ("", known.name):  # it was renamed at the server
        known = replace(known, name=settings.name)
        known.write(directory)
    if known is not None and (address is None or _is_same(known, address)):
        return known
    if address is None or not address.secret:
        raise UsageError(
            f"the node has not joined {address.without_secret() if address else 'a server'} yet",
            advice="give the whole address that the server printed: umbel node umbel://HOST:PORT/TICKET; "
            f"or, if it has joined and its files are not in {directory}, its --dir",
        )
    if not settings.name:
        raise UsageError("the node has no name", advice="give --name NAME")
    return await _join(address, settings, directory, identity, known=known, ca=ca, lines=lines)


def _is_same(known: Joined, address: Address) -> bool:
    """Is it the server that the node has joined?"""
    import base64

    if known.server != address.without_secret():
        return False
    mine = base64.b64decode(known.authority)
    return not address.secret or mine == (address.authority or b"")


async def _join(
    address: Address,
    settings: NodeConfig,
    directory: Path,
    identity: Identity,
    *,
    known: Joined | None,
    ca: Path | None,
    lines: NodeLines,
) -> Joined:
    from umbel import wire
    from umbel.cli.joined import joined
    from umbel.errors import Unauthenticated
    from umbel.link.grpc_client import GrpcLink

    link = GrpcLink(address, identity, settings.name, authority=_authority(ca))
    ticket = address.secret_text
    try:
        if known is not None:
            with suppress(Unauthenticated):  # one that is used up still lets in who is there already
                looked = await link.enrol(wire.EnrolRequest(ticket=ticket, check=True))
                _check_federation(known, looked.federation, directory)  # before the ticket, and the name, are used
        labels = [wire.Label(name=label, value=value) for label, value in settings.labels.items()]
        answer = await link.enrol(wire.EnrolRequest(ticket=ticket, labels=labels))
    finally:
        await link.close()
    if known is not None:
        _check_federation(known, answer.federation, directory)
    made = joined(settings.name, address, answer.federation, settings.labels)
    made.write(directory)
    lines.joined(made, identity.fingerprint)
    return made


def _check_federation(known: Joined, federation: str, directory: Path) -> None:
    """Refuse to take a node's directory to another federation."""
    from umbel.errors import UsageError

    if known.federation != federation:
        raise UsageError(
            f"{directory} belongs to a node of another federation, at {known.server}",
            advice="give this one a directory of its own: --dir",
        )


@node_app.command
def log(
    *,
    name: str = "",
    dir: Path | None = None,
    config: Path | None = None,
    since: int = 0,
    json: Json = False,
) -> None:
    """Print the node's journal: what it was asked, what it refused, and what has left it.

    Args:
        name: of the node.
        dir: its directory.
        config: its node.toml.
        since: leave out lines up to this number.
        json: print a JSON object a line.
    """
    from umbel.cli.joined import KEY
    from umbel.cli.nodeevents import journal_line
    from umbel.cli.printing import give, line
    from umbel.errors import UsageError
    from umbel.node.journal import read_journal

    directory = _directory(dir, node_config(config, name=name))
    if not any((directory / name).exists() for name in (KEY, JOURNAL)):
        raise UsageError(f"there is no node in {directory}", advice="give its --dir, or its --name")
    for entry in read_journal(directory / JOURNAL, since=since):
        give(dict(entry)) if json else line(journal_line(entry))


JOURNAL = "journal"
"""The part of a node's directory that holds its journal."""


@node_app.command
def check(
    *,
    app: Apps = None,
    site: Path | None = None,
    config: Path | None = None,
    name: str = "",
    dataset: str = "",
    model: Path | None = None,
    json: Json = False,
) -> int:
    """Train once, and evaluate once, on the node's own data, without a server; the exit status is 1 if it fails.

    Args:
        app: the app: its directory, its wheel, or its name.
        site: a TOML file with the settings of the node's only data set.
        config: a node.toml.
        name: of the node.
        dataset: which of its data sets.
        model: a .safetensors file with the model to begin with; the app's own if it is left out.
        json: print a JSON object a line.
    """
    import asyncio
    import os
    import tempfile

    from umbel.apps.project import Project
    from umbel.arrays import Arrays
    from umbel.cli.nodeevents import checked_lines
    from umbel.cli.printing import give, line
    from umbel.node.check import check as check_app

    ok = True
    settings = node_config(config, site=site, name=name)
    keep_from_others(settings.run_as)
    with tempfile.TemporaryDirectory(prefix="umbel-check-") as place:
        Path(place).chmod(0o711)  # whoever run_as names must get to its own directory in it, as in a node's
        for text, own in zip(app or [], installed(app or [], Path(place)), strict=True):
            found = asyncio.run(
                check_app(
                    settings,
                    own,
                    Path(place),
                    environment=dict(os.environ),
                    server=Project.find(text).server,
                    model=Arrays.load(model) if model is not None else None,
                    dataset=dataset,
                )
            )
            ok = ok and found.ok
            records = checked_lines(found)
            for record in records:
                give(record[1]) if json else line(record[0])
    return 0 if ok else 1


__all__ = ["installed", "keep_from_others", "node_app", "node_config"]
