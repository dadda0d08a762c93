"""Reading one table of a ``node.toml``: every value checked, every complaint with the name of its key."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, final

from umbel.errors import UsageError
from umbel.wire.limits import MANY

T = TypeVar("T")
_UNITS = {"": 1, "B": 1} | {
    prefix + unit: base**power for power, prefix in enumerate("kMGT", 1) for unit, base in (("B", 1000), ("iB", 1024))
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")
_TIMES = {"s": 1, "min": 60, "h": 3600, "d": 86400}


@final
class Table:
    """One table, from which values are taken one after the other; what is left at the end has no meaning.

    Args:
        values: what stands in it.
        where: what it is called in complaints, such as "node.toml [limits]".
    """

    def __init__(self, values: Any, where: str) -> None:
        self.where = where
        if not isinstance(values, Mapping):
            raise UsageError(
                f"{where} is {_kind(values)}, and not a table", advice="write it as [table] with keys below"
            )
        self._values = dict(values)

    def rest(self) -> dict[str, Any]:
        """All that was not taken."""
        values, self._values = self._values, {}
        return values

    def table(self, name: str) -> Table:
        """A table in this one, empty if it is not there."""
        return Table(self._values.pop(name, {}), f"{self.where} [{name}]")

    def take(self, name: str, default: T, read: Callable[[Any], T], *, wanted: str) -> T:
        """One value.

        Args:
            name: its key.
            default: what it is where the table has none.
            read: makes the value of what stands there, or raises ValueError or TypeError.
            wanted: what may stand there, in words.

        Raises:
            UsageError: something else stands there.
        """
        if name not in self._values:
            return default
        given = self._values.pop(name)
        try:
            return read(given)
        except (ValueError, TypeError) as error:
            raise UsageError(f"{self.where} {name}: {given!r} is not {wanted}", advice=f"give {wanted}") from error

    def text(self, name: str, default: str = "") -> str:
        """Text."""
        return self.take(name, default, _text, wanted='text, such as "berlin"')

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        return self.take(name, default, _flag, wanted="true or false")

    def whole(self, name: str, default: int, *, least: int = 0, most: int = MANY) -> int:
        """A whole number."""

        def read(given: Any) -> int:
            if type(given) is not int or not least <= given <= most:
                raise ValueError
            return given

        return self.take(name, default, read, wanted=f"a whole number from {least} to {most}")

    def names(self, name: str, default: tuple[str, ...]) -> tuple[str, ...]:
        """A list of texts."""
        return self.take(name, default, _names, wanted='a list of texts, such as ["alice", "bob"]')

    def size(self, name: str, default: int) -> int:
        """A number of bytes."""
        return self.take(name, default, size, wanted='a number of bytes, such as 1000000 or "10 GB"')

    def seconds(self, name: str, default: float) -> float:
        """A duration."""
        return self.take(name, default, _seconds, wanted='a number of seconds, or text such as "2 h" or "30 d"')

    def end(self, known: Iterable[str]) -> None:
        """Everything was taken.

        Raises:
            UsageError: a key is left that has no meaning here.
        """
        for name in self._values:
            there = ", ".join(sorted(known))
            raise UsageError(f"{self.where} has no key {name!r}", advice=f"check the spelling; there are: {there}")


def size(given: Any) -> int:
    """A number of bytes, given as such or as text with a unit: "10 GB", "512 MiB".

    Raises:
        ValueError: it is none.
    """
    if type(given) is int and given >= 0:
        return given
    match = _SIZE.fullmatch(given) if isinstance(given, str) else None
    if match is None or match[2] not in _UNITS:
        raise ValueError(f"{given!r} is no size")
    return int(float(match[1]) * _UNITS[match[2]])


def in_words(count: int) -> str:
    """A number of bytes for people: "1.5 GB"."""
    amount, units = float(count), ["bytes", "kB", "MB", "GB", "TB"]
    while amount >= 1000 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f"{amount:.3g} {units[0]}" if units[0] != "bytes" else f"{count} bytes"


def _seconds(given: Any) -> float:
    if type(given) in (int, float) and 0 <= given < float("inf"):
        return float(given)
    match = _SIZE.fullmatch(given) if isinstance(given, str) else None
    if match is None or match[2] not in _TIMES:
        raise ValueError(f"{given!r} is no duration")
    return float(match[1]) * _TIMES[match[2]]


def _text(given: Any) -> str:
    if not isinstance(given, str):
        raise TypeError
    return given


def _flag(given: Any) -> bool:
    if not isinstance(given, bool):
        raise TypeError
    return given


def _names(given: Any) -> tuple[str, ...]:
    if not isinstance(given, list | tuple) or not all(isinstance(name, str) for name in given):
        raise TypeError
    return tuple(given)


def _kind(value: Any) -> str:
    return {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list"}.get(
        type(value), f"a {type(value).__name__}"
    )


__all__ = ["Table", "in_words", "size"]
