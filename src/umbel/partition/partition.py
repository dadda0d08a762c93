"""The value that all schemes return: which samples belong to which client."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self, SupportsIndex, final, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from umbel.errors import UsageError
from umbel.partition.arguments import client_names, listed

Indexes = NDArray[np.int64]


@final
@dataclass(frozen=True, slots=True, init=False, eq=False, repr=False)
class Partition(Sequence[Indexes]):
    """One sorted, read-only int64 array of sample indexes per client; no index belongs to two clients.

    ``parts[3]`` and ``parts["berlin"]`` are index arrays, ``parts[:-1]`` is a partition of fewer clients.
    It is a value: equal to another with the same names and indexes, hashable, and it can be pickled.

    Args:
        indexes: for each client its sample indexes, integers >= 0 in any order.
        names: the clients' names, unique; "0", "1", ... when not given.
        shared: indexes that every client holds besides its own, as in a vertical split. No other
            index may occur twice.

    Attributes:
        names: the clients' names.
        shared: the shared indexes, sorted; empty as a rule.

    Raises:
        UsageError: an index is negative, no integer, or belongs to two clients; names and indexes
            do not match. It names the clients.

    Cost: all indexes lie in one buffer, the arrays are views of it; building sorts once, O(n log n).
    """

    names: tuple[str, ...]
    shared: Indexes
    _flat: Indexes  # the clients' arrays, one after the other
    _offsets: Indexes  # client i's array is _flat[_offsets[i] : _offsets[i + 1]]
    _positions: dict[str, int]

    def __init__(
        self, indexes: Iterable[ArrayLike], names: Iterable[str] | None = None, *, shared: ArrayLike = ()
    ) -> None:
        given = list(indexes)
        names = tuple(map(str, range(len(given)))) if names is None else tuple(names)
        names = client_names(names) if names else ()
        if len(names) != len(given):
            raise UsageError(
                f"{len(given)} index arrays for {len(names)} client names.", advice="Give one index array per name."
            )
        common = np.unique(_indexes(shared, "shared"))
        arrays = [_indexes(array, f"client {name!r}") for name, array in zip(names, given, strict=True)]
        if common.size:
            arrays = [np.concatenate([array[~np.isin(array, common)], common]) for array in arrays]
        sizes = [array.size for array in arrays]
        flat = np.concatenate([np.empty(0, np.int64), *map(np.sort, arrays)])
        _refuse_overlap(flat, sizes, names, common)
        self._fill(flat, np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]), names, common)

    @classmethod
    def _of(cls, flat: Indexes, offsets: Indexes, names: tuple[str, ...], shared: Indexes) -> Self:
        """A partition of parts that are known to be right."""
        self = cls.__new__(cls)
        self._fill(flat, offsets, names, shared)
        return self

    def _fill(self, flat: Indexes, offsets: Indexes, names: tuple[str, ...], shared: Indexes) -> None:
        for array in (flat, offsets, shared):
            array.flags.writeable = False
        fields = {"names": names, "shared": shared, "_flat": flat, "_offsets": offsets}
        fields["_positions"] = {name: position for position, name in enumerate(names)}
        for field, value in fields.items():
            object.__setattr__(self, field, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return Partition._of, (self._flat, self._offsets, self.names, self.shared)

    @property
    def sizes(self) -> Indexes:
        """How many indexes each client holds, in the order of ``names``."""
        return np.diff(self._offsets)

    @property
    def samples(self) -> int:
        """How many different indexes the clients hold together."""
        own = self._flat.size - len(self) * self.shared.size
        return own + (self.shared.size if len(self) else 0)

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, key: SupportsIndex | str) -> Indexes: ...
    @overload
    def __getitem__(self, key: slice) -> Partition: ...
    def __getitem__(self, key: SupportsIndex | str | slice) -> Indexes | Partition:
        """A client's indexes, by position or name; a slice gives a partition of those clients."""
        if isinstance(key, slice):
            chosen = range(len(self))[key]
            flat = np.concatenate([np.empty(0, np.int64), *(self[i] for i in chosen)])
            offsets = np.concatenate([[0], np.cumsum(self.sizes[chosen], dtype=np.int64)])
            return Partition._of(flat, offsets, tuple(self.names[i] for i in chosen), self.shared)
        at = self._position(key)
        return self._flat[self._offsets[at] : self._offsets[at + 1]]

    def _position(self, key: SupportsIndex | str) -> int:
        if isinstance(key, str):
            if key not in self._positions:
                raise KeyError(
                    f"no client is named {key!r}; this partition's clients are {listed(map(repr, self.names))}"
                )
            return self._positions[key]
        at = operator.index(key)
        if not -len(self) <= at < len(self):
            raise IndexError(f"there is no client at position {at}; this partition has {len(self)} clients")
        return at % len(self)

    def __iter__(self) -> Iterator[Indexes]:
        return (self[i] for i in range(len(self)))

    def __contains__(self, value: object) -> bool:
        """Whether a client has this name, or exactly these indexes."""
        return value in self._positions if isinstance(value, str) else any(self._matches(value))

    def index(self, value: Any, start: int = 0, stop: int | None = None) -> int:
        """The position of the client with this name, or with exactly these indexes."""
        matches = (i for i, same in enumerate(self._matches(value)) if same and i in range(len(self))[start:stop])
        if (first := next(matches, None)) is None:
            raise ValueError(f"no client of this partition is or holds {value!r}")
        return first

    def count(self, value: Any) -> int:
        """How many clients have this name, or exactly these indexes."""
        return sum(self._matches(value))

    def _matches(self, value: object) -> Iterator[bool]:
        if isinstance(value, str):
            return (name == value for name in self.names)
        return (np.array_equal(array, np.asarray(value)) for array in self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Partition):
            return NotImplemented
        return self.names == other.names and all(
            np.array_equal(getattr(self, field), getattr(other, field)) for field in ("_offsets", "_flat", "shared")
        )

    def __hash__(self) -> int:
        return hash((self.names, self._offsets.tobytes(), self._flat.tobytes()))

    def __repr__(self) -> str:
        if not len(self):
            return "Partition(0 clients)"
        sizes = self.sizes
        clients = "1 client" if len(self) == 1 else f"{len(self)} clients"
        return (
            f"Partition({clients}, {self.samples} samples; per client "
            f"min {sizes.min()}, median {np.median(sizes):g}, max {sizes.max()})"
        )


def from_owners(owners: NDArray[np.integer[Any]], names: tuple[str, ...]) -> Partition:
    """The partition in which sample i belongs to the client at position ``owners[i]``."""
    if len(names) <= np.iinfo(np.uint16).max:
        owners = owners.astype(np.uint16)  # NumPy's stable sort of 16-bit integers is a radix sort: ten times faster
    flat = np.argsort(owners, kind="stable").astype(np.int64, copy=False)
    sizes = np.bincount(owners, minlength=len(names))
    offsets = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    return Partition._of(flat, offsets, names, np.empty(0, np.int64))


def _indexes(array: ArrayLike, whose: str) -> Indexes:
    found = np.asarray(array)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        advice = "A mask becomes indexes by numpy.flatnonzero(mask)." if found.dtype == bool else ""
        raise UsageError(
            f"The indexes of {whose} are not a flat list of integers but {found.dtype} of shape {found.shape}.",
            advice=advice or "Give a one-dimensional array of integers.",
        )
    if found.size and (lowest := found.min()) < 0:
        raise UsageError(
            f"The indexes of {whose} contain {lowest}.", advice="Count from the start: indexes are 0 or more."
        )
    return found.astype(np.int64)


def _refuse_overlap(flat: Indexes, sizes: list[int], names: tuple[str, ...], shared: Indexes) -> None:
    ordered = np.sort(flat)
    twice = np.setdiff1d(ordered[1:][ordered[1:] == ordered[:-1]], shared)
    if not twice.size:
        return
    holders = [names[at] for at in np.repeat(np.arange(len(names)), sizes)[flat == twice[0]]]
    more = f"; so do {twice.size - 1} more indexes" if twice.size > 1 else ""
    if len(set(holders)) == 1:
        raise UsageError(
            f"Client {holders[0]!r} lists index {twice[0]} {len(holders)} times{more}.", advice="List an index once."
        )
    raise UsageError(
        f"Index {twice[0]} belongs to the clients {listed(map(repr, holders))}{more}.",
        advice="Give every sample to one client, or name those that all clients hold in shared=.",
    )


__all__ = ["Indexes", "Partition", "from_owners"]
