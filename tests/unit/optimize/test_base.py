"""The server's step for whole models: a user's own rules, precision, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import pytest

from umbel import Arrays, entries, optimize
from umbel.errors import EntryError, UsageError
from umbel.optimize import OptimizerState, as_optimizer
from umbel.optimize.base import SLICE


def arrays(**values: Any) -> Arrays:
    return Arrays({name: np.asarray(value, np.float32) for name, value in values.items()})


@final
class Decay:
    """A user's rule in the plainest form: no dataclass, no flags."""

    def init(self, model: Arrays) -> dict[str, Any]:
        return {"steps": 0, "last": model.zeros()}

    def step(self, model: Arrays, delta: Arrays, state: dict[str, Any]) -> tuple[Arrays, dict[str, Any]]:
        assert isinstance(model, Arrays)
        assert model.spec == delta.spec
        steps = state["steps"] + 1
        return model + delta / steps, {"steps": steps, "last": delta}


@final
class SlicedDecay:
    """The same, slice by slice."""

    elementwise = True

    def init(self, model: Arrays) -> dict[str, Any]:
        return {"steps": 0, "last": [model.zeros(), None]}

    def step(self, model: Any, delta: Any, state: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        assert isinstance(model, np.ndarray)
        assert len(model) <= SLICE
        assert len(model) == len(delta) == len(state["last"][0])
        steps = state["steps"] + 1
        return model + delta / steps, {"steps": steps, "last": [delta, None]}


class TestRulesOfOnesOwn:
    def test_at_once(self) -> None:
        optimizer = as_optimizer(Decay())
        model, delta = arrays(w=[1, 2], b=0), arrays(w=[1, 1], b=1)
        state = optimizer.init(model)
        for _ in range(2):
            model, state = optimizer.step(model, delta, state)
        assert model == arrays(w=[2.5, 3.5], b=1.5)
        assert state.rule["steps"] == 2

    def test_in_slices(self) -> None:
        """A number is counted once a step, however many slices there are."""
        size = 2 * SLICE + 5
        model, delta = arrays(w=np.zeros(size)), arrays(w=np.arange(size))
        optimizer = as_optimizer(SlicedDecay())
        state = optimizer.init(model)
        for _ in range(2):
            model, state = optimizer.step(model, delta, state)
        assert model == arrays(w=np.arange(size) * 1.5)
        assert state.rule["steps"] == 2
        assert state.rule["last"][0] == delta

    def test_they_see_trained_entries_in_wide_precision(self) -> None:
        seen: list[Any] = []

        @final
        class Look:
            def init(self, model: Arrays) -> None:
                seen.append(model)

            def step(self, model: Arrays, delta: Arrays, _: None) -> tuple[Arrays, None]:
                seen.extend([model, delta])
                return model + delta, None

        model = Arrays(
            {"n": 3, "h": np.ones(2, np.float16), "d": np.ones(2), "bn": np.ones(2), "t": b"tree"},
            roles=[entries("bn", role="buffer")],
            aliases={"tied": "h"},
        )
        delta = Arrays({"h": np.ones(2, np.float32), "d": np.ones(2), "bn": np.ones(2)})
        optimizer = as_optimizer(Look())
        optimizer.step(model, delta, optimizer.init(model))
        for one in seen:
            assert {name: one[name].dtype.name for name in one} == {"h": "float32", "d": "float64", "tied": "float32"}

    @pytest.mark.parametrize("result", [None, arrays(w=[1, 2, 3]), arrays(v=[1, 2]), Arrays({"w": np.zeros(2)}), 3.0])
    def test_they_must_return_a_model_like_the_one_given(self, result: Any) -> None:
        @final
        class Bad:
            def init(self, _: Arrays) -> None:
                return None

            def step(self, *_: Any) -> tuple[Any, None]:
                return result, None

        optimizer = as_optimizer(Bad())
        model = arrays(w=[1, 2])
        with pytest.raises(UsageError, match=r"the model that <.*Bad.*> returned does not fit"):
            optimizer.step(model, model, optimizer.init(model))

    @pytest.mark.parametrize(
        ("first", "later", "text"),
        [
            (None, (1, 2), "has 2 parts, the one it was given 1"),
            (None, np.zeros(2), "has an array where None was before"),
            (np.zeros(2), np.zeros(2), "holds a NumPy array"),
            (arrays(w=[1, 2, 3]), 0.0, r"does not fit the trained entries of the model: entry 'w' has shape"),
        ],
    )
    def test_a_state_that_cannot_be_sliced(self, first: Any, later: Any, text: str) -> None:
        @final
        class Bad:
            elementwise = True

            def init(self, _: Arrays) -> Any:
                return first

            def step(self, model: Any, *_: Any) -> tuple[Any, Any]:
                return model, later

        optimizer = as_optimizer(Bad())
        model = arrays(w=[1, 2])
        with pytest.raises(UsageError, match=text):
            optimizer.step(model, model, optimizer.init(model))

    def test_ours_are_taken_as_they_are(self) -> None:
        adam = optimize.adam()
        assert as_optimizer(adam) is adam

    @pytest.mark.parametrize(
        ("given", "text"),
        [
            (optimize.adam, r"adam was not called\n.*write adam\(\)"),
            (Decay, r"Decay was not called\n.*write Decay\(\)"),
            ("adam", "'adam' is no server optimizer"),
            (None, "None is no server optimizer"),
            (object(), "is no server optimizer"),
        ],
    )
    def test_what_is_no_rule(self, given: Any, text: str) -> None:
        with pytest.raises(UsageError, match=text):
            as_optimizer(given)


class TestMaster:
    def test_small_updates_add_up(self) -> None:
        """Each alone is lost in the rounding of bfloat16, whose next number after 1 is 1.0078."""
        model, delta = arrays(w=[1]).astype("BF16"), arrays(w=[0.001])
        sgd, replace = optimize.sgd(), optimize.replace()
        one, other = (model, sgd.init(model)), (model, replace.init(model))
        for _ in range(100):
            one, other = sgd.step(one[0], delta, one[1]), replace.step(other[0], delta, other[1])
        assert one[0]["w"][0] == pytest.approx(1.1, abs=0.004)
        assert other[0]["w"][0] == 1.0
        assert other[1].master is None

    def test_a_model_that_was_changed_counts(self) -> None:
        """The master gives way, but only where the change is."""
        model, delta = arrays(w=[1, 1]).astype("F16"), arrays(w=[0.0001, 0.0001])
        sgd = optimize.sgd()
        model, state = sgd.step(model, delta, sgd.init(model))
        changed = Arrays({"w": np.array([1, 5], np.float16)})
        _, state = sgd.step(changed, delta, state)
        assert state.master is not None
        np.testing.assert_allclose(state.master["w"], [1.0002, 5.0001], rtol=1e-7)

    def test_not_a_number_stays_where_it_is(self) -> None:
        for dtype in ("F16", "BF16"):
            model = arrays(w=[np.nan, 1, np.inf]).astype(dtype)
            sgd = optimize.sgd()
            model, state = sgd.step(model, arrays(w=[0, 0, 0]), sgd.init(model))
            model, _ = sgd.step(model, arrays(w=[1, 1, 1]), state)
            np.testing.assert_array_equal(model["w"], [np.nan, 2, np.inf])

    def test_wide_entries_need_none(self) -> None:
        model = Arrays({"a": np.ones(2, np.float32), "b": np.ones(2), "c": np.ones(2, np.float16)})
        assert set(optimize.adam().init(model).master or ()) == {"c"}
        assert optimize.adam().init(model.select("[ab]")).master is None
        assert optimize.replace().init(model).master is None

    def test_a_state_of_another_model(self) -> None:
        adam = optimize.adam()
        half, full = Arrays({"w": np.ones(2, np.float16)}), arrays(w=[1, 1])
        with pytest.raises(UsageError, match=r"other 16-bit entries\n.*call init\(model\)"):
            adam.step(half, full, adam.init(full))
        with pytest.raises(UsageError, match=r"does not fit the trained entries.*\n.*call init\(model\)"):
            adam.step(full, full, adam.init(arrays(w=[1, 1, 1])))


class TestTheUpdate:
    def test_what_stays_may_be_missing(self) -> None:
        model = Arrays({"w": np.zeros(2), "n": 3, "home": np.ones(2)}, roles=[entries("home", role="local")])
        moved, _ = optimize.sgd().step(model, Arrays({"w": np.ones(2)}), OptimizerState(None))
        assert moved == Arrays({"w": np.ones(2), "n": 3, "home": np.ones(2)}, roles=[entries("home", role="local")])

    def test_what_stays_is_ignored(self) -> None:
        model = Arrays({"w": np.zeros(2), "home": np.ones(2)}, roles=[entries("home", role="frozen")])
        moved, _ = optimize.sgd().step(model, model + 1, OptimizerState(None))
        np.testing.assert_array_equal(moved["home"], [1, 1])

    def test_an_update_may_come_in_another_precision(self) -> None:
        """From a user's own aggregation; the engine's are wide."""
        model = Arrays(
            {"w": np.zeros(2, np.float32), "bn": np.zeros(2, np.float32)}, roles=[entries("bn", role="buffer")]
        )
        for dtype in ("F64", "F16", "BF16"):
            delta = Arrays({"w": np.full(2, 0.5), "bn": np.full(2, 0.25)}).astype(dtype)
            moved, _ = optimize.adam(1.0).step(model, delta, optimize.adam().init(model))
            same, _ = optimize.adam(1.0).step(model, delta.astype("F32"), optimize.adam().init(model))
            assert moved == same

    @pytest.mark.parametrize(
        ("delta", "text"),
        [
            ({"b": [0.0]}, "entry 'w' is F32 (2,) trained in the model and missing in the mean update"),
            ({"w": [0.0, 0, 0], "b": [0.0]}, "entry 'w' is F32 (2,) trained in the model and F64 (3,) trained in the"),
            ({"w": [1, 2], "b": [0.0]}, "entry 'w' is F32 (2,) trained in the model and I64 (2,) counter in the"),
            ({"w": [0.0, 0]}, "entry 'b' is F32 (1,) buffer in the model and missing in the mean update"),
            ({"w": [0.0, 0], "b": [0.0], "c": [0.0]}, "entry 'c' of the mean update is not in the model"),
        ],
    )
    def test_one_that_does_not_fit(self, delta: dict[str, Any], text: str) -> None:
        model = Arrays(dict(arrays(w=[0, 0], b=[0])), roles=[entries("b", role="buffer")])
        with pytest.raises(EntryError) as caught:
            optimize.sgd().step(model, Arrays({n: np.array(v) for n, v in delta.items()}), OptimizerState(None))
        assert text in str(caught.value)
        assert caught.value.entry in "wbc"


def test_overflow_is_left_to_the_engine() -> None:
    """Warnings are errors in these tests."""
    huge = np.full(3, 3e38, np.float32)
    for model in (Arrays({"w": huge}), Arrays({"w": huge}).astype("BF16")):
        for name in ("sgd", "replace", "momentum", "adam", "yogi", "adagrad"):
            optimizer = getattr(optimize, name)()
            moved, state = model, optimizer.init(model)
            for _ in range(3):
                moved, state = optimizer.step(moved, Arrays({"w": huge}), state)
    half = Arrays(
        {"w": np.full(2, 6e4, np.float16), "b": np.full(2, 6e4, np.float16)}, roles=[entries("b", role="buffer")]
    )
    moved, _ = optimize.replace().step(half, arrays(w=[6e4, 0], b=[6e4, 0]), OptimizerState(None))
    assert moved["w"].tolist() == moved["b"].tolist() == [np.inf, 60000]


def test_tied_weights_move_once_and_stay_tied() -> None:
    model = Arrays({"w": np.zeros(2)}, aliases={"head": "w"})
    delta = Arrays({"w": np.ones(2)}, aliases={"head": "w"})
    adam = optimize.adam()
    for given in (delta, Arrays({"w": np.ones(2)})):
        moved, state = adam.step(model, given, adam.init(model))
        assert moved["head"].tolist() == moved["w"].tolist() != [0, 0]
        assert list(moved) == ["w", "head"]
        assert list(state.rule.v) == ["w", "head"]


def test_a_model_with_nothing_to_train() -> None:
    model = Arrays({"n": 3})
    for optimizer in (optimize.adam(), as_optimizer(Decay())):
        moved, _ = optimizer.step(model, Arrays({}), optimizer.init(model))
        assert moved == model


def test_a_rule_in_a_dataclass_of_ones_own() -> None:
    @final
    @dataclass(frozen=True)
    class Signed:
        elementwise: ClassVar[bool] = True
        lr: float = 0.5

        def init(self, _: Arrays) -> tuple[()]:
            return ()

        def step(self, model: Any, delta: Any, state: tuple[()]) -> tuple[Any, tuple[()]]:
            return model + self.lr * np.sign(delta), state

    moved, state = as_optimizer(Signed()).step(arrays(w=[0, 0]), arrays(w=[3, -4]), OptimizerState(()))
    assert moved == arrays(w=[0.5, -0.5])
    assert state == OptimizerState(())


@pytest.mark.parametrize(("delta", "harmless"), [(1.0, True), (1e25, False), (np.nan, False)])
@pytest.mark.parametrize("optimizer", [optimize.sgd(), optimize.adam(lr=1.0)])
def test_a_step_knows_whether_it_is_harmless(delta: float, harmless: bool, optimizer: Any) -> None:
    model = Arrays(
        {"w": np.zeros(SLICE + 1, "f4"), "mean": np.zeros(2, "f4"), "n": np.array(7)}, roles={"mean": "buffer"}
    )
    for moved in ("w", "mean"):
        change = {"w": np.ones(SLICE + 1, "f4"), "mean": np.ones(2, "f4")}
        change[moved][-1] = delta
        new, _ = optimizer.step(model, Arrays(change, roles={"mean": "buffer"}), optimizer.init(model))
        assert new.harmless is harmless
