"""Which app this is, as nodes tell the server and people ask for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, final

from umbel.apps.load import load_client
from umbel.apps.project import Project, place_of
from umbel.apps.signature import signers
from umbel.errors import AppDiffers

if TYPE_CHECKING:
    from umbel import wire


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """Which app.

    Attributes:
        name: of its package, as in "myfed".
        version: of its distribution; for people.
        digest: of its files, 32 bytes; see `umbel.apps.digest`.
        object: the client's object, as in "myfed:client".
        handlers: what it can be asked, "train", "evaluate" and the names of queries, in order; unknown if empty.
        signers: Ed25519 public keys, 32 bytes each, whose signature of the digest came with it.
    """

    name: str
    version: str
    digest: bytes
    object: str
    handlers: tuple[str, ...] = ()
    signers: tuple[bytes, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} {self.version}".rstrip() + f" ({self.digest.hex()[:12]})"

    def message(self) -> wire.App:
        """The same as it travels."""
        from umbel import wire

        return wire.App(
            name=self.name,
            version=self.version,
            digest=self.digest,
            object=self.object,
            handlers=self.handlers,
            signers=self.signers,
        )


def describe(what: Project | str, *, handlers: Iterable[str] | None = None) -> App:
    """Describe a project's app, or that of an object that can be imported.

    Args:
        what: the project, or an object's name, as in "myfed:client".
        handlers: what the client can be asked, if that is known, so that the app's code need not be imported here; ()
            says that it is unknown. None: import it and look. A wheel that is not unpacked cannot be imported.

    Raises:
        AppMissing: it is not there.
        AppError: importing it failed, or it cannot be read.
        BadSignature: there is a signature beside the wheel, and it is wrong.
    """
    project = what if isinstance(what, Project) else project_of(what)
    client = project.object("client")
    if handlers is None:
        handlers = () if project.is_packed else sorted(load_client(client, path=project.source).names())
    return App(
        name=project.package,
        version=project.version,
        digest=project.digest,
        object=client,
        handlers=tuple(handlers),
        signers=signers(project.wheel.path, project.digest) if project.wheel is not None else (),
    )


def project_of(name: str) -> Project:
    """The project of an object that can be imported, as in "myfed:client", which is not imported.

    Raises:
        AppMissing: there is no such package.
    """
    package = name.partition(":")[0].partition(".")[0]
    source: Path = place_of(package)
    owners = metadata.packages_distributions().get(package, [])
    version = metadata.version(owners[0]) if owners else ""
    return Project(
        package=package, name=owners[0] if owners else package, version=version, client=name, server="", source=source
    )


def check_same(asked: App, here: App, *, where: str = "here") -> None:
    """Refuse an app that is not the one that was asked for.

    Args:
        asked: the one that a run wants.
        here: the one that there is.
        where: who has it, for people.

    Raises:
        AppDiffers: names both digests.
    """
    if asked.digest != here.digest:
        raise AppDiffers(
            f"the run needs {asked.name} {asked.version}".rstrip()
            + f" with digest {asked.digest.hex()}, and {where} it is {here.version or 'another'}"
            + f" with digest {here.digest.hex()}",
            advice="give both sides the same wheel; `umbel config` shows an app's digest",
        )


__all__ = ["App", "check_same", "describe", "project_of"]
