"""Every aggregator passes the suite of umbel.testing; broken ones do not."""

# ruff: noqa: ARG002  # hooks take what they are given
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import numpy as np
import pytest

import umbel
from umbel.aggregate import Aggregator, Expected, Summing
from umbel.aggregate.concat import Parts
from umbel.aggregate.weighted_sum import WeightedSum, divided
from umbel.arrays import Arrays
from umbel.testing import check_aggregator, samples
from umbel.update import Update

MODELS = [
    umbel.aggregate.mean(),
    umbel.aggregate.mean(uniform=True),
    umbel.aggregate.mean(slices=True),
    umbel.aggregate.sum(),
    umbel.aggregate.q_fair(q=2.0, lr=0.1),
]
VALUES = [umbel.aggregate.mean(), umbel.aggregate.mean(uniform=True), umbel.aggregate.sum(), umbel.aggregate.concat()]


@pytest.mark.parametrize("aggregator", MODELS, ids=repr)
def test_of_models(aggregator: Aggregator) -> None:
    check_aggregator(aggregator)


@pytest.mark.parametrize("aggregator", VALUES, ids=repr)
def test_of_values(aggregator: Aggregator) -> None:
    check_aggregator(aggregator, updates=samples.values())


def test_of_bytes() -> None:
    trees = [Update(value={"trees": b"tree" * i, "gain": np.arange(i)}) for i in range(1, 5)]
    check_aggregator(umbel.aggregate.concat(), updates=trees)


def test_of_slices() -> None:
    whole = samples.model()
    cut = [
        Update(model={name: update.arrays[name][: 3 + i] for name in ("weight", "bias")}, weight=update.weight)
        for i, update in enumerate(samples.updates(whole, 3))
    ]
    check_aggregator(umbel.aggregate.mean(slices=True), sent=whole, updates=cut)


def test_of_a_model_of_ones_own() -> None:
    model = umbel.Arrays({"w": np.ones((3, 2), np.float32)})
    check_aggregator(umbel.aggregate.mean(), sent=model)


@dataclass(frozen=True)
class Right(Summing):
    """The mean of clients with equal weights; those below are wrong in one thing each."""

    @property
    def uniform(self) -> bool:
        return True

    def weight(self, stated: float) -> float:
        return 1.0

    def finish(self, acc: WeightedSum) -> Arrays | None:
        return divided(acc.total, acc.weight) if acc.total is not None and acc.weight else None


def test_one_of_ones_own() -> None:
    check_aggregator(Right())
    check_aggregator(Right(), updates=samples.values())


@dataclass(frozen=True)
class Latest(Right):
    def fold(self, acc: WeightedSum, update: Update, sent: Arrays | None) -> WeightedSum:
        return super().fold(self.init(sent), update, sent)


@dataclass(frozen=True)
class MeanOfMeans(Right):
    """Averages at once, so that merging two groups forgets how large they were."""

    def merge(self, acc: WeightedSum, later: WeightedSum) -> WeightedSum:
        if acc.total is not None and later.total is not None and acc.weight and later.weight:
            acc.total, acc.weight = divided(acc.total, acc.weight) + divided(later.total, later.weight), 2.0
            return acc
        return super().merge(acc, later)


@dataclass(frozen=True)
class Forgetful(Right):
    def merge(self, acc: WeightedSum, later: WeightedSum) -> WeightedSum:
        return later if acc.weight < later.weight else acc


@dataclass(frozen=True)
class Unfair(Right):
    """Says that it is uniform, and is not."""

    def weight(self, stated: float) -> float:
        return stated


@dataclass(frozen=True)
class Rough(Right):
    """Different bits for the same updates."""

    drawn: ClassVar[np.random.Generator] = np.random.default_rng(1)

    def finish(self, acc: WeightedSum) -> Arrays | None:
        result = super().finish(acc)
        return result + 1e-7 * self.drawn.random() if result is not None else None


@dataclass(frozen=True)
class Shared(Right):
    """All its accumulators are one."""

    accs: ClassVar[dict[str, WeightedSum]] = {}

    def init(self, sent: Arrays | None) -> WeightedSum:
        return self.accs.setdefault(sent.digest() if sent is not None else "", super().init(sent))


@dataclass(frozen=True)
class Scribbler(Right):
    """Writes to what it was sent."""

    def fold(self, acc: WeightedSum, update: Update, sent: Arrays | None) -> WeightedSum:
        folded = super().fold(acc, update, sent)
        update.weight = 1.5
        return folded


@dataclass(frozen=True)
class Greedy(Right):
    """Moves what is not trained."""

    def finish(self, acc: WeightedSum) -> Arrays | None:
        result = super().finish(acc)
        return result.merge(Arrays({"strange": np.ones(2)})) if result is not None else None


@dataclass(frozen=True)
class Lazy(Right):
    """Leaves the buffers out."""

    def finish(self, acc: WeightedSum) -> Arrays | None:
        result = super().finish(acc)
        return result.select(lambda e: e.role == "trained") if result is not None else None


@dataclass(frozen=True)
class Loose(Right):
    """Says that it refuses NaN, of a model that has none of the entries."""

    def expects(self, sent: Arrays | None) -> Expected:
        return Expected(sent=None, finite=True)


@dataclass(frozen=True)
class Picky(Right):
    def expects(self, sent: Arrays | None) -> Expected:
        return Expected(sent=Arrays({"w": np.zeros(3)}).spec)


@dataclass(frozen=True)
class Silent(Right):
    def expects(self, sent: Arrays | None) -> Expected:
        return cast(Expected, None)


@dataclass(frozen=True)
class Nothing(Right):
    def finish(self, acc: WeightedSum) -> Arrays | None:
        return None


@dataclass(frozen=True)
class Plain(Right):
    """Finishes with a dictionary."""

    def finish(self, acc: WeightedSum) -> Arrays | None:
        return cast(Arrays, {"w": 1.0})


@dataclass(frozen=True)
class Aside(Right):
    """Keeps a sum beside the one that transforms release."""

    sums: ClassVar[dict[int, Arrays]] = {}

    def finish(self, acc: WeightedSum) -> Arrays | None:
        result = super().finish(acc)
        if result is not None and acc.total is not None and result.norm():
            self.sums[acc.count] = result
        return self.sums.get(acc.count, result) if result is not None else None


@dataclass(frozen=True)
class Stopping(Right):
    """Raises for the third update."""

    def admit(self, acc: WeightedSum, update: Update) -> None:
        if acc.count == 2:
            raise KeyError("third")


@dataclass(slots=True)
class Heap:
    found: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Keeper(Aggregator):
    """Its accumulator holds something that cannot be written down."""

    def expects(self, sent: Arrays | None) -> Expected:
        return Right().expects(sent)

    def init(self, sent: Arrays | None) -> Heap:
        return Heap()

    def fold(self, acc: Heap, update: Update, sent: Arrays | None) -> Heap:
        acc.found.append(update)
        return acc

    def merge(self, acc: Heap, later: Heap) -> Heap:
        acc.found.extend(later.found)
        return acc

    def finish(self, acc: Heap) -> Arrays | None:
        right = Right()
        total = right.init(samples.model())
        for update in acc.found:
            total = right.fold(total, update, samples.model())
        return right.finish(total)


@dataclass(frozen=True)
class Backwards(Aggregator):
    """Merges in the wrong order, which its result shows."""

    def expects(self, sent: Arrays | None) -> Expected:
        return umbel.aggregate.concat().expects(sent)

    def init(self, sent: Arrays | None) -> Any:
        return umbel.aggregate.concat().init(sent)

    def fold(self, acc: Any, update: Update, sent: Arrays | None) -> Any:
        return umbel.aggregate.concat().fold(acc, update, sent)

    def merge(self, acc: Any, later: Any) -> Any:
        return umbel.aggregate.concat().merge(later, acc)

    def finish(self, acc: Any) -> Arrays | None:
        return umbel.aggregate.concat().finish(acc)


@dataclass
class Joined:
    """Values, and how often accumulators were merged into this one."""

    found: list[Arrays] = field(default_factory=list)
    merges: int = 0


@dataclass(frozen=True)
class LeftOnly(Aggregator):
    """Loses values when what is merged was itself merged."""

    def expects(self, sent: Arrays | None) -> Expected:
        return umbel.aggregate.concat().expects(sent)

    def init(self, sent: Arrays | None) -> Joined:
        return Joined()

    def fold(self, acc: Joined, update: Update, sent: Arrays | None) -> Joined:
        acc.found.append(update.arrays)
        return acc

    def merge(self, acc: Joined, later: Joined) -> Joined:
        acc.found += later.found[:1] if later.merges else later.found
        acc.merges += 1
        return acc

    def finish(self, acc: Joined) -> Arrays | None:
        return umbel.aggregate.concat().finish(Parts(acc.found))


BROKEN: list[tuple[Any, str]] = [
    (Latest(), "to the fold of the whole"),
    (MeanOfMeans(), "merge the fold of"),
    (Forgetful(), "to the fold of the whole"),
    (Unfair(), "no notice of weights"),
    (Rough(), "same bits for the same updates"),
    (Shared(), "keep nothing in an accumulator"),
    (Scribbler(), "leave the updates"),
    (Greedy(), "each trained entry and buffer .* 'strange'"),
    (Lazy(), "each trained entry and buffer .* 'variance'"),
    (Loose(), "expect the updates that it is given"),
    (Picky(), "expect the updates that it is given"),
    (Silent(), "an umbel.aggregate.Expected"),
    (Nothing(), "have a result"),
    (Plain(), "finish with umbel.Arrays or None, not"),
    (Aside(), "what transforms left in the accumulator"),
    (Stopping(), "admit and fold an update that it expects; it raised KeyError: 'third'"),
    (Keeper(), "have an accumulator"),
    (Right, "derive from umbel.aggregate.Aggregator, not be <class"),
]


@pytest.mark.parametrize(("aggregator", "says"), BROKEN, ids=lambda x: type(x).__name__)
def test_a_broken_one_is_refused(aggregator: Any, says: str) -> None:
    with pytest.raises(AssertionError, match=f"(?s)^an aggregator must .*({says})"):
        check_aggregator(aggregator)


def test_a_broken_order_is_refused() -> None:
    with pytest.raises(AssertionError, match="to the fold of the whole"):
        check_aggregator(Backwards(), updates=samples.values())


def test_one_that_merges_to_the_left_only_is_refused() -> None:
    with pytest.raises(AssertionError, match="merge associatively"):
        check_aggregator(LeftOnly(), updates=samples.values())


def test_one_that_cannot_travel_is_refused() -> None:
    @dataclass(frozen=True)
    class Hidden(Right):
        pass

    with pytest.raises(AssertionError, match=r"be a value, of plain values.*class defined inside a function"):
        check_aggregator(Hidden())


def test_three_updates_are_needed() -> None:
    with pytest.raises(AssertionError, match="at least three updates"):
        check_aggregator(Right(), updates=samples.values(2))
