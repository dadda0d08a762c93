"""What a client keeps from round to round: a mapping that its next owner shares with nobody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, NoReturn, final

import numpy as np

from umbel.arrays import Arrays
from umbel.codec import MOST_BITS
from umbel.errors import UsageError

OURS = "umbel."
"""What the names begin with that handlers neither see nor take."""
LOCAL = "umbel.local"
"""Where a client's state keeps the entries of the model that never leave it."""
RULE, CHAIN = "umbel.rule.", "umbel.chain."
"""What the names begin with under which a local rule and a chain of transforms keep what is theirs."""
_PLAIN = (bool, int, float, str, bytes, Arrays, type(None))


@final
class ReadOnly(MutableMapping[str, Any]):
    """A mapping whose every change is refused in words.

    Args:
        values: what it holds.
        what: what it is called.
        advice: what to do instead.

    Attributes:
        used: did anyone look at what it holds?
    """

    __slots__ = ("_advice", "_values", "_what", "used")

    def __init__(self, values: Mapping[str, Any], what: str, advice: str) -> None:
        self._values, self._what, self._advice = values, what, advice
        self.used = False

    def __getitem__(self, name: str) -> Any:
        self.used = True
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        self.used = True
        return iter(self._values)

    def __len__(self) -> int:
        self.used = True
        return len(self._values)

    def __setitem__(self, name: str, value: Any) -> NoReturn:
        self._refuse()

    def __delitem__(self, name: str) -> NoReturn:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise UsageError(f"{self._what} is read-only and does not support item assignment", advice=self._advice)

    def __repr__(self) -> str:
        return repr(dict(self._values))


def unshared(value: Any) -> Any:
    """Lists and dictionaries as copies, arrays as read-only views: one task's changes do not reach the next."""
    if isinstance(value, np.ndarray):
        return _read_only(value)
    if type(value) is dict:
        return {k: unshared(v) for k, v in value.items()}
    return [unshared(v) for v in value] if type(value) is list else value


def opened(state: Mapping[str, Any], *, writable: bool) -> dict[str, Any]:
    """A client's state as its handler sees it; what the handler does to its arrays changes no other version."""
    return {name: _opened(value, writable) for name, value in state.items() if not name.startswith(OURS)}


def part(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """What a state keeps under names that begin so; without that beginning."""
    return {name.removeprefix(prefix): _opened(v, True) for name, v in state.items() if name.startswith(prefix)}


def with_part(state: Mapping[str, Any], prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The state with that part of it replaced.

    Raises:
        UsageError: a value that cannot be kept; names it.
    """
    kept = {name: value for name, value in state.items() if not name.startswith(prefix)}
    return kept | {prefix + name: _closed(prefix + name, value) for name, value in values.items()}


def _opened(value: Any, writable: bool) -> Any:
    """A copy, also of what is read-only: `torch.from_numpy` writes to that, too."""
    if isinstance(value, Arrays):
        return value.thawed().freeze()
    if not isinstance(value, np.ndarray):
        return value
    return value.copy() if writable else _read_only(value.copy())


def _read_only(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    view = array.view()
    view.flags.writeable = False
    return view


def closed(state: Mapping[str, Any]) -> dict[str, Any]:
    """What a handler left in its state, as it is kept.

    Raises:
        UsageError: a name or a value that cannot be kept; names it.
    """
    for name in state:
        if type(name) is not str or name.startswith(OURS):
            raise UsageError(f"ctx.state has the name {name!r}", advice="take other text as a name")
    return {name: _closed(name, value) for name, value in state.items()}


def _closed(name: str, value: Any) -> Any:
    # the types that a kept state has when it is read back, so that a resumed run computes with the same
    if isinstance(value, np.generic) and value.dtype.kind in "biufSU":
        value = value.item()
    if type(value) is int and value.bit_length() > MOST_BITS:
        raise UsageError(f"ctx.state[{name!r}] is an integer of {value.bit_length():,} bits", advice="keep it as bytes")
    if type(value) in _PLAIN:
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise UsageError(f"ctx.state[{name!r}] has a mask", advice="say what is kept there: .filled(0)")
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufcSUMm":
        return np.array(value)
    raise UsageError(
        f"ctx.state[{name!r}] is a {type(value).__name__}"
        + (f" of dtype {value.dtype}" if isinstance(value, np.ndarray) else ""),
        advice="a client's state holds numbers, text, bytes, NumPy arrays and umbel.Arrays; keep a tensor as "
        "tensor.numpy(), and more than one value under more than one name",
    )


__all__ = ["CHAIN", "LOCAL", "OURS", "RULE", "ReadOnly", "closed", "opened", "part", "unshared", "with_part"]
