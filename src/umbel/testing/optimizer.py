"""What a server optimizer must do: move what is trained, leave the rest, and resume to the same bits."""

from __future__ import annotations

from typing import Any, ClassVar, final

import numpy as np

from umbel import optimize
from umbel.arrays import Arrays
from umbel.optimize import ServerOptimizer
from umbel.testing import samples
from umbel.testing.promise import Promise

_AN_OPTIMIZER = Promise("a server optimizer")
_require, _doing, _same = _AN_OPTIMIZER.require, _AN_OPTIMIZER.doing, _AN_OPTIMIZER.same


def check_optimizer(rule: Any, *, model: Arrays | None = None, steps: int = 4) -> None:
    """Check a server optimizer of one's own; strategies can then step with it.

    - it is a value, and so is its state: both can be written down and read back, and the run goes on to the same bits;
    - the same arguments give the same bits, and are not written to;
    - the trained entries stay finite, at first with an update of zeros, too; no update raises;
    - buffers become their mean, counters, frozen and local entries stay as they are;
    - if it says ``elementwise = True``, slices of a model step as the whole does.

    Args:
        rule: an object with ``init(model) -> state`` and ``step(model, delta, state) -> (model, state)``.
        model: what it steps; by default a small one with every dtype and role.
        steps: how many.

    Raises:
        AssertionError: says what the server optimizer must do.
    """
    with _doing("have init(model) and step(model, delta, state)"):
        optimizer = optimize.as_optimizer(rule)
    _AN_OPTIMIZER.written_down(optimizer, "be a value")
    start = (model if model is not None else _sample()).canonical()
    deltas = [_delta(start, seed) for seed in range(steps)]
    plain = _steps(optimizer, start, deltas)
    _check_steps(optimizer, start, deltas, plain)
    _check_roles(start, deltas[0], plain[0][0])
    _check_extremes(optimizer, start)
    if getattr(optimizer.rule, "elementwise", False):
        whole = _steps(ServerOptimizer(_AtOnce(optimizer.rule)), start, deltas)
        for (one, _), (other, _) in zip(plain, whole, strict=True):
            words = "step slices of a model as the whole, if it is elementwise (it may not look at other elements)"
            _same(one, other, words)


def _sample() -> Arrays:
    full = samples.model()
    large = {"large": np.random.default_rng(5).normal(size=9000).astype(np.float32)}  # more than one slice
    more = {"frozen": np.ones(3, np.float32), "own": np.ones(2, np.float32), "bytes": b"tree"}
    roles = {"frozen": "frozen", "own": "local"}
    return full.merge(Arrays(large | more, roles=roles))  # type: ignore[arg-type]  # these are roles


def _delta(model: Arrays, seed: int, scale: float = 0.1) -> Arrays:
    """A mean update as aggregators give it: 16-bit floats as float32."""
    rng = np.random.default_rng((11, seed))
    kept = [e for e in model.spec.entries if e.role in ("trained", "buffer")]
    wide = {e.name: np.float64 if e.dtype == "F64" else np.float32 for e in kept}
    values = {e.name: (scale * rng.normal(size=e.shape)).astype(wide[e.name]) for e in kept}
    return Arrays(values, roles={e.name: e.role for e in kept})


def _init(optimizer: ServerOptimizer, model: Arrays) -> Any:
    with _doing("make its state"):
        return optimizer.init(model)


def _step(optimizer: ServerOptimizer, model: Arrays, delta: Arrays, state: Any) -> tuple[Arrays, Any]:
    with _doing("step, even where NumPy's warnings are errors"), np.errstate(all="raise"):
        return optimizer.step(model, delta, state)


def _steps(optimizer: ServerOptimizer, model: Arrays, deltas: list[Arrays]) -> list[tuple[Arrays, Any]]:
    state, found = _init(optimizer, model), list[tuple[Arrays, Any]]()
    for delta in deltas:
        model, state = _step(optimizer, model, delta, state)
        found.append((model, state))
    return found


def _check_steps(
    optimizer: ServerOptimizer, start: Arrays, deltas: list[Arrays], plain: list[tuple[Arrays, Any]]
) -> None:
    model, state = start, _AN_OPTIMIZER.written_down(_init(optimizer, start), "have a state")
    for delta, (expected, _) in zip(deltas, plain, strict=True):
        before = (model.digest(), delta.digest(), _AN_OPTIMIZER.written_down(state, "have a state"))
        again, _ = _step(optimizer, model, delta, state)
        moved, later = _step(optimizer, model, delta, state)
        _same(again, moved, "give the same bits for the same model, update and state")
        _same((model.digest(), delta.digest(), state), before, "leave the model, the update and its state as they are")
        _same(moved, expected, "give the same bits when its state was written down and read back in between")
        model, state = moved, _AN_OPTIMIZER.written_down(later, "have a state")


def _check_roles(start: Arrays, delta: Arrays, moved: Arrays) -> None:
    for e in start.spec.entries:
        before, after = start[e.name], moved[e.name]
        if e.role == "trained":
            _require(bool(np.isfinite(after).all()), f"keep trained entries finite; {e.name!r} is not")
        elif e.role == "buffer":
            close = np.allclose(after, before + delta[e.name], rtol=1e-3)
            _require(close, f"give buffers their mean, model + delta; {e.name!r} has something else")
        else:
            kept = after == before if isinstance(after, bytes) else np.array_equal(after, before)
            _require(kept, f"leave {e.role} entries as they are; {e.name!r} has changed")


def _check_extremes(optimizer: ServerOptimizer, start: Arrays) -> None:
    still, _ = _step(optimizer, start, _delta(start, 0, scale=0.0), _init(optimizer, start))
    for e in start.spec.entries:
        if e.role == "trained":
            _require(bool(np.isfinite(still[e.name]).all()), f"take an update of zeros; it makes {e.name!r} not finite")
    for scale in (1e-30, 1e30):
        _step(optimizer, start, _delta(start, 0, scale=scale), _init(optimizer, start))


@final
class _AtOnce:
    """A rule that steps whole models, whatever the one inside says."""

    elementwise: ClassVar[bool] = False

    def __init__(self, rule: Any) -> None:
        self._rule = rule
        self.keeps_master = getattr(rule, "keeps_master", True)

    def init(self, model: Arrays, /) -> Any:
        return self._rule.init(model)

    def step(self, model: Arrays, delta: Arrays, state: Any, /) -> tuple[Arrays, Any]:
        moved, later = self._rule.step(model, delta, state)
        return moved, later


__all__ = ["check_optimizer"]
