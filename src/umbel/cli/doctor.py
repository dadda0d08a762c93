"""``umbel doctor``: what is wrong, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umbel.cli.node import Apps
from umbel.cli.reach import Json, On

if TYPE_CHECKING:
    from umbel.cli.finding import Finding
    from umbel.link.address import Address


_LOGIN = "umbel login ADDRESS; or give the doctor the address that is to be looked at"


def doctor(
    address: str = "",
    *,
    dir: Path | None = None,
    config: Path | None = None,
    app: Apps = None,
    name: str = "",
    run: str = "",
    on: On = "",
    json: Json = False,
) -> int:
    """Look for what is wrong: with an address, the way to a server, a node, an app, a policy; and say what to do.

    The exit status is 1 if something is wrong.

    Args:
        address: of a server, with a ticket or a token.
        dir: the directory of a node or of a server on this machine.
        config: a node.toml.
        app: an app: its directory, its wheel, or its name; can it be imported, and have the nodes the same?
        name: of a node on this machine, whose directory is the usual one.
        run: a run at the server: would the node of this config, with this app, do it?
        on: the name of a login, or an address; the default login if nothing else is given.
        json: print a JSON object a line.
    """
    from umbel.cli.finding import BAD
    from umbel.cli.joined import usual_directory
    from umbel.cli.printing import give, line

    directory = dir if dir is not None else usual_directory(name) if name else None
    findings = _examine(address or on, directory, config, app or [], run)
    worst = False
    for finding in findings:
        worst = worst or finding.status == BAD
        if json:
            give({"check": finding.check, "status": finding.status, "what": finding.what, "advice": finding.advice})
        else:
            line(f"{finding.status:<8} {finding.check}: {finding.what}")
            if finding.advice:
                line(f"         What to do: {finding.advice}")
    if not json:
        line("Something is wrong." if worst else "Nothing is wrong, as far as was looked.")
    return 1 if worst else 0


def _examine(where: str, directory: Path | None, config: Path | None, apps: list[str], run: str) -> Iterator[Finding]:
    from umbel.cli.finding import failed, warning
    from umbel.cli.joined import Joined
    from umbel.cli.localchecks import look_at_directory
    from umbel.errors import UmbelError

    member = None
    if directory is not None:
        yield from look_at_directory(directory)
        try:
            member = Joined.read(directory)
        except UmbelError as error:
            yield failed("directory", error)
    try:
        target = _target(where, member)
    except UmbelError as error:
        yield failed("address", error)
        target = None
    else:
        if target is None and (run or not (directory or config or apps)):  # else it is about something that is here
            yield warning("address", "nobody is logged in here, so no server was looked at", _LOGIN)
    said = None
    if target is not None:
        found, said = _reached(target, directory, member)
        yield from found
    yield from _look_at_apps(apps, target if said is not None else None)
    yield from _look_at_policy(config, apps, run, target if said is not None else None)


def _target(where: str, member: Any) -> Address | None:
    """Which server is meant; None: no server is meant."""
    import os

    from umbel.remote.logins import Logins

    if not where and member is not None:
        address: Address = member.address
        return address
    where = where or os.environ.get("UMBEL_ON", "")
    logins = Logins.read()
    return logins.find(where) if where or logins.default else None


def _reached(target: Address, directory: Path | None, member: Any) -> tuple[Iterator[Finding], Any]:
    """The way to a server, and what it says of the secret, or of the node."""
    import os
    from dataclasses import replace

    from umbel.cli.finding import BAD, ok
    from umbel.cli.proxies import look_at_proxies, proxy_for
    from umbel.cli.waychecks import look_at_secret, look_at_session, look_at_way

    found: list[Finding] = [ok("address", f"{target.without_secret()} is whole")]
    found += look_at_proxies(os.environ, target.host)
    looked = target
    if member is not None and member.authority and not member.ca and not target.authority:
        import base64

        looked = replace(target, secret=bytes(16), authority=base64.b64decode(member.authority))
    found += look_at_way(looked, proxied=bool(proxy_for(os.environ, target.host)))
    said = None
    if not any(finding.status == BAD for finding in found):
        if target.secret:
            more, said = look_at_secret(target)
            found += more
        elif member is not None and directory is not None:
            found += look_at_session(directory, member)
    return iter(found), said


def _look_at_apps(apps: list[str], target: Address | None) -> Iterator[Finding]:
    """The apps here, and whether the nodes have the same."""
    from umbel.cli.finding import bad, failed, ok, warning
    from umbel.cli.localchecks import look_at_app
    from umbel.cli.printing import span
    from umbel.cli.waychecks import CLOCK
    from umbel.errors import UmbelError
    from umbel.remote.line import Line

    mine = []
    for app in apps:
        found, name, digest = look_at_app(app)
        yield from found
        mine += [(name, digest)] if name else []
    if target is None:
        return
    try:
        with Line(target) as line:
            nodes = line.listed("ListNodes", "nodes")
    except UmbelError as error:
        yield failed("nodes", error)
        return
    for node in nodes:
        if node.status == "away":
            yield warning("node", f"{node.name} is away", "look at its output: does it run, and reach the server?")
        if node.status == "connected" and abs(node.clock) > CLOCK:
            way = "ahead of" if node.clock > 0 else "behind"
            text = f"the clock of node {node.name} is {span(abs(node.clock))} {way} that of the server"
            yield bad("clock", text, "set the one that is wrong, for example with NTP")
        for name, digest in mine if node.status == "connected" else ():
            its = [other for other in node.apps if other.name == name]
            if node.takes_code and not any(other.digest.hex() in ("", digest) for other in its):
                yield ok(
                    "app", f"node {node.name} does not have {name}, and takes it from the server if its owner trusts it"
                )
            elif not its:
                yield bad(
                    "app",
                    f"node {node.name} does not have {name}, or its owner does not let it run",
                    "install it there, and start the node with --app; `umbel policy` shows what its owner permits",
                )
            elif not any(other.digest.hex() in ("", digest) for other in its):
                yield bad(
                    "app",
                    f"node {node.name} has {name} {its[0].version} with the digest {its[0].digest.hex()}, not {digest}",
                    "give both sides the same wheel, or the same files",
                )
            else:
                yield ok("app", f"node {node.name} has the same {name}")


def _look_at_policy(config: Path | None, apps: list[str], run: str, target: Address | None) -> Iterator[Finding]:
    from umbel.cli.finding import bad, failed, ok
    from umbel.cli.localchecks import look_at_config, look_at_permitted
    from umbel.cli.node import node_config
    from umbel.cli.policy import judged
    from umbel.errors import UmbelError
    from umbel.remote.follower import find_run
    from umbel.remote.line import Line

    if config is None and not run:
        return
    try:
        settings = node_config(config)
    except UmbelError as error:
        yield failed("node.toml", error)
        return
    if config is not None:
        yield ok("node.toml", f"{config} makes sense")
        yield from look_at_config(settings)
        for app in apps:
            yield from look_at_permitted(settings, app)
    try:
        if not run or target is None:
            return
        with Line(target) as line:
            asked = find_run(line, run)
        refusals = judged(asked, settings, apps)
    except UmbelError as error:
        yield failed("policy", error)
        return
    for kind, refusal in refusals:
        yield bad("policy", f"{kind}: {refusal.message}", refusal.advice)
    if not refusals:
        yield ok("policy", f"it lets run {asked.id[:8]} be done")


__all__ = ["doctor"]
