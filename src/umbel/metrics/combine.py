"""All metrics of a cohort, each by its rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from umbel.errors import UsageError
from umbel.metrics.base import Combiner, Result, Values
from umbel.metrics.mean import Mean


def combine(
    rules: Mapping[str, Combiner], rows: Sequence[tuple[float, Mapping[str, float | npt.NDArray[Any]]]]
) -> dict[str, Result]:
    """Combine the metrics of a cohort.

    A metric that only some clients have is combined over those. One without a rule gets `mean`; a rule whose
    metric nobody has gives nothing.

    Args:
        rules: combiner by metric.
        rows: per client, in cohort order: the weight of its update, and its metrics.

    Returns:
        The results by name, in the order in which the metrics appear.

    Raises:
        UsageError: a metric whose shape differs between clients, that is not made of numbers, or two metrics
            whose results have one name; names the metric.
    """
    found: dict[str, tuple[list[Any], list[float]]] = {}
    for weight, metrics in rows:
        for name, value in metrics.items():
            values, weights = found.setdefault(name, ([], []))
            values.append(value)
            weights.append(weight)
    results: dict[str, Result] = {}
    origin: dict[str, str] = {}
    for name, (values, weights) in found.items():
        rule = rules.get(name, Mean())
        for key, value in rule.combine(name, _stacked(name, values), np.array(weights, dtype=np.float64)).items():
            if key in results:
                raise UsageError(
                    f"metrics {origin[key]!r} and {name!r} both give a result called {key!r}",
                    advice="rename one of the two in the clients' code",
                )
            results[key], origin[key] = value, name
    return results


def _stacked(name: str, values: list[Any]) -> Values:
    """The clients' values along a first axis."""
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


__all__ = ["combine"]
