"""An app as the node has it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from umbel.apps.describe import App, describe
from umbel.apps.digest import digest_of_directory
from umbel.apps.project import Project


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledApp:
    """An app that the node was started with.

    Attributes:
        app: which one.
        source: the directory that holds its package.
    """

    app: App
    source: Path

    @classmethod
    def of(cls, project: Project) -> InstalledApp:
        """The app of a project; its code is not imported in this process.

        Raises:
            AppMissing: it is not there, or says not what its client is.
            BadSignature: a signature beside its wheel is wrong.
        """
        return cls(app=describe(project, handlers=()), source=project.source)

    def with_handlers(self, handlers: tuple[str, ...]) -> InstalledApp:
        """The same, when it is known what it can be asked."""
        return replace(self, app=replace(self.app, handlers=handlers))

    def is_unchanged(self) -> bool:
        """Are its files still those that were looked at when the node was started?"""
        return digest_of_directory(self.source, self.app.name) == self.app.digest


__all__ = ["InstalledApp"]
