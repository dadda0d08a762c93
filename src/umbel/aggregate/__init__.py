"""How the updates of a cohort become one."""

from __future__ import annotations

from umbel.aggregate.base import Aggregator, Summing
from umbel.aggregate.concat import concat, split
from umbel.aggregate.expected import Expected
from umbel.aggregate.mean import mean
from umbel.aggregate.q_fair import q_fair
from umbel.aggregate.sum import sum  # umbel.aggregate.sum() reads as what it is

__all__ = ["Aggregator", "Expected", "Summing", "concat", "mean", "q_fair", "split", "sum"]
