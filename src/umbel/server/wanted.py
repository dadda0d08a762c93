"""Which nodes a run may ask, and why not the others. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import final

from umbel.server.apps import app_of
from umbel.store.sql.values import NodeRow, RunRow
from umbel.wire import App


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a node has said of itself when it opened its session.

    Attributes:
        name: of the node, and of its client.
        labels: what is known of it.
        own: labels that it has said itself.
        apps: that it has and its owner lets run.
        datasets: that it offers.
        slots: how many tasks it works on at once.
        program: what runs there, for people.
        takes_code: does its owner let code come from the server?
    """

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    own: Mapping[str, str] = field(default_factory=dict)
    apps: Sequence[App] = ()
    datasets: Sequence[str] = ()
    slots: int = 1
    program: str = ""
    takes_code: bool = False

    def labelled(self, labels: Mapping[str, str]) -> Offer:
        """The same with the labels that the operator has set, which go before its own."""
        return replace(self, labels={**self.own, **labels})


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which nodes a run wants.

    Attributes:
        app: what they must have: a name, and a digest of 32 bytes.
        names: who may be asked; nobody in it: anyone.
        labels: that they must have.
        dataset: that they must offer; "": whatever their only one is.
    """

    app: App
    names: frozenset[str] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict)
    dataset: str = ""

    @classmethod
    def of(cls, run: RunRow) -> Wanted:
        """What a run has been submitted with."""
        return cls(app=app_of(run.app), names=frozenset(run.nodes), labels=run.labels, dataset=run.dataset)

    def wants(self, offer: Offer) -> bool:
        """Is it one of those that were named, whatever it has?"""
        return self.names_it(offer.name) and self.lacking(offer.labels) == {}

    def names_it(self, name: str) -> bool:
        """Is it one of those that were named? Where nobody was, all are."""
        return not self.names or name in self.names

    def lacking(self, labels: Mapping[str, str]) -> dict[str, str]:
        """The labels that a node with these should have, and has not."""
        return {name: value for name, value in self.labels.items() if labels.get(name) != value}

    def refusal(self, offer: Offer) -> str:
        """Why a node that is wanted cannot be asked, in words; "" if it can.

        An app without a digest is another program that plays its part, for example one in another language. Where the
        run brought the app, and the node takes code, the node sees for itself whether its owner trusts that.
        """
        lacks = "" if self.brings and offer.takes_code else self._lacks(offer)
        if lacks:
            return f"{lacks}; and its owner does not let code come from the server" if self.brings else lacks
        if self.dataset and self.dataset not in offer.datasets:
            return f"has no data set {self.dataset!r}; it has {', '.join(offer.datasets) or 'none'}"
        if not self.dataset and len(offer.datasets) > 1:
            return f"has several data sets, and the run does not say which: {', '.join(offer.datasets)}"
        return ""

    @property
    def brings(self) -> bool:
        """Did the app's wheel come with the run?"""
        return self.app.HasField("wheel")

    def _lacks(self, offer: Offer) -> str:
        """Why a node does not have the app, in words; "" if it has it."""
        named = [app for app in offer.apps if app.name == self.app.name]
        if not named:
            there = ", ".join(app.name for app in offer.apps[:10]) or "none"
            return f"does not have the app {self.app.name!r}, or its owner does not let it run; it has {there}"
        if not any(app.digest in (b"", self.app.digest) for app in named):
            mine, its = (shown(app) for app in (self.app, named[0]))
            return f"has {its} of the app {self.app.name!r}, and the run was submitted with {mine}"
        return ""


def shown(app: App) -> str:
    """An app's version and digest for people."""
    return f"version {app.version or '?'} ({app.digest.hex()[:12] or 'no digest'})"


def waiting_for(wanted: Wanted, offers: Iterable[Offer], enrolled: Iterable[NodeRow], there: int, at_least: int) -> str:
    """For whom a run waits, in words that come behind "waits for".

    Args:
        wanted: which nodes it may ask.
        offers: of those that are there.
        enrolled: all that have joined.
        there: how many it can ask now.
        at_least: how many it needs.
    """
    offers = list(offers)
    known = {row.name: row for row in enrolled if wanted.names_it(row.name)}
    absent = [row for name, row in known.items() if name not in {o.name for o in offers}]
    unlike = [o.name for o in offers if wanted.names_it(o.name) and wanted.lacking(o.labels)]
    reasons = {
        "away": [row.name for row in absent if not row.revoked and not wanted.lacking(row.labels)],
        "revoked": [name for name in wanted.names if name in known and known[name].revoked],
        "never seen": wanted.names - {o.name for o in offers} - known.keys(),
        f"not labelled {_pairs(wanted.labels)}": unlike
        + [r.name for r in absent if wanted.lacking(r.labels) and wanted.names],
    }
    parts = [f"{reason}: {', '.join(sorted(names)[:10])}" for reason, names in reasons.items() if names]
    parts += [f"{o.name} {wanted.refusal(o)}" for o in offers if wanted.wants(o) and wanted.refusal(o)][:5]
    revoked = ", ".join(sorted(row.name for row in absent if row.revoked)[:10])
    parts = parts or [f"revoked: {revoked}" if revoked else "no other node has joined: umbel ticket create"]
    needs = f"{at_least} node{'s' if at_least != 1 else ''}; {there} {'is' if there == 1 else 'are'} there"
    return "; ".join([needs, *parts])


def _pairs(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(labels.items()))


__all__ = ["Offer", "Wanted", "shown", "waiting_for"]
