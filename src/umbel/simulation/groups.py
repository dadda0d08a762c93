"""Who the clients of a simulation are, and which of them are trained together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

from umbel.client.app import ClientApp
from umbel.client.context import ClientInfo
from umbel.client.declared import Declared
from umbel.engine.reduction import SHARD
from umbel.sample import Population


class Clients(Protocol):
    """The clients of a simulation, by name."""

    @property
    def population(self) -> Population:
        """All names and labels."""

    @property
    def only_names(self) -> bool:
        """Is nothing known of any client but its name?"""

    @property
    def are_sites(self) -> bool:
        """Does each stand for a node, with settings of its own?"""

    def __getitem__(self, name: str) -> ClientInfo: ...


Group = Sequence[tuple[str, int]]
"""Tasks that are done by one worker and together, (client, attempt)."""


def is_grouped(app: ClientApp, clients: Clients) -> bool:
    """Does the app declare its local training, so that several clients can be trained together?

    Not those that stand for nodes: a node trains alone, and what a deployment gives is to be the same to the bit.
    """
    return isinstance(app.handlers.get("train"), Declared) and not app.middleware and not clients.are_sites


def groups(tasks: Sequence[tuple[str, int]], *, together: bool) -> list[Group]:
    """Tasks by who is trained with whom: each alone, or in groups of at most 64.

    Groups are a matter of the cohort and not of who works, since the last bits may depend on them; see
    `umbel.client.work.Bench.do_many`. Who is asked later, a spare, is alone.

    They are shards, so that one who does a group can fold it, but for the end of the cohort: there the last whole
    shard and the rest make two equal groups, so that of 100 clients two workers get 50 each, and not 64 and 36.
    """
    if not together:
        return [[task] for task in tasks]
    whole, rest = divmod(len(tasks), SHARD)
    begins = [*range(0, len(tasks), SHARD), len(tasks)]
    if whole and rest:
        begins[-2] = (begins[-3] + len(tasks) + 1) // 2
    return [tasks[begin:end] for begin, end in pairwise(begins)]


__all__ = ["Clients", "Group", "groups", "is_grouped"]
