"""The defined reduction: who is folded with whom does not depend on who computes it.

Places are grouped in shards of 64; inside a shard updates are folded from left to right, and the shards are
merged from left to right. Rounding therefore depends on the cohort alone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, final

import numpy as np

from umbel.aggregate import Aggregator
from umbel.aggregate.base import Summing
from umbel.arrays import Arrays
from umbel.engine.question import Question
from umbel.errors import BadUpdate
from umbel.rows import Rows
from umbel.spec import Spec
from umbel.update import Kind, Update

SHARD = 64


@final
@dataclass(slots=True)
class Reduced:
    """What was folded.

    Attributes:
        acc: the accumulator of the updates.
        extra: accumulators of their extra arrays, by name.
        names: who is in it, in order of places.
        weights, metrics: of each.
    """

    acc: Any = None
    extra: dict[str, Any] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    metrics: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def rows(self) -> list[tuple[float, Mapping[str, Any]]]:
        """(weight, metrics) of each; nobody, where there are no metrics at all."""
        return [*zip(self.weights, self.metrics, strict=True)] if any(self.metrics) else []


@final
@dataclass(slots=True)
class Part:
    """A shard that was folded elsewhere, or the beginning of one.

    Attributes:
        accs: its accumulators: of the updates under None, of extra arrays under their names.
        names, weights, metrics: who is in it, and with what.
        shapes: of the metrics.
        forms: what kinds of updates are in it: name, kind and spec, with the weight and the metrics of the first.
    """

    accs: dict[str | None, Any]
    names: list[str]
    weights: list[float]
    metrics: list[Mapping[str, Any]]
    shapes: dict[str, tuple[int, ...]]
    forms: dict[tuple[str | None, Kind, Spec], tuple[float, Mapping[str, Any]]]


@final
class Reduction:
    """Folds the updates of one exchange, in order of places."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._shard: int | None = None
        self._open: dict[str | None, Any] = {}  # accumulators of the shard that is being folded
        self._merged: dict[str | None, Any] = {}  # those of the shards before it
        self._shapes: dict[str, tuple[int, ...]] = {}  # of the metrics
        self._forms: dict[tuple[str | None, Kind, Spec], tuple[float, Mapping[str, Any]]] = {}  # of the open shard
        self._reduced = Reduced()

    def fold(self, client: str, place: int, update: Update) -> None:
        """Fold one client's update. Places come in rising order.

        Raises:
            BadUpdate: it does not fit the others; nothing of it was folded.
        """
        self._enter(place // SHARD)
        parts = self._parts(update)
        for name, aggregator, acc, part in parts:
            aggregator.admit(acc, part)
            if name in self._merged:  # so that the shards, too, fit each other
                aggregator.admit(self._merged[name], part)
        self.note(client, update.weight, update.metrics)
        for name, aggregator, acc, part in parts:
            self._open[name] = aggregator.fold(acc, part, self._question.sent if name is None else None)
            self._forms.setdefault((name, part.kind, part.arrays.spec), (part.weight, part.metrics))

    def fold_all(self, items: Sequence[tuple[str, int, Update]]) -> list[tuple[str, Exception]]:
        """Fold several clients' updates, (client, place, update), in rising order of places.

        Returns:
            Who was refused, and why; what does not fit the others, or could not be folded at all.
        """
        refused: list[tuple[str, Exception]] = []
        for shard, group in groupby(items, key=lambda item: item[1] // SHARD):
            mine = list(group)
            if len(mine) > 1 and self._are_alike([update for _, _, update in mine]):
                refused += self._fold_rows([c for c, _, _ in mine], shard, Rows.over([u for _, _, u in mine]))
                continue
            for client, place, update in mine:
                refused += self._tried(client, place, update)
        return refused

    def fold_rows(self, clients: Sequence[str], places: Sequence[int], rows: Rows) -> list[tuple[str, Exception]]:
        """Fold updates that came side by side, as `fold_all` does.

        Args:
            clients: whose they are.
            places: of these, in rising order.
            rows: their updates.
        """
        refused: list[tuple[str, Exception]] = []
        if not self._only_adds:
            for i, (client, place) in enumerate(zip(clients, places, strict=True)):
                refused += self._tried(client, place, rows.update(i))
            return refused
        begin = 0
        while begin < len(places):
            shard = places[begin] // SHARD
            end = bisect_left(places, (shard + 1) * SHARD, begin)
            whole = _whole_shards(places, begin) if rows.are_small and not rows.metrics else 0
            if whole > 1:
                end = begin + whole * SHARD
                refused += self._fold_shards(clients[begin:end], shard, rows[begin:end])
            else:
                refused += self._fold_rows(clients[begin:end], shard, rows[begin:end])
            begin = end
        return refused

    def _tried(self, client: str, place: int, update: Update) -> list[tuple[str, Exception]]:
        try:
            self.fold(client, place, update)
        except Exception as error:  # noqa: BLE001  # a task ends here: one update never ends a run
            return [(client, error)]
        return []

    @property
    def _only_adds(self) -> bool:
        """Are changes of the model added up and no more, so that updates of one form cannot but fit each other?"""
        aggregator = self._question.aggregator
        return isinstance(aggregator, Summing) and aggregator.plain and self._question.sent is not None

    def _are_alike(self, updates: Sequence[Update]) -> bool:
        first = updates[0]
        return self._only_adds and all(
            u.arrays.spec is first.arrays.spec and u.kind == first.kind and not u.extra for u in updates
        )

    def _fold_rows(self, clients: Sequence[str], shard: int, rows: Rows) -> list[tuple[str, Exception]]:
        self._enter(shard)
        rows, refused = self._note_rows(clients, rows)
        if len(rows):
            aggregator = self._aggregator(None)
            assert isinstance(aggregator, Summing)
            self._open[None] = aggregator.fold_rows(self._acc(None), rows, self._question.sent)
            metrics = rows.metrics[0] if rows.metrics else {}
            self._forms.setdefault((None, rows.kind, rows.spec), (rows.weights[0], metrics))
        return refused

    def _fold_shards(self, clients: Sequence[str], shard: int, rows: Rows) -> list[tuple[str, Exception]]:
        """Fold whole shards, from this one on, of updates without metrics."""
        self._enter(shard)
        _, refused = self._note_rows(clients, rows)
        aggregator = self._aggregator(None)
        assert isinstance(aggregator, Summing)
        before = self._merged.get(None)
        before = aggregator.init(self._question.sent) if before is None else before
        self._merged[None] = aggregator.fold_shards(before, rows, self._question.sent, SHARD)
        self._shard = shard + len(rows) // SHARD - 1
        return refused

    def _note_rows(self, clients: Sequence[str], rows: Rows) -> tuple[Rows, list[tuple[str, Exception]]]:
        """Keep metrics; gives those back whose metrics fit, and who was refused."""
        if not rows.metrics or self._fit(_numbers(rows.metrics)):
            self._reduced.names += clients
            self._reduced.weights += rows.weights
            self._reduced.metrics += rows.metrics or [{}] * len(rows)
            return rows, []
        refused: list[tuple[str, Exception]] = []
        good = []
        for i, client in enumerate(clients):
            try:
                self.note(client, rows.weights[i], rows.metrics[i])
                good.append(i)
            except BadUpdate as error:
                refused.append((client, error))
        return (rows.take(good) if refused else rows), refused

    def _fit(self, numbers: Collection[str]) -> bool:
        """Were these metrics, and are there any, only numbers before?"""
        if not numbers or any(self._shapes.get(name) for name in numbers):
            return False
        self._shapes |= dict.fromkeys(numbers, ())
        return True

    def note(self, client: str, weight: float, metrics: Mapping[str, Any]) -> None:
        """Keep a client's metrics.

        Raises:
            BadUpdate: one has another shape than it had before; nothing was kept.
        """
        shapes = {name: () if type(value) is float else np.shape(value) for name, value in metrics.items()}
        self._check_shapes(shapes)
        self._shapes |= shapes
        self._reduced.names.append(client)
        self._reduced.weights.append(weight)
        self._reduced.metrics.append(metrics)

    def _check_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        for name, shape in shapes.items():
            if self._shapes.get(name, shape) != shape:
                raise BadUpdate(
                    f"metric {name!r} has shape {shape}, the clients before it returned {self._shapes[name]}",
                    advice="let all clients return the same shape, or call the metrics by different names",
                )

    def part(self) -> Part:
        """What was folded so far; all of it in one shard."""
        it = self._reduced
        return Part(self._open, it.names, it.weights, it.metrics, self._shapes, self._forms)

    def join(self, place: int, part: Part) -> None:
        """Take in the beginning of a shard, which was folded elsewhere: the same as folding its updates here.

        That is so where `Aggregator.admit` looks at no more of the updates folded before than at their specs.

        Args:
            place: of one of its clients. Nothing of the shard was folded here.
            part: what was folded.

        Raises:
            BadUpdate: it does not fit the shards before it; nothing of it was taken in.
        """
        assert place // SHARD != self._shard
        self._enter(place // SHARD)
        for (name, kind, spec), (weight, metrics) in part.forms.items():
            if name in self._merged:
                update = Update.made(kind, _zeros(spec), weight=weight, metrics=metrics, extra={})
                self._aggregator(name).admit(self._merged[name], update)
        self._check_shapes(part.shapes)
        self._shapes |= part.shapes
        self._reduced.names += part.names
        self._reduced.weights += part.weights
        self._reduced.metrics += part.metrics
        self._open = dict(part.accs)

    def finish(self) -> Reduced:
        """The folded whole."""
        self._merge_shard()
        main = self._question.aggregator
        for name, acc in self._merged.items():
            if name is None:
                self._reduced.acc = acc
            else:
                self._reduced.extra[name] = acc
        if self._reduced.acc is None and main is not None:
            self._reduced.acc = main.init(self._question.sent)
        return self._reduced

    def _parts(self, update: Update) -> list[tuple[str | None, Aggregator, Any, Update]]:
        """What is folded where: the update's own arrays under None, its extra arrays under their names."""
        own: tuple[str | None, Update] = (None, update)
        extra = ((name, update.replace(arrays, kind="value")) for name, arrays in update.extra.items())
        return [(name, self._aggregator(name), self._acc(name), part) for name, part in (own, *extra)]

    def _aggregator(self, name: str | None) -> Aggregator:
        question = self._question
        aggregator = question.aggregator if name is None else question.extra_aggregators[name]
        assert aggregator is not None
        return aggregator

    def _acc(self, name: str | None) -> Any:
        """The open shard's accumulator; a new one is not kept before something is folded into it."""
        if name in self._open:
            return self._open[name]
        return self._aggregator(name).init(self._question.sent if name is None else None)

    def _enter(self, shard: int) -> None:
        """From now on the shard with this number is folded."""
        if shard != self._shard:
            self._merge_shard()
            self._shard = shard

    def _merge_shard(self) -> None:
        for name, acc in self._open.items():
            before = self._merged.get(name)
            self._merged[name] = acc if before is None else self._aggregator(name).merge(before, acc)
        self._open, self._forms = {}, {}


def _numbers(metrics: Sequence[Mapping[str, Any]]) -> Collection[str]:
    """The names of these clients' metrics, if all have the same and each is a number; else none."""
    names = metrics[0].keys()
    same = all(its.keys() == names for its in metrics)
    return names if same and {type(value) for its in metrics for value in its.values()} == {float} else ()


def _whole_shards(places: Sequence[int], begin: int) -> int:
    """How many shards, from the one that begins there on, have nobody missing; 0: none begins there."""
    first = places[begin]
    whole = (len(places) - begin) // SHARD if first % SHARD == 0 else 0
    while whole and places[begin + whole * SHARD - 1] != first + whole * SHARD - 1:
        whole -= 1
    return whole


def _zeros(spec: Spec) -> Arrays:
    """Arrays that show their spec; their memory is never touched."""
    file = np.zeros(len(spec.header) + spec.nbytes, np.uint8)
    file[: len(spec.header)] = np.frombuffer(spec.header, np.uint8)
    return Arrays.over(spec, file).freeze()


__all__ = ["SHARD", "Part", "Reduced", "Reduction"]
