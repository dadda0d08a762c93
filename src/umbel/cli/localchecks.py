"""What ``umbel doctor`` looks at on this machine: files, permissions, room, apps."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from umbel.cli.finding import Finding, bad, failed, ok, warning
from umbel.cli.joined import FILE, KEY
from umbel.cli.node import JOURNAL
from umbel.cli.printing import clock, span
from umbel.errors import UmbelError

if TYPE_CHECKING:
    from umbel.apps.project import Project
    from umbel.node.config import NodeConfig

_ROOM, _SHARE = 1 << 30, 0.02  # of a disk that is nearly full: bytes, and part of the whole, that are free
SOON = 90 * 86400.0  # seconds before something ends in which one is told


def look_at_directory(directory: Path) -> Iterator[Finding]:
    """A node's or a server's directory: is there room, and may nobody read the keys?"""
    if not directory.is_dir():
        yield bad("directory", f"there is no directory {directory}", "check --dir, or the --name of the node")
        return
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        advice = "check its owner and its permissions, and whether its file system is read-only"
        yield bad("directory", f"{directory} cannot be written to by this user", advice)
    yield _room(directory)
    keys = [directory / name for name in (KEY, "authority.pem", "server.pem") if (directory / name).exists()]
    for key in keys:
        yield look_at_secret(key)
    if (directory / "authority.pem").exists():
        yield _authority(directory)
    if (directory / JOURNAL).is_dir():
        yield _journal(directory / JOURNAL)
    if not keys and not (directory / FILE).exists():
        yield warning("directory", f"{directory} holds neither a node nor a server", "check --dir")


def _journal(directory: Path) -> Finding:
    """Is each line of a node's journal as it was written?"""
    from umbel.node.journal import read_journal

    lines = 0
    try:
        for line in read_journal(directory):
            lines = line["number"]
    except UmbelError as error:
        return failed("journal", error)
    return ok("journal", f"its lines, the last of which is number {lines}, are as they were written")


def _room(directory: Path) -> Finding:
    usage = shutil.disk_usage(directory)
    free = f"{usage.free / 1e9:.1f} GB of {usage.total / 1e9:.0f} GB are free on the disk of {directory}"
    if usage.free < _ROOM or usage.free < _SHARE * usage.total:
        return bad("room", free, "free some space: without room neither models nor answers can be kept")
    return ok("room", free)


def look_at_secret(file: Path) -> Finding:
    """May anybody but its owner read a file?"""
    mode = stat.S_IMODE(file.stat().st_mode)
    if os.name == "posix" and mode & 0o077:
        return bad("key file", f"{file} can be read by others (its mode is {mode:o})", f"chmod 600 {file}")
    return ok("key file", f"{file} is read by its owner alone")


def _authority(directory: Path) -> Finding:
    """When the server's certificates end; nothing is made or renewed."""
    from cryptography import x509

    ends = {}
    for name in ("authority.pem", "server.pem"):
        try:
            certificate = x509.load_pem_x509_certificate((directory / name).read_bytes())
        except (OSError, ValueError) as error:
            return bad("certificate", f"{directory / name} cannot be read: {error}", "bring it back from a backup")
        ends[name] = certificate.not_valid_after_utc.timestamp()
    if ends["authority.pem"] - time.time() < SOON:
        return _ending(ends["authority.pem"], "the server's certificate authority")
    if ends["server.pem"] < time.time():
        return bad(
            "certificate",
            f"the server's certificate has expired on {clock(ends['server.pem'])}",
            "restart the server: it renews it",
        )
    return ok("certificate", f"the server's authority is valid until {clock(ends['authority.pem'])}")


def _ending(end: float, what: str) -> Finding:
    left = end - time.time()
    advice = "plan for a new authority: every node joins, and everybody logs in, again with a new address"
    if left <= 0:
        return bad("certificate", f"{what} has expired on {clock(end)}", advice)
    return warning("certificate", f"{what} expires in {span(left)}", advice)


def look_at_app(app: str) -> tuple[list[Finding], str, str]:
    """An app as it lies here; with its name and digest, which are "" if there is none."""
    from umbel.apps.project import Project

    try:
        project = Project.find(app)
        digest = project.digest.hex()
    except UmbelError as error:
        return [failed("app", error)], "", ""
    said = f"{project.package} {project.version}".rstrip()
    found = [ok("app", f"{said} is here, with the digest {digest}"), *_look_into(project)]
    return found, project.package, digest


def _look_into(project: Project) -> Iterator[Finding]:
    """Can the app be imported, and do its settings make sense?"""
    from umbel.apps.load import load_client, load_server
    from umbel.apps.settings import resolve

    try:
        resolve(project.table, os.environ, file=project.file or "pyproject.toml")
        with tempfile.TemporaryDirectory(prefix="umbel-app-") as place:
            ready = project.unpacked(Path(place))
            load_client(ready.object("client"), path=ready.source)
            if ready.server:
                load_server(ready.server, path=ready.source)
    except UmbelError as error:
        yield failed("app", error)


def look_at_config(config: NodeConfig) -> Iterator[Finding]:
    """A node.toml that makes sense: is all there that it refers to?"""
    from umbel.node.secrets import resolved

    for name, data in config.data.items():
        try:
            resolved(data.settings, os.environ)
        except UmbelError as error:
            yield bad("node.toml", f"data set {name!r}: {error.what}", error.advice)
    if config.run_as and not _is_user(config.run_as):
        yield bad("node.toml", f"this system has no user {config.run_as!r}", "name one that it has in run_as")


def look_at_permitted(config: NodeConfig, app: str) -> Iterator[Finding]:
    """Does a node.toml let an app run that the node would be started with?"""
    from umbel.apps.describe import describe
    from umbel.apps.project import Project
    from umbel.node.policy import is_permitted

    try:
        described = describe(Project.find(app), handlers=())
    except UmbelError:
        return  # `look_at_app` says so
    if not is_permitted(described, config.policy) and not config.policy.code_from_server:
        yield bad(
            "policy",
            f"it does not let the app {described.name!r} run, whoever asks; under apps it names: "
            + (", ".join(config.policy.apps or ()) or "nothing"),
            f"name it there, as {described.name!r} or by its whole digest, {described.digest.hex()}",
        )


def _is_user(name: str) -> bool:
    if os.name != "posix":
        return False
    import pwd

    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


__all__ = [
    "SOON",
    "look_at_app",
    "look_at_config",
    "look_at_directory",
    "look_at_permitted",
    "look_at_secret",
]
