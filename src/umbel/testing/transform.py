"""What a `Transform` must do: work on any update that is lawful there, and keep what it declares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np

from umbel.aggregate import Aggregator, Summing, mean
from umbel.arrays import Arrays
from umbel.client.state import closed
from umbel.testing import samples
from umbel.testing.promise import Promise
from umbel.transforms import Chain, Facts, Released, Task, Transform
from umbel.update import Update

_A_TRANSFORM = Promise("a transform")
_require, _doing, _same = _A_TRANSFORM.require, _A_TRANSFORM.doing, _A_TRANSFORM.same


def check_transform(
    transform: Transform,
    *,
    model: Arrays | None = None,
    updates: Sequence[Update] | None = None,
    aggregator: Aggregator | None = None,
    before: Sequence[Transform] = (),
) -> None:
    """Check a transform of one's own; strategies can then carry it.

    - it is a value: it, its state at the server and its state at a client can be written down and read back;
    - the same update, task and random bytes give the same update, to the bit: a task may be done again;
    - it writes to nothing that it is given, and leaves metrics alone;
    - what leaves the client is what it ``expects`` to leave, and what it ingests can be folded;
    - it gives what it declares: "bounded" updates do not grow with what comes in, "integer" ones are whole numbers,
      "uniform" ones all have one weight;
    - on the server it works on a cohort of nobody, and a released sum has the entries that it had.

    Args:
        transform: the one to check.
        model: what clients train; by default a small one with every dtype and role but buffers.
        updates: changes of that model, or values; by default drawn ones.
        aggregator: what stands behind it; by default a uniform mean.
        before: transforms that stand in front of it, for what it needs.

    Raises:
        AssertionError: says what the transform must do.
    """
    _require(isinstance(transform, Transform), f"derive from umbel.transforms.Transform, not be {transform!r}")
    _A_TRANSFORM.written_down(transform, "be a value")
    bench = _Bench(transform, model, updates, aggregator or mean(uniform=True), before)
    bench.check_client()
    bench.check_traits()
    bench.check_rounds()
    bench.check_nobody()


@final
class _Bench:
    """A transform in its place, with updates that reach it there."""

    def __init__(
        self,
        transform: Transform,
        model: Arrays | None,
        updates: Sequence[Update] | None,
        aggregator: Aggregator,
        before: Sequence[Transform],
    ) -> None:
        self._transform, self._aggregator = transform, aggregator
        values = updates is not None and all(update.kind == "value" for update in updates)
        full = model if model is not None else samples.model().select(lambda e: e.role != "buffer")
        self._sent = None if values else full
        given = updates if updates is not None else samples.updates(full)
        self._chain = Chain((*before, transform))
        self._facts = Facts(rounds=3, population=10, spec=full.spec, rate=0.5)
        with _doing("stand in this chain, with this aggregator"):
            self._chain.check_order(aggregator)
            self._chain.check(self._facts)
        self._expected = aggregator.expects(self._sent)
        self._front = Chain(tuple(before))
        self._plans = self._front.plan(self._front.init(self._facts), 1)
        deltas = [self._expected.as_delta(self._sent, update) for update in given]
        self._updates = [self._front.client(delta, self._plans, _task(i)) for i, delta in enumerate(deltas)]
        self._arriving = self._front.expects(self._expected)
        with _doing("make its state"):
            self._state = transform.init(self._facts)
        self._plan = self._planned(self._state, 1)

    def _planned(self, state: Any, number: int) -> Arrays | None:
        state = _A_TRANSFORM.written_down(state, "have a state")
        with _doing("plan a round"):
            plan, again = self._transform.plan(state, number), self._transform.plan(state, number)
        _require(plan is None or isinstance(plan, Arrays), f"plan with umbel.Arrays or None, not {plan!r}")
        _same(plan, again, "plan the same when it is asked again")
        return plan

    def _client(self, update: Update, i: int, state: dict[str, Any] | None = None) -> Update:
        with _doing("change an update that is lawful there"):
            changed = self._transform.client(update, self._plan, _task(i, state))
        _require(isinstance(changed, Update), f"return an update from client, not {changed!r}")
        return changed

    def check_client(self) -> None:
        """One update: untouched, the same when done again, as declared, and kept state that can be kept."""
        for i, update in enumerate(self._updates):
            before = _shown(update)
            state: dict[str, Any] = {}
            changed = self._client(update, i, state)
            _require(_shown(update) == before, "leave the update that it is given as it is, and return another")
            _require(changed.kind == update.kind, f"return a {update.kind} for a {update.kind}, not a {changed.kind}")
            _require(changed.metrics == update.metrics, "leave the metrics alone")
            kept: dict[str, Any] = {}
            again = self._client(update, i, kept)
            _same(again.arrays, changed.arrays, "give the same bits when a task is done again")
            _require(again.weight == changed.weight, "give the same weight when a task is done again")
            with _doing("keep numbers, text, bytes and arrays at a client"):
                closed({f"chain.{name}": value for name, value in state.items()})
            with _doing("send what it says in expects"):
                self._transform.expects(self._arriving).check(changed)
            self._client(update, i, state)

    def check_traits(self) -> None:
        """What it says is true of an update behind it."""
        gives, changed = self._transform.gives, [self._client(u, i) for i, u in enumerate(self._updates)]
        if "uniform" in gives:
            _require(len({u.weight for u in changed}) == 1, "give each update one weight, if it gives uniform")
        if "integer" in gives:
            numbers = (np.asarray(u.arrays[e.name]) for u in changed for e in u.arrays.spec.entries)
            _require(all(np.array_equal(x, np.rint(x)) for x in numbers), "give whole numbers, if it gives integer")
        if "bounded" in gives:
            large, huge = (self._client(_scaled(self._updates[0], by), 0).arrays.norm() for by in (1e4, 1e8))
            _require(
                huge <= large * 1.001,
                f"bound the norm of an update, if it gives bounded: updates of 1e4 and 1e8 have {large:g}, {huge:g}",
            )

    def check_rounds(self) -> None:
        """Three rounds of the whole chain, with states that are written down in between."""

        def run(keep: Callable[[Any], Any]) -> list[Arrays | None]:
            state, clients, results = self._state, [dict[str, Any]() for _ in self._updates], list[Arrays | None]()
            for number in (1, 2, 3):
                self._plan = self._planned(state, number)
                acc = self._aggregator.init(self._sent)
                for i, update in enumerate(self._updates):
                    acc = self._aggregator.fold(acc, self._ingested(self._client(update, i, clients[i])), self._sent)
                acc, state = self._released(acc, state, tuple(str(i) for i in range(len(self._updates))))
                state = keep(state)
                results.append(self._aggregator.finish(acc))
            return results

        plain = run(lambda state: state)
        kept = run(lambda state: _A_TRANSFORM.written_down(state, "have a state"))
        for one, other in zip(plain, kept, strict=True):
            _same(one, other, "give the same bits when its state was written down between the rounds")
        self._plan = self._planned(self._state, 1)

    def check_nobody(self) -> None:
        """A cohort of nobody is lawful."""
        if self._sent is not None:
            self._released(self._aggregator.init(self._sent), self._state, ())

    def _ingested(self, update: Update) -> Update:
        before = _shown(update)
        with _doing("take in what its own client side sent"):
            arrived = self._transform.ingest(update, self._plan)
        _require(isinstance(arrived, Update), f"return an update from ingest, not {arrived!r}")
        _require(_shown(update) == before, "leave the update that it ingests as it is, and return another")
        with _doing("give an update that fits what stands in front of it, and can be folded"):
            self._arriving.check(arrived)
            arrived = self._front.ingest(arrived, self._plans)
            self._aggregator.admit(self._aggregator.init(self._sent), arrived)
        return arrived

    def _released(self, acc: Any, state: Any, clients: tuple[str, ...]) -> tuple[Any, Any]:
        if not (isinstance(self._aggregator, Summing) and acc.total is not None):
            return acc, state
        spec = acc.total.spec
        summed = Released(total=acc.total.freeze(), weight=acc.weight, clients=clients)
        with _doing(f"release the sum over {len(clients)} clients"):
            summed, state = self._transform.release(summed, self._plan, state, _bytes)
        _require(isinstance(summed, Released), f"return (released, state) from release, not {summed!r}")
        text = spec.difference(summed.total.spec)
        _require(not text, f"release a sum with the entries that it was given: {text}")
        acc.total, acc.weight = summed.total, summed.weight
        return acc, state


def _bytes(count: int) -> bytes:
    """Stands for the cryptographic generator, so that results can be compared."""
    return np.random.default_rng(count).bytes(count)


def _task(i: int, state: dict[str, Any] | None = None) -> Task:
    return Task(client=str(i), round=1, key=7 + i, noise=_bytes, state={} if state is None else state)


def _shown(update: Update) -> tuple[Any, ...]:
    extra = {name: arrays.digest() for name, arrays in update.extra.items()}
    return update.arrays.digest(), update.kind, update.weight, dict(update.metrics), extra


def _scaled(update: Update, by: float) -> Update:
    wide = update.arrays.astype("F64")
    length = wide.norm() or 1.0
    scaled = wide * (by / length)
    return update.replace(update.arrays.with_values({e.name: scaled[e.name] for e in wide.spec.entries if e.size}))


__all__ = ["check_transform"]
