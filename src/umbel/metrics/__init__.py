"""How clients' metrics combine."""

from __future__ import annotations

from umbel.metrics.base import Combiner
from umbel.metrics.combine import as_rules, combine
from umbel.metrics.extremes import maximum, minimum, worst
from umbel.metrics.function import as_combiner, of
from umbel.metrics.mean import mean
from umbel.metrics.quantiles import quantiles
from umbel.metrics.sum import sum

__all__ = [
    "Combiner",
    "as_combiner",
    "as_rules",
    "combine",
    "maximum",
    "mean",
    "minimum",
    "of",
    "quantiles",
    "sum",
    "worst",
]
