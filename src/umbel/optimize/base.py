"""The server's step: a rule for the trained entries, and what makes it one for whole models.

A *rule* is a value with ``init(model) -> state`` and ``step(model, delta, state) -> (model, state)``. It is written
for `Arrays`. One that declares ``elementwise = True`` promises that each element of its results depends on the same
element of its arguments alone; it is then called with flat NumPy slices instead, for large models in several threads,
so that what it computes on the way stays in the cache. The same text does for both, since both have NumPy's operators
and functions.

Copies of a model array in a step: the new model, and each array of the new state, written once.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Protocol, final

import numpy as np

from umbel.arrays import Array, Arrays
from umbel.elements import is_harmless
from umbel.errors import UsageError
from umbel.optimize.precision import (
    Piece,
    check_delta,
    current,
    master_spec,
    pieces,
    wide_delta,
    wide_model,
    wide_spec,
    widened,
    write,
)
from umbel.optimize.tree import leaves, remade
from umbel.spec import FLOATS, STORAGE, Spec
from umbel.spread import in_parts

SLICE = 1 << 17  # elements; with less, threads get into each other's way, with more, the cache is left


class Rule(Protocol):
    """How the trained entries move; see the head of this module.

    A class may add ``elementwise = True``, and ``keeps_master = False`` if 16-bit models need no float32 master.
    """

    def init(self, model: Arrays, /) -> Any:
        """The state before the first step: dataclasses, tuples and dictionaries of Arrays and numbers.

        Args:
            model: the trained entries; 16-bit floats as float32.
        """

    def step(self, model: Arrays, delta: Arrays, state: Any, /) -> tuple[Arrays, Any]:
        """One step.

        Args:
            model: the trained entries; 16-bit floats as float32.
            delta: their mean update, of the same names, shapes and dtypes.
            state: what ``init`` or the last step returned.

        Returns:
            The new model and the new state. The arguments are read-only.
        """


@final
@dataclass(frozen=True, slots=True)
class OptimizerState:
    """What a server optimizer remembers from round to round.

    Attributes:
        rule: the rule's own state.
        master: float32 values of the trained entries that travel in 16 bits; None if there are none.
    """

    rule: Any
    master: Arrays | None = None


@final
@dataclass(frozen=True, slots=True)
class ServerOptimizer:
    """The server's step for whole models.

    The rule moves the trained entries. Buffers become model + delta, the mean of what the clients have. Frozen
    entries, counters, payloads and local entries keep the server's value.

    Trained entries that travel as bfloat16 or float16 have a float32 master in the state; the model that is returned
    is the master, rounded. Where the model was changed between two steps, the model's value counts and not the
    master's.

    Attributes:
        rule: how the trained entries move.
    """

    rule: Rule

    def init(self, model: Arrays) -> OptimizerState:
        """The state before the first step."""
        model = model.canonical()
        wide = wide_model(model)
        with np.errstate(all="ignore"):
            return OptimizerState(self.rule.init(wide), _part(wide, self._master_spec(model.spec)))

    def step(self, model: Arrays, delta: Arrays, state: OptimizerState) -> tuple[Arrays, OptimizerState]:
        """One step along the mean client update.

        Overflow makes infinities and NaN, which the engine finds; no warning is given.

        Args:
            model: the model that was sent.
            delta: the mean update, by the model's names: trained entries and buffers, 16-bit ones as float32.
                Other entries may be missing, and are ignored.
            state: what ``init`` or the last step returned.

        Returns:
            The new model, in Umbel's own layout, and the new state. Nothing is written to the arguments.

        Raises:
            EntryError: the update does not fit the model; names the entry.
            UsageError: the state is another model's, or the rule returned something else than it should.
        """
        model, delta = model.canonical(), delta.canonical()
        check_delta(model.spec, delta.spec)
        _check_master(state.master, self._master_spec(model.spec))
        with np.errstate(all="ignore"):
            if getattr(self.rule, "elementwise", False):
                return _step_in_slices(self.rule, model, delta, state)
            return _step_at_once(self.rule, model, delta, state)

    def _master_spec(self, model: Spec) -> Spec | None:
        return master_spec(model) if getattr(self.rule, "keeps_master", True) else None


def as_optimizer(rule: Any) -> ServerOptimizer:
    """A server optimizer from what a user has: one of ours, or any object with ``init`` and ``step``.

    Raises:
        UsageError: it has no ``init`` and ``step``, or is a class or a factory that was not called.
    """
    if isinstance(rule, ServerOptimizer):
        return rule
    if isinstance(rule, type) or inspect.isfunction(rule):
        raise UsageError(f"{rule.__name__} was not called", advice=f"write {rule.__name__}()")
    if not (callable(getattr(rule, "init", None)) and callable(getattr(rule, "step", None))):
        raise UsageError(
            f"{rule!r} is no server optimizer",
            advice="take umbel.optimize.adam(), or an object with init(model) and step(model, delta, state)",
        )
    return ServerOptimizer(rule)


def _step_at_once(rule: Rule, model: Arrays, delta: Arrays, state: OptimizerState) -> tuple[Arrays, OptimizerState]:
    spec = wide_spec(model.spec)
    moved, later = rule.step(wide_model(model, state.master), wide_delta(delta, spec), state.rule)
    difference = spec.difference(moved.spec, roles=False) if isinstance(moved, Arrays) else "it is not Arrays"
    if difference:
        raise UsageError(
            f"the model that {rule!r} returned does not fit the one it was given: {difference}",
            advice="return (model, state) from step, the model with the names, shapes and dtypes that it had",
        )

    def fill(name: str, out: Array) -> None:
        e = model.spec.by_name[name]
        if e.role == "trained":
            write(moved.raw(name), e.dtype, out)
        else:
            _fill_untrained(name, model, delta, out)

    master = _part(moved, state.master.spec if state.master is not None else None)
    return Arrays.build(model.spec, fill), OptimizerState(later, master)


def _step_in_slices(rule: Rule, model: Arrays, delta: Arrays, state: OptimizerState) -> tuple[Arrays, OptimizerState]:
    spec = wide_spec(model.spec)
    old = leaves(state.rule)
    _check_leaves(rule, old, spec)
    new = [Arrays.blank(spec) if isinstance(leaf, Arrays) else leaf for leaf in old]
    made = Arrays.blank(model.spec)
    master = Arrays.blank(state.master.spec) if state.master is not None else None
    harmless = True
    for piece in pieces(model.spec, delta.spec, master.spec if master is not None else None):
        places = _places(piece, model, state.master, delta, old), _places(piece, made, master, None, new)
        harmless = _walk(rule, piece, state.rule, *places) and harmless
        new = [n if isinstance(n, Arrays) else leaf for n, leaf in zip(new, places[1].leaves, strict=True)]
    for e in model.spec.entries:
        if e.role != "trained":
            harmless = _fill_untrained(e.name, model, delta, made.raw(e.name)) and harmless
    for arrays in (made, master, *new):
        if isinstance(arrays, Arrays):
            arrays.freeze().harmless = harmless
    return made, OptimizerState(remade(state.rule, iter(new)), master)


@final
@dataclass(slots=True)
class _Places:
    """One piece of everything that a step reads or writes, as flat arrays; leaves may also be numbers."""

    model: Array
    master: Array | None
    delta: Array | None
    leaves: list[Any]


def _places(piece: Piece, model: Arrays, master: Arrays | None, delta: Arrays | None, state: list[Any]) -> _Places:
    return _Places(
        model.stretch(piece.model, piece.size, piece.dtype),
        master.stretch(piece.master, piece.size, "F32") if master is not None and piece.master >= 0 else None,
        delta.stretch(piece.delta, piece.size, piece.delta_dtype) if delta is not None else None,
        [
            leaf.stretch(piece.wide, piece.size, piece.wide_dtype) if isinstance(leaf, Arrays) else leaf
            for leaf in state
        ],
    )


def _walk(rule: Any, piece: Piece, tree: Any, old: _Places, new: _Places) -> bool:
    """Step through one piece, slice by slice, from the old places to the new ones. Is all that was written harmless?"""
    wide = STORAGE[piece.wide_dtype]
    written = [new.model, *(leaf for leaf in new.leaves if isinstance(leaf, np.ndarray))]
    assert old.delta is not None
    delta = old.delta

    def step(s: slice) -> bool:
        x = current(old.model[s], piece.dtype, old.master[s] if old.master is not None else None)
        change = widened(delta[s], piece.delta_dtype).astype(wide, copy=False)
        state = remade(tree, iter([leaf[s] if isinstance(leaf, np.ndarray) else leaf for leaf in old.leaves]))
        moved, later = rule.step(x, change, state)
        write(moved, piece.dtype, new.model[s])
        if new.master is not None:
            write(moved, "F32", new.master[s])
        _keep(rule, leaves(later), new.leaves, s)
        return all(is_harmless(array[s]) for array in written)

    def step_through(part: slice) -> bool:
        looked = [step(slice(i, min(i + SLICE, part.stop))) for i in range(part.start, part.stop, SLICE)]
        return all(looked)

    return in_parts(piece.size, step_through)


def _keep(rule: Any, later: list[Any], kept: list[Any], s: slice) -> None:
    """Write the arrays of a slice's new state to their place; numbers are the same for every slice."""
    if len(later) != len(kept):
        raise UsageError(
            f"the state that {rule!r} returned has {len(later)} parts, the one it was given {len(kept)}",
            advice="return from step a state made like the one of init",
        )
    for i, leaf in enumerate(later):
        if isinstance(kept[i], np.ndarray):
            np.copyto(kept[i][s], leaf, casting="same_kind")
        elif isinstance(leaf, np.ndarray):
            raise UsageError(
                f"the state that {rule!r} returned has an array where {kept[i]!r} was before",
                advice="let init make all the arrays of the state, for example as model.zeros()",
            )
        else:
            kept[i] = leaf


def _fill_untrained(name: str, model: Arrays, delta: Arrays, out: Array) -> bool:
    """Write an entry that is not trained. Is what was written harmless?"""
    e = model.spec.by_name[name]
    if e.role != "buffer":
        np.copyto(out, model.raw(name))
    else:
        mean = widened(model.raw(name), e.dtype) + widened(delta.raw(name), delta.spec.by_name[name].dtype)
        write(mean, e.dtype, out)
    return e.dtype not in FLOATS or is_harmless(out)


def _part(arrays: Arrays, spec: Spec | None) -> Arrays | None:
    """Those entries that ``spec`` has."""
    if spec is None or arrays.spec == spec:
        return arrays if spec is not None else None
    return Arrays.build(spec, lambda name, out: np.copyto(out, arrays.raw(name)))


def _check_master(master: Arrays | None, wanted: Spec | None) -> None:
    if (master.spec if master is not None else None) != wanted:
        raise UsageError(
            "the optimizer's state belongs to a model with other 16-bit entries",
            advice="call init(model) when the model's entries, dtypes or roles change",
        )


def _check_leaves(rule: Any, state: list[Any], spec: Spec) -> None:
    for leaf in state:
        if isinstance(leaf, np.ndarray):
            raise UsageError(
                f"the state of {rule!r} holds a NumPy array",
                advice="an elementwise rule remembers Arrays shaped like the model, and numbers",
            )
        if isinstance(leaf, Arrays) and leaf.spec != spec:
            raise UsageError(
                f"the state of {rule!r} does not fit the trained entries of the model: "
                f"{spec.difference(leaf.spec) or 'another layout'}",
                advice="call init(model) when the model changes; an elementwise rule's arrays are made like the model",
            )


__all__ = ["OptimizerState", "Rule", "ServerOptimizer", "as_optimizer"]
