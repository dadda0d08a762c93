"""Every transform passes the suite of umbel.testing; broken ones do not."""

# ruff: noqa: ARG002  # hooks take what they are given
from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import numpy as np
import pytest

import umbel
from umbel.aggregate import Expected
from umbel.arrays import Arrays
from umbel.testing import check_transform, samples
from umbel.transforms import Facts, Noise, Released, Task, Trait, Transform
from umbel.update import Update


@pytest.mark.parametrize("transform", [umbel.transforms.clip(1.0), umbel.transforms.clip(1e-3)], ids=repr)
def test_ours(transform: Transform) -> None:
    check_transform(transform)
    check_transform(transform, model=Arrays({"w": np.ones((4, 4), np.float16)}))
    check_transform(transform, aggregator=umbel.aggregate.mean())
    check_transform(transform, updates=samples.values(), aggregator=umbel.aggregate.sum())


@dataclass(frozen=True)
class Scaled(Transform):
    """A right one with all five hooks; those below are wrong in one thing each."""

    needs: ClassVar[frozenset[Trait]] = frozenset({"uniform"})

    def init(self, facts: Facts) -> dict[str, int]:
        return {"rounds": 0}

    def plan(self, state: Any, round: int) -> Arrays | None:
        return Arrays({"factor": np.float64(2.0 + state["rounds"])})

    def client(self, update: Update, plan: Arrays | None, task: Task) -> Update:
        assert plan is not None
        task.state["seen"] = task.state.get("seen", 0) + 1
        dither = 1e-3 * task.rng("dither").normal()
        return update.replace((update.arrays + dither) * float(plan["factor"]))

    def ingest(self, update: Update, plan: Arrays | None) -> Update:
        assert plan is not None
        return update.replace(update.arrays / float(plan["factor"]))

    def release(self, released: Released, plan: Arrays | None, state: Any, noise: Noise) -> tuple[Released, Any]:
        drawn = noise(4)[0] / 256
        return replace(released, total=released.total + drawn), {"rounds": state["rounds"] + 1}


@dataclass(frozen=True)
class Rounded(Transform):
    """A right one that changes dtypes on the way, and says so."""

    gives: ClassVar[frozenset[Trait]] = frozenset({"integer"})

    def expects(self, expected: Expected) -> Expected:
        return replace(expected, sent=None)

    def client(self, update: Update, plan: Arrays | None, task: Task) -> Update:
        whole = {name: np.rint(100 * update.arrays[name]).astype(np.int64) for name in update.arrays}
        return update.replace(Arrays(whole))

    def ingest(self, update: Update, plan: Arrays | None) -> Update:
        return update.replace(Arrays({name: (update.arrays[name] / 100).astype(np.float32) for name in update.arrays}))


def test_those_of_ones_own() -> None:
    check_transform(Scaled())
    check_transform(Scaled(), before=[umbel.transforms.clip(1.0)])
    values = [Update(value={"x": np.full(3, 0.5 * i, np.float32)}) for i in range(3)]
    with pytest.raises(AssertionError, match=r"send what it says"):
        check_transform(Rounded(), updates=samples.updates(samples.model()), model=samples.model())
    check_transform(Rounded(), updates=values)


@dataclass(frozen=True)
class Writer(Transform):
    """Writes to the update that it is given."""

    def client(self, update: Update, plan: Arrays | None, task: Task) -> Update:
        update.weight = 1.0 + update.weight
        return update


@dataclass(frozen=True)
class Chance(Transform):
    """Draws from a generator that nobody seeded."""

    drawn: ClassVar[np.random.Generator] = np.random.default_rng(1)

    def client(self, update: Update, plan: Arrays | None, task: Task) -> Update:
        return update.replace(update.arrays + float(self.drawn.random()))


@dataclass(frozen=True)
class Talker(Transform):
    def client(self, update: Update, plan: Arrays | None, task: Task) -> Update:
        return update.replace(metrics={"norm": update.arrays.norm()})


@dataclass(frozen=True)
class Renamer(Transform):
    def client(self, update: Update, plan: Arrays | None, task: Task) -> Update:
        return update.replace(Arrays({f"{name}2": update.arrays[name] for name in update.arrays}))


@dataclass(frozen=True)
class Nothing(Transform):
    def client(self, update: Update, plan: Arrays | None, task: Task) -> Update:
        return cast(Update, None)


@dataclass(frozen=True)
class Raiser(Transform):
    def client(self, update: Update, plan: Arrays | None, task: Task) -> Update:
        raise ZeroDivisionError("norm is 0")


@dataclass(frozen=True)
class Boundless(Transform):
    gives: ClassVar[frozenset[Trait]] = frozenset({"bounded"})

    def client(self, update: Update, plan: Arrays | None, task: Task) -> Update:
        return update.replace(update.arrays * 0.1)


@dataclass(frozen=True)
class Uneven(Transform):
    gives: ClassVar[frozenset[Trait]] = frozenset({"uniform"})


@dataclass(frozen=True)
class Fractions(Transform):
    gives: ClassVar[frozenset[Trait]] = frozenset({"integer"})


@dataclass(frozen=True)
class Hoarder(Transform):
    """Keeps something at a client that cannot be kept."""

    def client(self, update: Update, plan: Arrays | None, task: Task) -> Update:
        task.state["last"] = update
        return update


@dataclass(frozen=True)
class Strange(Transform):
    """Its state cannot be written down."""

    def init(self, facts: Facts) -> Any:
        return object()


@dataclass(frozen=True)
class Forgetful(Scaled):
    """Its state is not the same when it is read back."""

    def init(self, facts: Facts) -> Any:
        return OrderedDict(factor=3.0)

    def plan(self, state: Any, round: int) -> Arrays | None:
        return Arrays({"factor": np.float64(2.0 + isinstance(state, OrderedDict))})

    def release(self, released: Released, plan: Arrays | None, state: Any, noise: Noise) -> tuple[Released, Any]:
        return released, state


@dataclass(frozen=True)
class Moody(Transform):
    drawn: ClassVar[np.random.Generator] = np.random.default_rng(1)

    def plan(self, state: Any, round: int) -> Arrays | None:
        return Arrays({"factor": self.drawn.random(1)})


@dataclass(frozen=True)
class Lottery(Transform):
    drawn: ClassVar[np.random.Generator] = np.random.default_rng(1)

    def client(self, update: Update, plan: Arrays | None, task: Task) -> Update:
        return update.replace(weight=1 + self.drawn.random())


@dataclass(frozen=True)
class Heavier(Transform):
    """Changes the update that arrived."""

    def ingest(self, update: Update, plan: Arrays | None) -> Update:
        update.weight *= 2
        return update


@dataclass(frozen=True)
class Planner(Transform):
    def plan(self, state: Any, round: int) -> Arrays | None:
        return cast(Arrays, {"factor": 1.0})


@dataclass(frozen=True)
class Shrinking(Transform):
    """Releases a sum with fewer entries."""

    def release(self, released: Released, plan: Arrays | None, state: Any, noise: Noise) -> tuple[Released, Any]:
        return replace(released, total=released.total.select("weight")), state


@dataclass(frozen=True)
class Crowded(Transform):
    """Cannot bear a cohort of nobody."""

    def release(self, released: Released, plan: Arrays | None, state: Any, noise: Noise) -> tuple[Released, Any]:
        return replace(released, total=released.total / (1 / len(released.clients))), state


@dataclass(frozen=True)
class OneWay(Transform):
    """What arrives does not fit what was sent."""

    def expects(self, expected: Expected) -> Expected:
        return replace(expected, sent=None)

    def client(self, update: Update, plan: Arrays | None, task: Task) -> Update:
        flat = np.concatenate([np.ravel(update.arrays[name]) for name in update.arrays])
        return update.replace(Arrays({"flat": flat}), kind="value")


@dataclass(frozen=True)
class Late(Transform):
    """Needs what nothing in front of it gives."""

    needs: ClassVar[frozenset[Trait]] = frozenset({"bounded"})


BROKEN: list[tuple[Any, str]] = [
    (Lottery(), "same weight when a task is done again"),
    (Heavier(), "leave the update that it ingests"),
    (Writer(), "leave the update that it is given"),
    (Chance(), "same bits when a task is done again"),
    (Talker(), "leave the metrics alone"),
    (Renamer(), "send what it says in expects"),
    (Nothing(), "return an update from client, not None"),
    (Raiser(), "change an update that is lawful there; it raised ZeroDivisionError: norm is 0"),
    (Boundless(), "bound the norm"),
    (Uneven(), "one weight, if it gives uniform"),
    (Fractions(), "whole numbers, if it gives integer"),
    (Hoarder(), "keep numbers, text, bytes and arrays at a client"),
    (Strange(), "have a state, of plain values"),
    (Forgetful(), "have a state that is the same|was written down between the rounds"),
    (Moody(), "plan the same"),
    (Planner(), "plan with umbel.Arrays"),
    (Shrinking(), "release a sum with the entries"),
    (Crowded(), "release the sum over 0 clients"),
    (OneWay(), "return a delta for a delta, not a value"),
    (Late(), "stand in this chain.*Late needs bounded updates"),
    (umbel.transforms.clip, "derive from umbel.transforms.Transform"),
]


@pytest.mark.parametrize(("transform", "says"), BROKEN, ids=lambda x: type(x).__name__)
def test_a_broken_one_is_refused(transform: Any, says: str) -> None:
    with pytest.raises(AssertionError, match=f"(?s)^a transform must .*({says})"):
        check_transform(transform)
