"""Which nodes of a server a run may ask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RemotePlace:
    """Which nodes.

    Attributes:
        nodes: by name; empty: any.
        labels: that they must have.
        dataset: that they must offer; "": their only one.
        threads: how many each handler may compute with.
    """

    nodes: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    dataset: str = ""
    threads: int = 1

    def recipe(self) -> Mapping[str, Any]:
        """What a run's result depends on here."""
        return {
            "nodes": list(self.nodes),
            "labels": dict(self.labels),
            "dataset": self.dataset,
            "threads": self.threads,
        }


__all__ = ["RemotePlace"]
