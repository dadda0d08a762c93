"""Numbers that change from round to round, and the config that holds them.

Rounds are counted from 1. A schedule over n ``rounds`` gives round 1 its start and reaches its end in
round n + 1: the rounds 1 ... n divide the way from start to end evenly, and none of them is spent at the
end value, which is often a learning rate of 0. From round n + 1 on the value stays at the end.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from umbel.arguments import finite, number, whole
from umbel.errors import UsageError

_DEPTH = 32  # of nested config; deeper is a mistake, such as a list that contains itself


def _plain(value: object, what: str) -> float:
    """A finite number; a whole one stays an int, so that it can count epochs."""
    given = number(value, what)
    return int(value) if isinstance(value, int | np.integer) else given


class Schedule(ABC):
    """A number for each round. A value: the same round always gets the same number."""

    __slots__ = ()

    @abstractmethod
    def at(self, round: int) -> float:
        """The value in this round; rounds are counted from 1.

        Raises:
            UsageError: the round is not a whole number >= 1.
        """


def _before(round: int) -> int:
    """How many rounds came before this one."""
    return whole(round, "round") - 1


def _set(schedule: Schedule, **checked: object) -> None:
    """Put the checked arguments in place of the given ones, in a frozen object that is being made."""
    for name, value in checked.items():
        object.__setattr__(schedule, name, value)


@final
@dataclass(frozen=True, slots=True)
class Polynomial(Schedule):
    """From start to end along a power of the part that is left; see `linear` and `polynomial`."""

    start: float
    end: float
    rounds: int
    power: float = 1.0

    def __post_init__(self) -> None:
        _set(
            self,
            start=number(self.start, "schedule: start"),
            end=number(self.end, "schedule: end"),
            rounds=whole(self.rounds, "schedule: rounds"),
            power=number(self.power, "polynomial(): power", above=0),
        )

    def at(self, round: int) -> float:
        """It is start * left^power + end * (1 - left^power), where left = 1 - (round - 1) / rounds."""
        done = min(_before(round), self.rounds)
        left = float(((self.rounds - done) / self.rounds) ** self.power)
        return self.start * left + self.end * (1 - left)


@final
@dataclass(frozen=True, slots=True)
class Cosine(Schedule):
    """From start to end along half a period of a cosine; see `cosine`."""

    start: float
    end: float
    rounds: int

    def __post_init__(self) -> None:
        _set(
            self,
            start=number(self.start, "cosine(): start"),
            end=number(self.end, "cosine(): end"),
            rounds=whole(self.rounds, "cosine(): rounds"),
        )

    def at(self, round: int) -> float:
        """It is start * s + end * (1 - s), where s = (1 + cos(pi * (round - 1) / rounds)) / 2."""
        done = min(_before(round), self.rounds)
        share = (1 + math.cos(math.pi * (done / self.rounds))) / 2
        return self.start * share + self.end * (1 - share)


@final
@dataclass(frozen=True, slots=True)
class Geometric(Schedule):
    """Multiplied by a factor every so many rounds, gradually or in stairs; see `exponential` and `step`."""

    start: float
    factor: float
    every: int = 1
    stairs: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.stairs, bool):
            raise UsageError(f"schedule: stairs is {self.stairs!r}", advice="give True or False")
        _set(
            self,
            start=number(self.start, "schedule: start"),
            factor=number(self.factor, "schedule: factor", above=0),
            every=whole(self.every, "schedule: every"),
        )

    def at(self, round: int) -> float:
        """It is start * factor^((round - 1) / every), with the exponent rounded down for stairs."""
        before = _before(round)
        try:
            grown = self.factor ** (before // self.every if self.stairs else before / self.every)
        except OverflowError:  # a factor above 1, too often; `resolve` refuses an infinite value
            grown = math.inf
        return self.start * grown if self.start else self.start


@final
@dataclass(frozen=True, slots=True)
class Piecewise(Schedule):
    """One value until a round, another from that round on; see `constant` and `piecewise`."""

    start: float
    changes: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        changes = [(whole(r, "schedule: a round", least=2), _plain(v, f"round {r}: value")) for r, v in self.changes]
        if len(dict(changes)) != len(changes):
            raise UsageError("schedule: a round stands twice", advice="give each round one value")
        _set(self, start=_plain(self.start, "schedule: value"), changes=tuple(sorted(changes)))

    def at(self, round: int) -> float:
        """The value of the last change up to this round."""
        before = _before(round)
        return next((value for since, value in reversed(self.changes) if since <= before + 1), self.start)


@final
@dataclass(frozen=True, slots=True)
class Warmup(Schedule):
    """A straight rise to another schedule's first value, then that schedule; see `warmup`."""

    rounds: int
    then: Schedule

    def __post_init__(self) -> None:
        _set(
            self,
            rounds=whole(self.rounds, "warmup(): rounds"),
            then=self.then if isinstance(self.then, Schedule) else Piecewise(self.then),
        )

    def at(self, round: int) -> float:
        """It is then.at(1) * round / (rounds + 1) during the rise, then.at(round - rounds) after it."""
        before = _before(round)
        if before >= self.rounds:
            return self.then.at(before + 1 - self.rounds)
        return self.then.at(1) * ((before + 1) / (self.rounds + 1))


def constant(value: float) -> Schedule:
    """The same value in every round.

    Args:
        value: a finite number; an int stays an int.

    Raises:
        UsageError: an argument that makes no sense.
    """
    return Piecewise(value)


def linear(start: float, end: float, *, rounds: int) -> Schedule:
    """A straight line from start to end.

    Round 1 gets ``start``, round ``rounds`` gets end + (start - end) / rounds, and every later round ``end``.

    Args:
        start: the value of round 1.
        end: the value from round ``rounds`` + 1 on.
        rounds: how many rounds the way takes.

    Raises:
        UsageError: an argument that makes no sense.

    Example:
        >>> [linear(4, 0, rounds=4).at(r) for r in (1, 2, 3, 4, 5, 6)]
        [4.0, 3.0, 2.0, 1.0, 0.0, 0.0]
    """
    return Polynomial(start, end, rounds)


def polynomial(start: float, *, rounds: int, power: float, end: float = 0.0) -> Schedule:
    """From start to end along (1 - t / rounds)^power, with t = round - 1.

    Round 1 gets ``start``, round ``rounds`` gets end + (start - end) / rounds^power, and every later
    round ``end``.

    Args:
        start: the value of round 1.
        end: the value from round ``rounds`` + 1 on.
        rounds: how many rounds the way takes.
        power: > 0; 1 is `linear`, more falls faster at first.

    Raises:
        UsageError: an argument that makes no sense.
    """
    return Polynomial(start, end, rounds, power)


def cosine(start: float, *, rounds: int, end: float = 0.0) -> Schedule:
    """From start to end along half a period of a cosine: slow, fast, slow.

    Round 1 gets ``start``, round ``rounds`` gets end + (start - end) * (1 + cos(pi * (1 - 1 / rounds))) / 2,
    which is near ``end`` but not there yet, and every later round ``end``.

    Args:
        start: the value of round 1.
        end: the value from round ``rounds`` + 1 on.
        rounds: how many rounds the way takes.

    Raises:
        UsageError: an argument that makes no sense.

    Source: Loshchilov and Hutter, SGDR, ICLR 2017, equation 5, without restarts. https://arxiv.org/abs/1608.03983
    """
    return Cosine(start, end, rounds)


def exponential(start: float, *, decay: float, every: int = 1) -> Schedule:
    """Multiplied by ``decay`` over each ``every`` rounds, gradually: start * decay^((round - 1) / every).

    Round 1 gets ``start``, round 1 + every gets start * decay. It has no end.

    Args:
        start: a finite number.
        decay: the factor, 0 < decay <= 1.
        every: over how many rounds.

    Raises:
        UsageError: an argument that makes no sense.
    """
    return Geometric(start, number(decay, "exponential(): decay", above=0, most=1), every)


def step(start: float, *, factor: float, every: int) -> Schedule:
    """Multiplied by ``factor`` at once, every so many rounds.

    Rounds 1 to ``every`` get ``start``, the next ``every`` rounds start * factor, and so on. It has no end.

    Args:
        start: a finite number.
        factor: > 0; above 1 it grows.
        every: how many rounds a stair lasts.

    Raises:
        UsageError: an argument that makes no sense.
    """
    return Geometric(start, factor, every, stairs=True)


def piecewise(start: float, changes: Mapping[int, float]) -> Schedule:
    """Values, each from a round on.

    Round 1 gets ``start``; each round of ``changes`` and those after it get the value that stands there: the
    value itself, not a factor. From the last of these rounds on the value stays.

    Args:
        start: a finite number; an int stays an int, to count epochs for example.
        changes: value by round, the rounds >= 2.

    Raises:
        UsageError: an argument that makes no sense.

    Example:
        >>> [piecewise(1, {3: 5}).at(r) for r in (1, 2, 3, 4)]
        [1, 1, 5, 5]
    """
    if not isinstance(changes, Mapping):
        raise UsageError(
            f"piecewise(): changes is a {type(changes).__name__}",
            advice="give values by round: piecewise(0.1, {10: 0.05, 20: 0.01})",
        )
    return Piecewise(start, tuple(changes.items()))


def warmup(rounds: int, *, then: Schedule | float) -> Schedule:
    """A straight rise from 0, then another schedule, whose round 1 is round ``rounds`` + 1.

    Round 1 gets then.at(1) / (rounds + 1), round ``rounds`` gets then.at(1) * rounds / (rounds + 1), and round
    ``rounds`` + 1 gets then.at(1). So no round gets 0, and none repeats its predecessor.

    Args:
        rounds: how many rounds the rise takes.
        then: the schedule that follows, or a number that stays.

    Raises:
        UsageError: an argument that makes no sense.

    Source: Goyal et al., Accurate, Large Minibatch SGD, 2017, section 2.2, "gradual warmup".
    https://arxiv.org/abs/1706.02677
    Differs: the rise begins at 0 (in a round 0 that nobody trains in), not at the rate for one worker.
    """
    return Warmup(rounds, then)  # type: ignore[arg-type]  # a number becomes a schedule in __post_init__


def resolve(config: Mapping[str, object], round: int) -> dict[str, object]:
    """The config as it is sent in this round.

    Schedules become their value, also inside lists and mappings. NumPy's numbers become Python's, tuples
    become lists, and arrays become read-only copies, so that a client sees the same types wherever it runs.

    Args:
        config: values by name: None, booleans, numbers, text, bytes, numeric NumPy arrays, schedules, and
            lists, tuples and mappings of these.
        round: the round, from 1.

    Raises:
        UsageError: something that cannot be sent; says where it stands.
    """
    whole(round, "round")
    if not isinstance(config, Mapping):
        raise UsageError(f"config is a {type(config).__name__}", advice='give values by name: config={"lr": 0.1}')
    return _resolve_mapping(config, round, "config", 1)


def _resolve_mapping(value: Mapping[str, object], round: int, where: str, depth: int) -> dict[str, object]:
    if depth > _DEPTH:
        raise UsageError(f"{where} is nested more than {_DEPTH} deep", advice="does it contain itself?")
    for key in value:
        if not isinstance(key, str):
            raise UsageError(f"{where} has the key {key!r}", advice="keys are text: write it in quotes")
    return {str(k): _resolve(v, round, f"{where}[{str(k)!r}]", depth) for k, v in value.items()}


def _resolve(value: object, round: int, where: str, depth: int) -> object:
    if isinstance(value, Schedule):
        return _scheduled(value, round, where)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, np.ndarray):
        return _array(value, where)
    if isinstance(value, Mapping):
        return _resolve_mapping(value, round, where, depth + 1)
    if isinstance(value, list | tuple):
        return _resolve_list(value, round, where, depth + 1)
    return _scalar(value, where)


def _scheduled(schedule: Schedule, round: int, where: str) -> float:
    value = schedule.at(round)
    if finite(value) is None:
        raise UsageError(
            f"{where}: its schedule gives {value!r} in round {round}",
            advice=f"a schedule must give a finite number in every round; this is {schedule!r}",
        )
    return _plain(value, where)


def _resolve_list(value: Iterable[object], round: int, where: str, depth: int) -> list[object]:
    if depth > _DEPTH:
        raise UsageError(f"{where} is nested more than {_DEPTH} deep", advice="does it contain itself?")
    return [_resolve(v, round, f"{where}[{i}]", depth) for i, v in enumerate(value)]


def _scalar(value: object, where: str) -> object:
    """Exactly the plain type, also for what derives from it: NumPy's numbers, enumerations."""
    plain = value.item() if isinstance(value, np.generic) and value.dtype.kind in "biufSU" else value
    if isinstance(plain, bool):
        return plain
    if isinstance(plain, int):
        return int(plain)
    if isinstance(plain, float):
        return float(plain)
    if isinstance(plain, str):
        return str.__str__(plain)  # str() of an enumeration would be its name
    if isinstance(plain, bytes):
        return bytes(plain)
    raise UsageError(
        f"{where} is a {type(value).__name__}, which cannot be sent to clients",
        advice="use numbers, text, bytes, NumPy arrays, schedules, and lists and mappings of these",
    )


def _array(value: npt.NDArray[Any], where: str) -> npt.NDArray[Any]:
    masked = isinstance(value, np.ma.MaskedArray)  # what is masked must not be sent
    if masked or value.dtype.kind not in "biuf" or value.dtype.itemsize > 8:
        raise UsageError(
            f"{where} is an array {'with a mask' if masked else f'of {value.dtype}'}, which cannot be sent to clients",
            advice="use an array of booleans, integers or floats",
        )
    copy = np.array(value, dtype=value.dtype.newbyteorder("="), order="C", subok=False)
    copy.flags.writeable = False
    return copy


__all__ = [
    "Schedule",
    "constant",
    "cosine",
    "exponential",
    "linear",
    "piecewise",
    "polynomial",
    "resolve",
    "step",
    "warmup",
]
