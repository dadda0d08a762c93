"""The apps whose code may run at the server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from umbel.apps.describe import App, check_same
from umbel.apps.digest import digest_of_directory
from umbel.apps.project import Project
from umbel.errors import AppMissing, UsageError
from umbel.store.sql import RunRow


@final
class Installed:
    """The apps that a server was started with.

    Args:
        projects: ready to be imported.
    """

    def __init__(self, projects: Sequence[Project] = ()) -> None:
        self._projects = tuple(projects)

    def find(self, run: RunRow, main: str) -> Project:
        """The app of a run, as it is here now.

        Args:
            run: which was submitted with a name and a digest.
            main: its server app, as "module:object".

        Raises:
            AppMissing: it is not here.
            AppDiffers: it is here with other files; names both digests.
            UsageError: the server app is in another package than the client.
        """
        name = str(run.app.get("name", ""))
        if main.partition(":")[0].partition(".")[0] != name:
            raise UsageError(
                f"{main} has code that runs at the server, and is not in the package {name!r} of the client",
                advice="put both into one package: an app's digest is that of its files",
            )
        here = [project for project in self._projects if project.package == name]
        if not here:
            there = ", ".join(project.package for project in self._projects) or "none"
            raise AppMissing(
                f"{main} has code that runs at the server, and the app {name!r} is not installed there; it has {there}",
                advice="install the app there and start the server with it: umbel server --app; then: "
                f"umbel resume {run.id[:8]}",
            )
        digest = str(run.app.get("digest", ""))
        asked = App(name=name, version=str(run.app.get("version", "")), digest=bytes.fromhex(digest), object=main)
        apps = [_now(project, main) for project in here]  # files may have changed since the server was started
        same = next((n for n, app in enumerate(apps) if app.digest == asked.digest), 0)
        check_same(asked, apps[same], where="at the server")
        return here[same]


def _now(project: Project, main: str) -> App:
    digest = digest_of_directory(project.source, project.package)
    return App(name=project.package, version=project.version, digest=digest, object=main)


__all__ = ["Installed"]
