"""All metrics of a cohort, each by its rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from umbel.errors import UsageError
from umbel.metrics.base import Combiner, Result, Values
from umbel.metrics.function import as_combiner
from umbel.metrics.mean import Mean


def as_rules(metrics: Mapping[str, Any] | None) -> dict[str, Combiner]:
    """What ``metrics=`` holds, as a combiner for each metric.

    Raises:
        UsageError: a rule that says nothing, or two whose results have one name.
    """
    rules = {name: as_combiner(rule) for name, rule in (metrics or {}).items()}
    origin: dict[str, str] = {}
    for name, rule in rules.items():
        for key in rule.names(name):
            if key in origin:
                raise UsageError(
                    f"the rules for metrics {origin[key]!r} and {name!r} both give a result called {key!r}",
                    advice="leave one out, or rename one of the two metrics in the clients' code",
                )
            origin[key] = name
    return rules


def combine(
    rules: Mapping[str, Combiner],
    rows: Sequence[tuple[float, Mapping[str, float | npt.NDArray[Any]]]],
    *,
    warn: Callable[[str], object] = lambda _: None,
) -> dict[str, Result]:
    """Combine the metrics of a cohort.

    A metric that only some clients have is combined over those. One without a rule gets `mean`; a rule whose
    metric nobody has gives nothing. Where two results have one name, that of the rule that comes first counts, and a
    rule's counts before that of a metric without one: no client can displace, by what it calls a metric, what others
    are judged by.

    Args:
        rules: combiner by metric.
        rows: per client, in cohort order: the weight of its update, and its metrics.
        warn: is told, in words, what was left out.

    Returns:
        The results by name, in the order in which the metrics appear.

    Raises:
        UsageError: a metric whose shape differs between clients, or that is not made of numbers; names it.
    """
    found: dict[str, tuple[list[Any], list[float]]] = {}
    for weight, metrics in rows:
        for name, value in metrics.items():
            values, weights = found.setdefault(name, ([], []))
            values.append(value)
            weights.append(weight)
    combined: dict[str, Mapping[str, Result]] = {}
    origin: dict[str, str] = {}
    for name in dict.fromkeys((*rules, *found)):
        if name in found:
            values, weights = found[name]
            rule = rules.get(name, Mean())
            given = rule.combine(name, _stacked(name, values), np.array(weights, dtype=np.float64))
            for key in (key for key in given if key in origin):
                warn(f"{key!r} of the metric {name!r} is left out: {origin[key]!r} has a result of that name")
            combined[name] = {key: value for key, value in given.items() if key not in origin}
            origin |= dict.fromkeys(combined[name], name)
    return {key: value for name in found for key, value in combined[name].items()}


def _stacked(name: str, values: list[Any]) -> Values:
    """The clients' values along a first axis."""
    if set(map(type, values)) == {float}:  # as nearly all are; a look at each takes longer than all the rest
        return np.array(values)
    first = np.shape(values[0])
    other = next((np.shape(value) for value in values if np.shape(value) != first), None)
    if other is not None:
        raise UsageError(
            f"metric {name!r} has shape {first} for one client and {other} for another",
            advice="let all clients return the same shape, or call the metrics by different names",
        )
    stacked: npt.NDArray[Any] = np.array(values)
    if stacked.dtype.kind not in "biuf":
        raise UsageError(f"metric {name!r} is not made of numbers: {values[0]!r}", advice="return a float or an array")
    return np.ascontiguousarray(stacked, dtype=np.float64)


__all__ = ["as_rules", "combine"]
