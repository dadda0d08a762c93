"""Many tuples as few columns: where clients come by the thousand, no object is made for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar, final, overload

Row = TypeVar("Row", bound=tuple[Any, ...])


@final
class Columns(Sequence[Row], Generic[Row]):
    """A sequence of tuples, which are made when somebody asks for them.

    Args:
        columns: of each place of the tuples what stands there, tuple by tuple.

    Attributes:
        columns: the same.
    """

    __slots__ = ("columns",)

    def __init__(self, *columns: Sequence[Any]) -> None:
        self.columns = columns

    @classmethod
    def of(cls, rows: Sequence[Row], width: int) -> Columns[Row]:
        """These tuples, of so many places, as columns; themselves if they are."""
        if isinstance(rows, cls):
            return rows
        return cls(*zip(*rows, strict=True)) if rows else cls(*[()] * width)

    def __len__(self) -> int:
        return len(self.columns[0])

    def __iter__(self) -> Iterator[Row]:
        return zip(*self.columns, strict=True)  # type: ignore[return-value]  # one type for each place

    @overload
    def __getitem__(self, place: int) -> Row: ...

    @overload
    def __getitem__(self, place: slice) -> Columns[Row]: ...

    def __getitem__(self, place: int | slice) -> Row | Columns[Row]:
        if isinstance(place, slice):
            return Columns(*[column[place] for column in self.columns])
        return tuple([column[place] for column in self.columns])  # type: ignore[return-value]  # as above

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(mine == its for mine, its in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # it may be over lists

    def __repr__(self) -> str:
        return repr([*self])


__all__ = ["Columns"]
