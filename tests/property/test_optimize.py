"""What holds for every server optimizer and every model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save as save_foreign

from umbel import Arrays, optimize
from umbel.arrays import BLOCK
from umbel.codec import decode, encode
from umbel.optimize import OptimizerState, ServerOptimizer, base
from umbel.optimize.replace import Replace
from umbel.spec import FLOATS, Entry, Role, layout

OPTIMIZERS = {
    "sgd": optimize.sgd(0.7),
    "replace": optimize.replace(),
    "momentum": optimize.momentum(0.5, momentum=0.8),
    "nesterov": optimize.momentum(nesterov=True),
    "adam": optimize.adam(0.03),
    "yogi": optimize.yogi(),
    "adagrad": optimize.adagrad(),
    "adagrad with momentum": optimize.adagrad(beta1=0.5),
}
every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)

ROLES: dict[str, list[Role]] = {code: ["trained", "trained", "trained", "buffer", "frozen", "local"] for code in FLOATS}
ROLES |= {"I64": ["counter", "frozen"], "U8": ["payload", "counter"], "BOOL": ["counter"]}


@pytest.fixture(autouse=True, scope="module")
def _small_slices() -> Iterator[None]:
    """So that a model of few elements has several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "SLICE", BLOCK)
        yield


shapes = st.sampled_from([(), (1,), (3, 2), (0, 4), (257,), (BLOCK,), (2, BLOCK + 3)])


@final
@dataclass(frozen=True)
class Whole:
    """A rule that is called once, with whole Arrays."""

    rule: Any
    elementwise: ClassVar[bool] = False

    @property
    def keeps_master(self) -> bool:
        return not isinstance(self.rule, Replace)

    def init(self, model: Arrays) -> Any:
        return self.rule.init(model)

    def step(self, model: Arrays, delta: Arrays, state: Any) -> Any:
        return self.rule.step(model, delta, state)


def filled(wanted: list[Entry], rng: np.random.Generator, *, scale: float) -> Arrays:
    def write(name: str, out: Any) -> None:
        out[...] = numbers[name].raw(name)

    numbers = {}
    for e in wanted:
        values: Any = rng.normal(0, scale, e.shape) if e.dtype in FLOATS else rng.integers(0, 2, e.shape)
        if e.dtype in FLOATS:
            numbers[e.name] = Arrays({e.name: values}).astype(e.dtype)
        else:
            numbers[e.name] = Arrays({e.name: np.asarray(values, {"I64": "i8", "U8": "u1", "BOOL": "?"}[e.dtype])})
    return Arrays.build(layout(wanted), write)


@st.composite
def models(
    draw: st.DrawFn, codes: tuple[str, ...] = tuple(ROLES), roles: list[Role] | None = None
) -> tuple[Arrays, list[Arrays]]:
    """A model of any layout, and a few mean updates as the engine makes them."""
    wanted = []
    for i in range(draw(st.integers(1, 5))):
        code = draw(st.sampled_from(codes))
        wanted.append(Entry(f"e{i}", code, draw(shapes), draw(st.sampled_from(roles or ROLES[code]))))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    moved = [e for e in wanted if e.role in ("trained", "buffer")]
    wide = [Entry(e.name, "F64" if e.dtype == "F64" else "F32", e.shape, e.role) for e in moved]
    deltas = [filled(wide, rng, scale=0.1) for _ in range(draw(st.integers(1, 3)))]
    return filled(wanted, rng, scale=1), deltas


def played(optimizer: ServerOptimizer, model: Arrays, deltas: list[Arrays]) -> tuple[Arrays, OptimizerState]:
    state = optimizer.init(model)
    for delta in deltas:
        model, state = optimizer.step(model, delta, state)
    return model, state


def same(one: Any, other: Any) -> bool:
    """Equal in structure and to the last bit."""
    return bool(encode(one, lambda arrays: arrays.digest()) == encode(other, lambda arrays: arrays.digest()))


@every_optimizer
@settings(max_examples=40)
@given(case=models())
def test_slice_by_slice_and_at_once_are_the_same_bits(
    optimizer: ServerOptimizer, case: tuple[Arrays, list[Arrays]]
) -> None:
    model, state = played(optimizer, *case)
    again, its_state = played(ServerOptimizer(Whole(optimizer.rule)), *case)
    assert model.difference(again) == ""
    assert same(state, its_state)


@every_optimizer
@settings(max_examples=20)
@given(case=models())
def test_roles_say_what_moves(optimizer: ServerOptimizer, case: tuple[Arrays, list[Arrays]]) -> None:
    model, (delta, *_) = case
    moved, _ = played(optimizer, model, [delta])
    assert moved.spec == model.spec
    for e in model.spec.entries:
        before, after = model.raw(e.name), moved.raw(e.name)
        if e.role == "buffer":
            mean: Any = model[e.name] + delta[e.name]
            np.testing.assert_array_equal(after, Arrays({e.name: mean}).astype(e.dtype).raw(e.name))
        elif e.role != "trained":
            np.testing.assert_array_equal(after, before)
        elif e.dtype in ("F32", "F64") and e.size > 100:
            assert not np.array_equal(after, before)


@every_optimizer
@settings(max_examples=20)
@given(case=models())
def test_nothing_is_written_to_the_arguments(optimizer: ServerOptimizer, case: tuple[Arrays, list[Arrays]]) -> None:
    model, deltas = case
    state = optimizer.init(model)
    before = encode([model, deltas, state], lambda arrays: arrays.digest())
    moved, later = optimizer.step(model, deltas[0], state)
    assert encode([model, deltas, state], lambda arrays: arrays.digest()) == before
    assert all(not arrays.raw(name).flags.writeable for arrays in held(moved, later) for name in arrays)


@every_optimizer
@settings(max_examples=20)
@given(case=models())
def test_a_run_goes_on_from_a_stored_state(optimizer: ServerOptimizer, case: tuple[Arrays, list[Arrays]]) -> None:
    """Bytes of the model, the state and the optimizer itself: what a checkpoint holds."""
    model, deltas = case
    files: dict[str, bytes] = {}

    def place(arrays: Arrays) -> str:
        files[arrays.digest()] = bytes(arrays.to_bytes())
        return arrays.digest()

    state, go_on, moved = optimizer.init(model), optimizer, model
    for delta in deltas:
        stored = encode({"model": moved, "state": state, "optimizer": go_on}, place)
        found = decode(stored, lambda name: Arrays.from_bytes(files[name]))
        go_on = found["optimizer"]
        moved, state = go_on.step(found["model"], delta, found["state"])
    assert go_on == optimizer
    assert same([moved, state], list(played(optimizer, model, deltas)))


@every_optimizer
@settings(max_examples=20)
@given(case=models(codes=("F32", "F64", "F16"), roles=["trained"]))
def test_a_foreign_layout_gives_the_same_bits(optimizer: ServerOptimizer, case: tuple[Arrays, list[Arrays]]) -> None:
    """As another program writes it: its own order and padding, and no roles."""
    model, deltas = case
    theirs, *its_deltas = (Arrays.from_bytes(save_foreign(dict(arrays))) for arrays in (model, *deltas))
    assert not theirs.spec.canonical
    moved, _ = played(optimizer, theirs, its_deltas)
    expected, _ = played(optimizer, model, deltas)
    for name in model:
        assert moved.raw(name).tobytes() == expected.raw(name).tobytes()


@every_optimizer
@settings(max_examples=30)
@given(case=models(codes=("F16", "BF16", "F32")))
def test_the_master_is_what_a_float32_model_would_be(
    optimizer: ServerOptimizer, case: tuple[Arrays, list[Arrays]]
) -> None:
    if isinstance(optimizer.rule, Replace):
        return
    model, deltas = case
    trained = model.select(lambda e: e.role == "trained")
    full, state = trained.astype("F32"), optimizer.init(trained.astype("F32"))
    moved, its_state = model, optimizer.init(model)
    for delta in deltas:
        full, state = optimizer.step(full, delta.select(lambda e: e.role == "trained"), state)
        moved, its_state = optimizer.step(moved, delta, its_state)
        for e in trained.spec.entries:
            rounded = full.select(e.name).astype(e.dtype)
            np.testing.assert_array_equal(moved.raw(e.name), rounded.raw(e.name))
    kept = {e.name for e in trained.spec.entries if e.dtype != "F32"}
    assert set(its_state.master or ()) == kept


@settings(max_examples=40)
@given(case=models(codes=("F32", "F64", "I64")))
def test_replace_is_a_full_step_of_sgd(case: tuple[Arrays, list[Arrays]]) -> None:
    one, other = played(optimize.replace(), *case), played(optimize.sgd(1.0), *case)
    assert one[0].difference(other[0]) == ""


updates = hnp.arrays(np.float32, st.integers(1, 20), elements=st.floats(-(2.0**60), 2.0**60, width=32))


@given(updates, st.sampled_from(["adam", "yogi", "adagrad"]), st.integers(1, 5))
def test_the_second_moment_is_never_negative(update: Any, name: str, steps: int) -> None:
    optimizer = OPTIMIZERS[name]
    model = Arrays({"w": np.zeros_like(update)})
    _, state = played(optimizer, model, [Arrays({"w": update * (-0.1) ** i}) for i in range(steps)])
    assert (state.rule.v["w"] >= 0).all()


def held(*trees: Any) -> list[Arrays]:
    """All Arrays in these."""
    found: list[Arrays] = []

    def place(arrays: Arrays) -> str:
        found.append(arrays)
        return ""

    encode(list(trees), place)
    return found
