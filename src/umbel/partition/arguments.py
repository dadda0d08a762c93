"""Arguments that all schemes have in common: clients, whole numbers, the seed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set

import numpy as np

from umbel.errors import UsageError
from umbel.rng import stream

Clients = int | Sequence[str]
"""How many clients there are, or their names."""


def client_names(clients: Clients) -> tuple[str, ...]:
    """Clients' names from how many there are or what they are called.

    Raises:
        UsageError: no clients, or a name that is not text, empty or there twice.
    """
    if is_whole(clients):
        return tuple(map(str, range(whole(clients, "clients", least=1))))
    names = tuple(map(_name, _listed_clients(clients)))
    if not names:
        raise UsageError("There are no clients.", advice="Give at least one name, or a number.")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"The client name {twice!r} occurs twice.", advice="Give every client a name of its own.")
    return names


def _name(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise UsageError(f"{name!r} is not a client's name.", advice="Name clients by non-empty text.")
    return str(name)  # numpy.str_ becomes str


def _listed_clients(clients: object) -> list[object]:
    if isinstance(clients, Iterable) and not isinstance(clients, str | Set):
        return list(clients)
    raise UsageError(  # also of a set, whose order changes from process to process
        f"clients={clients!r} is neither a number of clients nor a list of their names.",
        advice='Write clients=100, or clients=["berlin", "paris"].',
    )


def is_whole(value: object) -> bool:
    """Whether this is an integer, Python's or NumPy's, and not a bool."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_real(value: object) -> bool:
    """Whether this is a finite real number, Python's or NumPy's, and not a bool."""
    return is_whole(value) or (isinstance(value, float | np.floating) and bool(np.isfinite(value)))


def whole(value: object, name: str, *, least: int) -> int:
    """An integer argument as a Python int.

    Raises:
        UsageError: it is no integer, or less than ``least``.
    """
    if not isinstance(value, int | np.integer) or not is_whole(value) or value < least:
        raise UsageError(f"{name}={value!r} does not do.", advice=f"Give a whole number, {least} or more.")
    return int(value)


def generator(seed: int, scheme: str, *names: str) -> np.random.Generator:
    """The stream of one scheme's draws; 1 and ``numpy.int64(1)`` are the same seed.

    Raises:
        UsageError: the seed is not a whole number >= 0.
    """
    return stream(whole(seed, "seed", least=0), "partition", scheme, *names)


def listed(things: Iterable[object]) -> str:
    """A few of these things as text, for an error."""
    shown = [str(thing) for thing in things]
    return ", ".join(shown) if len(shown) <= 4 else f"{', '.join(shown[:3])} and {len(shown) - 3} more"


__all__ = ["Clients", "client_names", "generator", "is_real", "is_whole", "listed", "whole"]
