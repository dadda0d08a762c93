"""Who is told what a node does; the command line prints one calm line for each."""

from __future__ import annotations

from abc import ABC
from typing import final

from umbel import wire


class Observer(ABC):
    """Is told what happens. Every method does nothing here; take what is needed."""

    def connected(self, opened: wire.OpenSessionResponse) -> None:
        """A session is open."""

    def disconnected(self, reason: str, wait: float) -> None:
        """The connection is gone; the node tries again after so many seconds."""

    def began(self, task: wire.Task) -> None:
        """Work on a task begins."""

    def finished(self, task: wire.Task, report: wire.ReportRequest) -> None:
        """A task is done, failed or was refused; its answer is kept."""

    def delivered(self, id: wire.TaskId, verdict: str) -> None:  # the field's word
        """The server has an answer: "accepted", "repeated", "late", or "rejected"."""

    def revoked(self, id: wire.TaskId, reason: str) -> None:  # the field's word
        """The server wants a task no more."""


@final
class Silent(Observer):
    """Tells nobody."""


__all__ = ["Observer", "Silent"]
