"""Updates of one kind and one spec, side by side: where they are many and small, no object is made for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, final

import numpy as np

from umbel.arrays import Array, Arrays
from umbel.buffers import TINY
from umbel.elements import is_harmless
from umbel.spec import STORAGE, Spec
from umbel.update import Kind, Update

_SMALL = 1 << 12  # bytes


@final
@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Updates without extra arrays that differ in their values, weights and metrics alone.

    Attributes:
        kind, spec: what each of them is.
        values: the stored bytes of each, without the header: one array per update, or a matrix of uint8 with a row for
            each. They do not change any more.
        weights: of each.
        metrics: of each; empty if none has any.
    """

    kind: Kind
    spec: Spec
    values: Sequence[Array] | Array
    weights: Sequence[float]
    metrics: Sequence[Mapping[str, Any]]

    @classmethod
    def over(cls, updates: Sequence[Update]) -> Rows:
        """These updates, of one kind and one spec, where they lie."""
        first = updates[0]
        return cls(
            first.kind,
            first.arrays.spec,
            [update.arrays.data for update in updates],
            [update.weight for update in updates],
            _metrics([update.metrics for update in updates]),
        )

    @classmethod
    def packed(cls, updates: Sequence[Update], room: Callable[[int], Array]) -> Rows:
        """Copies of these updates, of one kind and one spec, in one matrix.

        Args:
            updates: at least one.
            room: gives so many bytes to write to.
        """
        spec = updates[0].arrays.spec
        flat = room(len(updates) * spec.nbytes)
        if spec.size <= TINY:
            flat[:] = np.frombuffer(b"".join([update.arrays.packed() for update in updates]), np.uint8)
        else:
            np.concatenate([update.arrays.data for update in updates], out=flat)
        flat.flags.writeable = False
        return cls(
            updates[0].kind,
            spec,
            flat.reshape(len(updates), spec.nbytes),
            [update.weight for update in updates],
            _metrics([update.metrics for update in updates]),
        )

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """Copies of these, of one kind and one spec, one behind the other."""
        if len(parts) == 1:
            return parts[0]
        some = any(part.metrics for part in parts)
        return cls(
            parts[0].kind,
            parts[0].spec,
            np.concatenate([np.asarray(part.values) for part in parts]),
            [*chain.from_iterable(part.weights for part in parts)],
            [*chain.from_iterable(part.metrics or [{}] * len(part) for part in parts)] if some else [],
        )

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, part: slice) -> Rows:
        """Some that are neighbours, where they lie."""
        return Rows(self.kind, self.spec, self.values[part], self.weights[part], self.metrics[part])

    def take(self, places: Sequence[int]) -> Rows:
        """Some of them, in this order, where they lie."""
        if places and places == [*range(places[0], places[-1] + 1)]:
            return self[places[0] : places[-1] + 1]
        return Rows(
            self.kind,
            self.spec,
            [self.values[i] for i in places],
            [self.weights[i] for i in places],
            [self.metrics[i] for i in places] if self.metrics else [],
        )

    def update(self, place: int) -> Update:
        """One of them, on its own; its values are copied."""
        arrays = Arrays.blank(self.spec)
        arrays.data[...] = self.values[place]
        metrics = self.metrics[place] if self.metrics else {}
        return Update.made(self.kind, arrays.freeze(), weight=self.weights[place], metrics=metrics, extra={})

    @property
    def are_small(self) -> bool:
        """Is each so small that calls take longer than the work? Then several had better be added in one go."""
        return self.spec.size <= _SMALL

    @property
    def harmless(self) -> bool:
        """Are all elements floats, finite and far from overflow? False: no, or it takes a longer look."""
        if not isinstance(self.values, np.ndarray) or len(self.spec.runs) != 1:
            return False
        run = self.spec.runs[0]
        dtype = STORAGE[run.dtype]
        return run.size * dtype.itemsize == self.spec.nbytes and is_harmless(self.values.reshape(-1).view(dtype))


def _metrics(metrics: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return metrics if any(metrics) else []


__all__ = ["Rows"]
