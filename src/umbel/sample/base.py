"""Who is in the cohort: a sampler draws it from the population."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar, final

import numpy as np
import numpy.typing as npt

from umbel.errors import EmptyPopulation, UsageError

Labels = tuple[tuple[str, str], ...]


@final
@dataclass(frozen=True, slots=True)
class Population:
    """The clients that could be asked.

    Making one costs a pass over the names; keep it while the same clients are there.

    Attributes:
        names: their names, each once; sorted, in whatever order they were given.
        labels: what is known of them: value by label by client's name. Not every client needs labels.

    Raises:
        UsageError: a name that is not text or stands twice, or labels of somebody else.
    """

    names: tuple[str, ...]
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    _parts: dict[Labels, Population] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", _sorted(self.names))
        stranger = next((name for name in self.labels if name not in self), None)
        if stranger is not None:
            raise UsageError(f"there are labels of {stranger!r}, who is not in the population", advice="check the name")

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return self._place(name) is not None

    def all_there(self, names: Collection[str]) -> bool:
        """Are all of these in it?"""
        if len(names) > len(self) // 8:  # a set of all takes its time, and no longer than so many look-ups
            return set(self.names).issuperset(names)
        return all(name in self for name in names)

    def index(self, name: str) -> int:
        """The place of a client in ``names``.

        Raises:
            UsageError: there is no such client.
        """
        place = self._place(name)
        if place is None:
            raise UsageError(f"there is no client {name!r} in the population of {len(self)}", advice="check the name")
        return place

    def at(self, places: npt.NDArray[np.integer]) -> tuple[str, ...]:
        """The names at these places, in their order."""
        names = self.names
        return tuple([names[i] for i in places.tolist()])

    def part(self, labels: Labels) -> Population:
        """The clients that have all of these (label, value) pairs; remembered from call to call."""
        found = self._parts.get(labels)
        if found is None:
            has = {n: own for n, own in self.labels.items() if all(own.get(k) == v for k, v in labels)}
            found = self._parts[labels] = Population(tuple(has), has)
        return found

    def _place(self, name: object) -> int | None:
        if not isinstance(name, str):
            return None
        place = bisect_left(self.names, name)
        return place if place < len(self.names) and self.names[place] == name else None


def _sorted(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names in order; without a loop in Python where nothing is wrong, for there may be a million."""
    if isinstance(names, str):
        raise UsageError(f"the names of the clients are {names!r}", advice=f"one client is ({names!r},)")
    names = tuple(names)
    if not set(map(type, names)) <= {str}:
        wrong = next((name for name in names if not isinstance(name, str)), None)
        if wrong is not None:
            raise UsageError(f"a client is called {wrong!r}", advice="names are text")
        names = tuple(map(str, names))  # numpy.str_ and the like
    names = tuple(sorted(names))
    if len(set(names)) != len(names):
        twice = next(a for a, b in pairwise(names) if a == b)
        raise UsageError(f"two clients are called {twice!r}", advice="give every client a name of its own")
    return names


class Sampler(ABC):
    """Who is in the cohort. A value: it remembers nothing from round to round.

    Attributes:
        is_poisson: does each client take part independently of the others? Accountants of privacy ask.
    """

    __slots__ = ()

    is_poisson: ClassVar[bool] = False

    @abstractmethod
    def draw(self, population: Population, *, round: int, rng: np.random.Generator) -> tuple[str, ...]:
        """The cohort of one round.

        Args:
            population: who could be asked.
            round: the round, from 1.
            rng: all randomness comes from here; the same stream gives the same cohort.

        Returns:
            Names from the population, each at most once; their order means nothing. None at all is lawful.

        Raises:
            EmptyPopulation: there are clients, but none that this sampler could ever draw.
        """

    def rate(self, population_size: int) -> float | None:  # noqa: ARG002
        """The probability that a given client, one that can be drawn at all, is in a given round's cohort.

        Args:
            population_size: how many clients there are.

        Returns:
            The probability, if it is the same for all of them and the draw of each round is a new one;
            otherwise None.
        """
        return None

    def eligible(self, population: Population) -> Population:
        """Those who could be drawn; spares come from them, too."""
        return population

    def where(self, **labels: str) -> Sampler:
        """The same sampler over a part of the population: ``fraction(0.1).where(site="eu")``.

        The sampler sees the clients that have all of these labels, as if there were no others.

        Args:
            labels: values by label.

        Raises:
            UsageError: no labels, or a value that is not text.
        """
        return Filtered(self, tuple(labels.items()))


@final
@dataclass(frozen=True, slots=True)
class Filtered(Sampler):
    """A sampler over the clients that have certain labels; see `Sampler.where`."""

    sampler: Sampler
    labels: Labels

    def __post_init__(self) -> None:
        if not self.labels:
            raise UsageError("where() was given no labels", advice='name one: where(site="eu")')
        for label, value in self.labels:
            if not isinstance(value, str):
                raise UsageError(f"where(): {label} is {value!r}", advice=f'labels are text: where({label}="{value}")')
        object.__setattr__(self, "labels", tuple(sorted(self.labels)))

    @property
    def is_poisson(self) -> bool:  # type: ignore[override]  # as of the sampler inside
        """Does each client take part independently of the others?"""
        return self.sampler.is_poisson

    def rate(self, population_size: int) -> float | None:
        """The sampler's, where it does not depend on how many clients have the labels."""
        return self.sampler.rate(population_size) if self.is_poisson else None

    def eligible(self, population: Population) -> Population:
        """Those of them who have the labels."""
        return self.sampler.eligible(population.part(self.labels))

    def draw(self, population: Population, *, round: int, rng: np.random.Generator) -> tuple[str, ...]:
        """What the sampler draws from those who have the labels."""
        part = population.part(self.labels)
        if population and not part:
            wanted = ", ".join(f"{label}={value!r}" for label, value in self.labels)
            raise EmptyPopulation(
                f"none of {len(population)} clients has {wanted}",
                advice=f"check the spelling; there is {_known(population, self.labels)}",
            )
        return self.sampler.draw(part, round=round, rng=rng)


def _known(population: Population, labels: Labels) -> str:
    """The values that these labels do have, a few of them."""
    words = []
    for label, _ in labels:
        values = sorted({own[label] for own in population.labels.values() if label in own})
        shown = ", ".join(map(repr, values[:8])) + (", ..." if len(values) > 8 else "")
        words.append(f"{label}: {shown or 'nobody has it'}")
    return "; ".join(words)


def pick(population: Population, count: int, rng: np.random.Generator) -> tuple[str, ...]:
    """So many clients, each subset of that size equally likely; all of them if there are no more."""
    if count >= len(population):
        return population.names
    return population.at(np.sort(rng.choice(len(population), size=count, replace=False, shuffle=False)))


__all__ = ["Filtered", "Labels", "Population", "Sampler", "pick"]
