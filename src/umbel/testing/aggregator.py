"""What an `Aggregator` must do: fold in any grouping to the same result, and leave what it is given alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from umbel import optimize
from umbel.aggregate import Aggregator, Summing
from umbel.aggregate.expected import FOLDED, Expected
from umbel.aggregate.weighted_sum import WeightedSum
from umbel.arrays import Arrays
from umbel.errors import BadUpdate
from umbel.spec import FLOATS
from umbel.testing import samples
from umbel.testing.promise import Promise
from umbel.update import Update

_AN_AGGREGATOR = Promise("an aggregator")
_require, _doing = _AN_AGGREGATOR.require, _AN_AGGREGATOR.doing


def check_aggregator(
    aggregator: Aggregator, *, sent: Arrays | None = None, updates: Sequence[Update] | None = None
) -> None:
    """Check an aggregator of one's own; it then gives the same result whoever folds what.

    - it accepts the updates, and refuses a NaN, as ``expects`` says;
    - partial folds merge, in every grouping, to the fold of the whole, up to rounding; an empty one changes nothing;
    - the same folds in the same order give the same bits, also after an accumulator was written down and read back;
    - updates and the model that was sent are not written to, and no accumulator holds what another one got;
    - of models, the result moves the trained entries and buffers, which a server optimizer can take;
    - if it is `uniform`, weights change nothing; if it is `Summing`, what a transform releases is what is divided;
    - it is a value: it can be written down and read back.

    Args:
        aggregator: the one to check.
        sent: the model that was sent. By default a small one with every dtype and role, unless ``updates`` are values.
        updates: at least three that it accepts, in cohort order; by default drawn ones.

    Raises:
        AssertionError: says what the aggregator must do.
    """
    _require(isinstance(aggregator, Aggregator), f"derive from umbel.aggregate.Aggregator, not be {aggregator!r}")
    if sent is None and (updates is None or any(update.kind != "value" for update in updates)):
        sent = samples.model()
    given = list(updates) if updates is not None else samples.updates(sent) if sent is not None else samples.values()
    _require(len(given) >= 3, "be given at least three updates")
    _AN_AGGREGATOR.written_down(aggregator, "be a value")
    _check_expects(aggregator, sent, given)
    _check_untouched(aggregator, sent, given)
    _check_result(aggregator, sent, given)
    _check_groupings(aggregator, sent, given)
    _check_repeated(aggregator, sent, given)
    _check_traits(aggregator, sent, given)


def _fold(aggregator: Aggregator, sent: Arrays | None, updates: Sequence[Update], *, written_down: bool = False) -> Any:
    acc = aggregator.init(sent)
    for update in updates:
        with _doing("admit and fold an update that it expects"):
            aggregator.admit(acc, update)
            acc = aggregator.fold(acc, update, sent)
        if written_down:
            acc = _AN_AGGREGATOR.written_down(acc, "have an accumulator")
    return acc


def _finished(aggregator: Aggregator, acc: Any) -> Arrays | None:
    with _doing("finish"):
        result = aggregator.finish(acc)
    _require(result is None or isinstance(result, Arrays), f"finish with umbel.Arrays or None, not {result!r}")
    return result


def _check_expects(aggregator: Aggregator, sent: Arrays | None, updates: Sequence[Update]) -> None:
    with _doing("say what it expects"):
        expected = aggregator.expects(sent)
    _require(isinstance(expected, Expected), f"say with an umbel.aggregate.Expected what it expects, not {expected!r}")
    for update in updates:
        with _doing("expect the updates that it is given"):
            expected.check(update)
    if expected.finite:
        floats = [e.name for e in updates[0].arrays.spec.entries if e.role in FOLDED and e.size]
        broken = updates[0].arrays.with_values({n: np.full(updates[0].arrays[n].shape, np.nan) for n in floats[:1]})
        _require(not floats or _refused(expected, updates[0].replace(broken)), "refuse NaN, if it says that it does")


def _refused(expected: Expected, update: Update) -> bool:
    try:
        expected.check(update)
    except BadUpdate:
        return True
    return False


def _check_result(aggregator: Aggregator, sent: Arrays | None, updates: Sequence[Update]) -> None:
    _finished(aggregator, aggregator.init(sent))
    result = _finished(aggregator, _fold(aggregator, sent, updates))
    _require(result is not None, "have a result when updates with a weight were folded")
    if sent is not None and result is not None:
        step = optimize.as_optimizer(optimize.sgd(lr=1.0))
        with _doing("give each trained entry and buffer of the model its mean change, and nothing else"):
            step.step(sent, result, step.init(sent))


def _check_groupings(aggregator: Aggregator, sent: Arrays | None, updates: Sequence[Update]) -> None:
    whole = _finished(aggregator, _fold(aggregator, sent, updates))

    def merged(*groups: Sequence[Update]) -> Any:
        first, *rest = [_fold(aggregator, sent, group) for group in groups]
        for acc in rest:
            with _doing("merge two accumulators"):
                first = aggregator.merge(first, acc)
        return first

    for cut in range(len(updates) + 1):
        words = f"merge the fold of {cut} and that of {len(updates) - cut} updates to the fold of the whole"
        _AN_AGGREGATOR.close(_finished(aggregator, merged(updates[:cut], updates[cut:])), whole, words)
    one, two, three = updates[:1], updates[1:2], updates[2:]
    left = merged(one, two, three)
    right = aggregator.merge(_fold(aggregator, sent, one), merged(two, three))
    words = "merge associatively: (a + b) + c as a + (b + c)"
    _AN_AGGREGATOR.close(_finished(aggregator, left), _finished(aggregator, right), words)


def _check_repeated(aggregator: Aggregator, sent: Arrays | None, updates: Sequence[Update]) -> None:
    first, second = (_finished(aggregator, _fold(aggregator, sent, updates)) for _ in range(2))
    _AN_AGGREGATOR.same(first, second, "give the same bits for the same updates in the same order")
    kept = _finished(aggregator, _fold(aggregator, sent, updates, written_down=True))
    _AN_AGGREGATOR.same(first, kept, "give the same bits when its accumulator was written down after each fold")


def _check_untouched(aggregator: Aggregator, sent: Arrays | None, updates: Sequence[Update]) -> None:
    def state() -> list[Any]:
        arrays = [a.digest() for u in updates for a in (u.arrays, *u.extra.values())]
        rest = [(u.kind, u.weight, sorted(u.metrics), sorted(u.extra)) for u in updates]
        return [*arrays, *rest, sent.digest() if sent is not None else None]

    before, aside = state(), aggregator.init(sent)
    empty = _finished(aggregator, aggregator.init(sent))
    _fold(aggregator, sent, updates)
    _require(state() == before, "leave the updates and the model that was sent as they are")
    words = "keep nothing in an accumulator but what was folded into it"
    _AN_AGGREGATOR.same(_finished(aggregator, aside), empty, words)


def _check_traits(aggregator: Aggregator, sent: Arrays | None, updates: Sequence[Update]) -> None:
    whole = _finished(aggregator, _fold(aggregator, sent, updates))
    if aggregator.uniform:
        heavier = [update.replace(weight=3.0 + i) for i, update in enumerate(updates)]
        other = _finished(aggregator, _fold(aggregator, sent, heavier))
        _AN_AGGREGATOR.same(whole, other, "take no notice of weights, if it says that it is uniform")
    if isinstance(aggregator, Summing):
        acc = _fold(aggregator, sent, updates)
        _require(isinstance(acc, WeightedSum), "accumulate a WeightedSum, if it is Summing")
        acc.total = acc.total * 0.0
        left = _finished(aggregator, acc)
        floats = [e.name for e in acc.total.spec.entries if e.dtype in FLOATS]
        still = left is None or not any(np.any(left[name]) for name in floats if name in left)
        _require(still, "finish with what transforms left in the accumulator, if it is Summing")


__all__ = ["check_aggregator"]
