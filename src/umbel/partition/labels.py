"""Labels as every scheme sees them: one code per sample, classes in an order of their own.

Two lists of labels that mean the same give the same codes, whatever holds them: a list, a NumPy
array, a tensor, a pandas column; 3, 3.0 and "3" are one class. Nothing depends on the order of
the samples, of a dict or of hashes: numbers are ordered by value (also when they are written as
text, so that "10" follows "9"), other text by code point.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from umbel.errors import UsageError
from umbel.partition.arguments import is_whole

Samples = int | ArrayLike
"""How many samples there are, or their labels."""

_INTEGER = re.compile(r"0|-?[1-9][0-9]*")
_ONE_EACH = "Give one label per sample, in a flat list or array."


@final
@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """The labels of n samples in K classes.

    Attributes:
        codes: for each sample the position of its class in ``classes``; int64, shape [n].
        classes: the classes' names.
    """

    codes: NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return self.codes.size

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many samples each class has; shape [K]."""
        return np.bincount(self.codes, minlength=len(self.classes)).astype(np.int64, copy=False)

    def shuffled(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """All sample indexes, class after class, in random order inside a class.

        What depends only on places in this list depends on the counts, not on the samples' order.
        """
        drawn = rng.permutation(len(self))
        return drawn[np.argsort(self.codes[drawn], kind="stable")]


def encode(labels: ArrayLike, *, what: str = "labels") -> Labels:
    """Labels from anything that holds one label per sample.

    Args:
        labels: integers, floats with integer values, bools, or text; n of them.
        what: what to call them in an error.

    Raises:
        UsageError: no labels, a missing one, one that is no class, text mixed with numbers.
    """
    array = vector(labels, what=what)
    if array.dtype.kind in "biuf":
        return _numbers(array, what)
    if array.dtype.kind in "OUST":
        return _objects(array.tolist(), what)
    raise UsageError(f"{what} are {array.dtype}, not classes.", advice="Labels are integers, bools or text.")


def samples(given: Samples) -> Labels:
    """Labels, or n samples of one class when only their number is known."""
    if isinstance(given, int | np.integer) and is_whole(given):
        if given < 1:
            raise UsageError(f"There are {given} samples to partition.", advice="Give a number above 0, or the labels.")
        return Labels(np.zeros(int(given), np.int64), ("",))
    return encode(given)


def vector(values: ArrayLike, *, what: str) -> NDArray[Any]:
    """Values as a flat array with something in it; text and mixed values as objects."""
    try:
        array = np.asarray(values)
        if array.dtype.kind in "US" and not hasattr(values, "dtype"):
            array = np.array(values, dtype=object)  # NumPy would make the text "nan" of a missing value beside text
    except ValueError as error:
        raise UsageError(f"{what} are not a flat list: {error}.", advice=_ONE_EACH) from error
    if array.ndim == 0:
        raise UsageError(f"{what} are one {type(values).__name__}, not a list.", advice=_ONE_EACH)
    if array.ndim > 1:
        turn = "labels.argmax(axis=1) turns one-hot rows into classes" if array.shape[1] > 1 else "use reshape(-1)"
        raise UsageError(f"{what} have the shape {array.shape}.", advice=f"{_ONE_EACH[:-1]}; {turn}.")
    if not array.size:
        raise UsageError(f"There are no {what}.", advice=_ONE_EACH)
    return array


def _numbers(array: NDArray[Any], what: str) -> Labels:
    if array.dtype.kind == "f":
        array = array.astype(np.float64, copy=False)  # float16 overflows where int64 does not
        _refuse_first(np.isnan(array), array, what)
        _refuse_first(np.isinf(array) | (array != np.floor(array)), array, what)
        if np.abs(array).max() >= 2.0**63:
            return _objects(array.tolist(), what)
        array = array.astype(np.int64)
    elif array.dtype == bool:
        array = array.astype(np.int64)
    found, codes = np.unique(array, return_inverse=True)
    return Labels(codes.astype(np.int64, copy=False), tuple(map(str, found.tolist())))


def _objects(values: list[Any], what: str) -> Labels:
    kinds = {kind: _kind(kind) for kind in set(map(type, values))}
    if set(kinds.values()) == {"number"}:
        values = [_integer(value, at, what) for at, value in enumerate(values)]
    elif len(set(kinds.values())) > 1 or "" in kinds.values():
        _refuse_mixture(values, kinds, what)
    elif set(kinds.values()) == {"bytes"}:
        values = [value.decode("utf-8", "backslashreplace") for value in values]
    order = sorted(dict.fromkeys(values))
    if isinstance(order[0], str) and all(map(_INTEGER.fullmatch, order)):
        order = sorted(order, key=int)
    place = {value: code for code, value in enumerate(order)}
    return Labels(np.fromiter(map(place.__getitem__, values), np.int64, len(values)), tuple(map(str, order)))


def _kind(kind: type) -> str:
    if issubclass(kind, str):
        return "text"
    if issubclass(kind, bytes):
        return "bytes"
    return "number" if issubclass(kind, int | float | np.integer | np.floating | np.bool_) else ""


def _integer(value: Any, at: int, what: str) -> int:
    if isinstance(value, float | np.floating) and not float(value).is_integer():
        _refuse(value, at, what)
    return int(value)


def _refuse_mixture(values: Sequence[Any], kinds: dict[type, str], what: str) -> NoReturn:
    for at, value in enumerate(values):
        if not kinds[type(value)] or _is_missing(value):
            _refuse(value, at, what)
    first = kinds[type(values[0])]
    at, value = next((at, value) for at, value in enumerate(values) if kinds[type(value)] != first)
    raise UsageError(
        f"{what}[0] is {first} and {what}[{at}] is {kinds[type(value)]} ({value!r}).",
        advice="Make all of them numbers, or all of them text.",
    )


def _refuse_first(wrong: NDArray[np.bool_], array: NDArray[Any], what: str) -> None:
    if wrong.any():
        at = int(np.argmax(wrong))
        _refuse(array[at].item(), at, what, more=int(wrong.sum()) - 1)


def _refuse(value: Any, at: int, what: str, *, more: int = 0) -> NoReturn:
    others = f" ({more} more like it)" if more else ""
    if _is_missing(value):
        raise UsageError(
            f"{what}[{at}] is missing ({value!r}){others}.", advice="Drop samples without a label, or fill it in."
        )
    advice = "Labels are integers, bools or text."
    if isinstance(value, float | np.floating):
        advice = "For a continuous quantity use umbel.partition.continuous."
    raise UsageError(f"{what}[{at}] is {value!r}, which is not a class{others}.", advice=advice)


def _is_missing(value: object) -> bool:
    is_nan = isinstance(value, float | np.floating) and bool(np.isnan(value))
    return value is None or is_nan or type(value).__name__ in {"NAType", "NaTType"}  # pandas' two


__all__ = ["Labels", "Samples", "encode", "samples", "vector"]
