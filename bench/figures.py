"""What is measured, against what it may be."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured number, and what it may be at most."""

    figure: str
    value: float
    unit: str
    budget: float | None = None
    detail: str = ""

    @property
    def within(self) -> bool:
        return self.budget is None or self.value <= self.budget


def report(measures: Iterable[Iterable[Figure]]) -> int:
    """Print each figure as it comes as one JSON line, then the table; 1 if one is over its budget, else 0."""
    found = []
    for figures in measures:
        for figure in figures:
            print(json.dumps({**asdict(figure), "within": figure.within}), flush=True)
            found.append(figure)
    print(f"\n{'figure':36}{'value':>10}  {'unit':10}{'budget':>8}")
    for figure in found:
        budget = "" if figure.budget is None else f"{figure.budget:g}"
        mark = "" if figure.within else "  over"
        print(f"{figure.figure:36}{figure.value:>10.4g}  {figure.unit:10}{budget:>8}{mark}")
    return 0 if all(figure.within for figure in found) else 1
