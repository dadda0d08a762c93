"""The clients of a simulation: from a number, names, a partition, or settings by name."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np

from umbel.client.context import ClientInfo
from umbel.codec import describe
from umbel.errors import UsageError
from umbel.sample import Population


@final
class Roster:
    """The clients of a simulation, by name.

    Attributes:
        population: all names and labels.
        sites: settings by name, of those that have any.
        only_names: is nothing known of any client but its name?
        are_sites: does each stand for a node, with settings of its own?
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        parts: Sequence[Any] | None = None,
        sites: Mapping[str, Mapping[str, Any]] | None = None,
        labels: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        for name in names:
            _check_name(name)
        if len(set(names)) != len(names):
            twice = next(name for name, count in Counter(names).items() if count > 1)
            raise UsageError(f"two clients are called {twice!r}", advice="give each client a name of its own")
        self.population = Population(tuple(names), _labels(labels or {}))
        indexes = [_part(name, part) for name, part in zip(names, parts, strict=True)] if parts is not None else []
        self._parts = dict(zip(names, indexes, strict=False))
        self.sites, self.are_sites = sites or {}, sites is not None
        self.only_names = not (self._parts or self.sites or self.population.labels)

    def __getitem__(self, name: str) -> ClientInfo:
        if self.only_names:
            return ClientInfo(name, {}, None, {})
        part = self._parts.get(name)
        return ClientInfo(
            name=name,
            labels=dict(self.population.labels.get(name, {})),
            # a copy that can be written to, since torch warns of arrays that cannot
            part=part.copy() if part is not None else None,
            site=self.sites.get(name, {}),
        )

    def __len__(self) -> int:
        return len(self.population)

    def __contains__(self, name: object) -> bool:
        return name in self.population

    def recipe(self) -> Mapping[str, Any]:
        """What identifies these clients: how many, and digests of names, parts and settings."""
        digest = hashlib.sha256()
        for name in self.population.names:
            digest.update(f"{len(name)}:{name}".encode())
            if name in self._parts:
                part = self._parts[name]
                digest.update(f"{part.dtype}{part.shape}".encode() + part.tobytes())
        sites = {name: describe(site) for name, site in sorted(self.sites.items())}
        labels = {name: dict(own) for name, own in self.population.labels.items()}
        return {"count": len(self), "names and parts": digest.hexdigest()[:16], "sites": sites, "labels": labels}


def roster(clients: Any, labels: Mapping[str, Mapping[str, str]] | None) -> Roster:
    """Clients from a number, names, a partition, or settings by name.

    Raises:
        UsageError: it is none of these.
    """
    if isinstance(clients, bool) or clients is None:
        raise UsageError(f"clients is {clients!r}", advice="give a number, names, a partition, or {name: settings}")
    if isinstance(clients, int | np.integer):
        if clients < 0:
            raise UsageError(f"clients is {clients}", advice="give how many there are")
        return Roster([str(i) for i in range(int(clients))], labels=labels)
    if isinstance(clients, Mapping):
        for name, site in clients.items():
            if not isinstance(site, Mapping):
                raise UsageError(
                    f"the settings of client {name!r} are a {type(site).__name__}",
                    advice='give a mapping: {"berlin": {"path": "berlin.csv"}}',
                )
        return Roster([str(n) for n in clients], sites={str(n): dict(s) for n, s in clients.items()}, labels=labels)
    if isinstance(clients, str | bytes) or not isinstance(clients, Sequence):
        raise UsageError(
            f"clients is a {type(clients).__name__}",
            advice="give a number, a list of names, a partition, or {name: settings}",
        )
    if all(isinstance(c, str) for c in clients):
        return Roster(list(clients), labels=labels)
    names = getattr(clients, "names", None) or [str(i) for i in range(len(clients))]
    return Roster(list(names), parts=list(clients), labels=labels)


def _check_name(name: Any) -> None:
    try:
        good = isinstance(name, str) and bool(name.encode())
    except UnicodeEncodeError:  # half of a surrogate pair
        good = False
    if not good:
        raise UsageError(f"a client is called {name!r}", advice="a name is text that is not empty, in valid Unicode")


def _part(name: str, value: Any) -> Any:
    try:
        part = np.asarray(value)
    except ValueError:  # lists of different lengths
        part = np.empty(1, object)
    if part.ndim == 0 or (part.size and part.dtype.kind not in "biu"):
        raise UsageError(
            f"the part of client {name!r} is a {type(value).__name__}, not an array of indexes",
            advice="give clients=umbel.partition.iid(...) or index arrays, or names, and load the data in @client.data",
        )
    return np.ascontiguousarray(part)


def _labels(labels: Any) -> dict[str, dict[str, str]]:
    if not isinstance(labels, Mapping):
        raise UsageError(f"labels are a {type(labels).__name__}", advice='give {"berlin": {"country": "de"}}')
    for client, own in labels.items():
        if not isinstance(own, Mapping) or not all(isinstance(text, str) for pair in own.items() for text in pair):
            raise UsageError(
                f"the labels of client {client!r} are {own!r}", advice='labels are text by name: {"country": "de"}'
            )
    return {client: dict(own) for client, own in labels.items()}


__all__ = ["Roster", "roster"]
