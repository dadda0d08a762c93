# ruff: noqa: ARG002  # hooks take what they are given
from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import umbel
from umbel import Arrays, Update, aggregate, transforms
from umbel.errors import ChainError, UsageError
from umbel.transforms import Chain, Facts, Noise, Released, Task, Trait, Transform


@dataclass(frozen=True, slots=True)
class Noisy(Transform):
    """Adds one to the sum; stands for a mechanism that needs a bound and uniform weights."""

    rounds: int = 10
    needs: ClassVar[frozenset[Trait]] = frozenset({"bounded", "uniform"})

    def check(self, facts: Facts) -> None:
        if facts.rounds > self.rounds:
            raise ChainError(
                f"calibrated for {self.rounds} rounds, the run has {facts.rounds}", advice="calibrate anew"
            )

    def init(self, facts: Facts) -> int:
        return 0 * facts.rounds

    def release(self, released: Released, plan: Arrays | None, state: int, noise: Noise) -> tuple[Released, int]:
        assert plan is None
        assert len(noise(3)) == 3
        changed = replace(released, total=released.total + 1.0, weight=3.0)
        return changed, state + len(released.clients)


@dataclass(frozen=True, slots=True)
class Seal(Transform):
    """Doubles on the client, halves at the server."""

    gives: ClassVar[frozenset[Trait]] = frozenset({"sealed"})

    def client(self, update: Update, plan: Arrays | None, task: Task) -> Update:
        assert plan is None
        assert task.round == 1
        return update.replace(update.arrays * 2)

    def ingest(self, update: Update, plan: Arrays | None) -> Update:
        assert plan is None
        return update.replace(update.arrays / 2)


TASK = Task(client="a", round=1, key=0, noise=os.urandom, state={})
UNIFORM = aggregate.mean(uniform=True)


def test_a_chain_that_lacks_something_says_what_to_put_where() -> None:
    with pytest.raises(ChainError, match="Noisy needs bounded updates") as caught:
        umbel.fed_avg(aggregator=UNIFORM).with_(Noisy())
    assert "umbel.transforms.clip" in caught.value.advice
    with pytest.raises(ChainError, match="needs uniform") as caught:
        umbel.fed_avg().with_(transforms.clip(1.0), Noisy())
    assert "uniform=True" in caught.value.advice
    with pytest.raises(ChainError, match="bounded") as caught:
        umbel.fed_avg(aggregator=UNIFORM).with_(Noisy(), transforms.clip(1.0))
    assert caught.value.advice == "move Clip in front of it"


def test_nothing_reads_a_sealed_update() -> None:
    with pytest.raises(ChainError, match="Clip stands behind Seal"):
        umbel.fed_avg().with_(Seal(), transforms.clip(1.0))


def test_a_sum_is_released_only_where_there_is_one() -> None:
    with pytest.raises(ChainError, match="makes no sum"):
        umbel.fed_avg(aggregator=aggregate.mean(slices=True)).with_(Seal())


def test_a_chain_holds_transforms_only() -> None:
    with pytest.raises(ChainError, match="no transform"):
        Chain((lambda x: x,))  # type: ignore[arg-type]  # what is tested


def run(strategy: umbel.fed_avg, rounds: int, **more: Any) -> umbel.Result:  # type: ignore[valid-type]
    client = umbel.ClientApp()

    @client.train
    def train(model: Arrays, ctx: Any) -> Update:
        return Update(model={"w": model["w"] + 3.0 + float(ctx.client.name)}, weight=5)

    server = umbel.ServerApp(model={"w": np.zeros(4)}, strategy=strategy, rounds=rounds)
    return umbel.run(server, client, on=umbel.Simulation(clients=3), seed=0, **more)


def test_what_depends_on_the_run_is_checked_before_anything_is_sent() -> None:
    strategy = umbel.fed_avg(aggregator=UNIFORM).with_(transforms.clip(1.0), Noisy(rounds=2))
    with pytest.raises(ChainError, match="calibrated for 2 rounds, the run has 3"):
        run(strategy, 3)


def test_release_works_on_the_sum_before_it_is_divided_and_its_state_is_committed(tmp_path: Any) -> None:
    strategy = umbel.fed_avg(aggregator=UNIFORM).with_(transforms.clip(1.0), Noisy())
    result = run(strategy, 2, dir=tmp_path / "run")
    again = run(strategy, 4, dir=tmp_path / "run")
    straight = run(strategy, 4)
    # each of 4 rounds: the mean of clipped updates, each of norm 1 in 4 equal coordinates, plus 1/3
    assert result.model is not None
    np.testing.assert_allclose(result.model["w"], 2 * (0.5 + 1 / 3), rtol=1e-6)
    assert again.model == straight.model


def test_a_chain_nests() -> None:
    result = run(umbel.fed_avg().with_(Seal()), 1)
    assert result.model is not None
    np.testing.assert_allclose(result.model["w"], 4.0)


@dataclass(frozen=True, slots=True)
class Adds(Transform):
    """Adds a number on the client and takes it off again at the server."""

    number: float

    def client(self, update: Update, plan: Arrays | None, task: Task) -> Update:
        return update.replace(update.arrays + self.number)

    def ingest(self, update: Update, plan: Arrays | None) -> Update:
        return update.replace(update.arrays - self.number)

    def release(
        self,
        released: Released,
        plan: Arrays | None,
        state: Any,
        noise: Noise,
    ) -> tuple[Released, Any]:
        return replace(released, total=released.total + self.number), state


@dataclass(frozen=True, slots=True)
class Doubles(Transform):
    """Doubles on the client, halves at the server; the sum, too."""

    def client(self, update: Update, plan: Arrays | None, task: Task) -> Update:
        return update.replace(update.arrays * 2)

    def ingest(self, update: Update, plan: Arrays | None) -> Update:
        return update.replace(update.arrays / 2)

    def release(
        self,
        released: Released,
        plan: Arrays | None,
        state: Any,
        noise: Noise,
    ) -> tuple[Released, Any]:
        return replace(released, total=released.total / 2), state


def test_the_server_goes_through_a_chain_last_to_first() -> None:
    chain, none = Chain((Adds(4.0), Doubles())), (None, None)
    sent = chain.client(Update(delta={"w": np.ones(1)}), none, TASK)
    assert sent.arrays["w"][0] == (1 + 4) * 2
    assert chain.ingest(sent, none).arrays["w"][0] == 1
    released, _ = chain.release(Released(total=Arrays({"w": np.ones(1)}), weight=1, clients=()), none, none, os.urandom)
    assert released.total["w"][0] == 1 / 2 + 4


@given(
    hnp.arrays(np.float32, 40, elements=st.floats(-1e6, 1e6, width=32)),
    st.floats(1e-6, 1e6),
)
def test_a_clipped_update_is_never_longer_than_its_bound(values: Any, norm: float) -> None:
    update = Update(delta=Arrays({"a": values[:25], "b": values[25:], "s": values}, roles={"s": "buffer"}))
    clipped = Chain((transforms.clip(norm),)).client(update, (None,), TASK)
    length = np.sqrt(np.sum(np.square(values.astype(np.float64))))
    ours = clipped.arrays.norm()
    assert ours <= norm
    if length <= norm:
        assert clipped.arrays == update.arrays
    else:
        assert ours >= norm * (1 - 1e-5) or ours < 1e-30
        assert clipped.arrays["s"].tobytes() == values.tobytes(), "buffers are neither counted nor scaled"


@given(
    hnp.arrays(np.float32, 40, elements=st.floats(-6e4, 6e4, width=32)),
    st.floats(1e-6, 1e6),
    st.sampled_from(["F16", "BF16"]),
)
def test_rounding_to_16_bits_does_not_exceed_the_bound(values: Any, norm: float, dtype: str) -> None:
    value = Arrays({"a": values[:39], "one": values[39]}).astype(dtype)
    clipped = transforms.clip(norm).client(Update(value=value), None, TASK).arrays
    assert clipped.norm() <= norm
    if value.norm() > norm > 0.1:
        assert clipped.norm() >= norm * (0.999 if dtype == "F16" else 0.99)


def test_huge_and_tiny_updates_are_clipped_like_others() -> None:
    for length, norm in ((1e200, 1.0), (1e-200, 1e-210), (1e30, 1e-12)):
        clipped = transforms.clip(norm).client(Update(delta={"w": np.array([length, length])}), None, TASK)
        assert norm * 0.99999 <= clipped.arrays.norm() <= norm
    single = transforms.clip(1e-12).client(Update(delta={"w": np.array([1e32], np.float32)}), None, TASK)
    assert single.arrays.norm() <= 1e-12, "the factor is no float32"


@pytest.mark.parametrize("norm", [0, -1, float("nan"), float("inf"), "1", True])
def test_a_bound_is_a_finite_number_above_zero(norm: Any) -> None:
    with pytest.raises(UsageError, match="clip norm"):
        transforms.clip(norm)


@dataclass(frozen=True, slots=True)
class Remember(Transform):
    """Its state is the sum of the last round, as it was released; it sees whether that changed since."""

    def init(self, facts: Facts) -> tuple[Arrays, str]:
        first = Arrays({"w": np.zeros(facts.spec.by_name["w"].shape)})
        return first, first.digest()

    def release(
        self, released: Released, plan: Arrays | None, state: tuple[Arrays, str], noise: Noise
    ) -> tuple[Released, tuple[Arrays, str]]:
        last, digest = state
        assert last.digest() == digest
        return released, (released.total, released.total.digest())


def test_the_mean_does_not_change_the_sum_that_a_step_has_kept() -> None:
    client = umbel.ClientApp()

    @client.train
    def train(model: Arrays, ctx: umbel.Context) -> Update:
        return Update(model=model + 1.0, weight=3.0)

    strategy = umbel.fed_avg(cohort=umbel.sample.everyone()).with_(transforms=[Remember()])
    server = umbel.ServerApp(model={"w": np.zeros(2)}, strategy=strategy, rounds=3)
    result = umbel.run(server, client, on=umbel.Simulation(clients=2, engine="inline"), seed=1)
    assert result.model is not None
    assert result.model["w"].tolist() == [3.0, 3.0]
