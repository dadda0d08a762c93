"""Published algorithms, each a factory of a few lines."""

from __future__ import annotations

from umbel.strategies.base import Strategy
from umbel.strategies.fed_avg import fed_avg, fed_avgm
from umbel.strategies.fed_opt import fed_adagrad, fed_adam, fed_yogi
from umbel.strategies.fed_prox import fed_prox
from umbel.strategies.q_fed_avg import q_fed_avg

__all__ = ["Strategy", "fed_adagrad", "fed_adam", "fed_avg", "fed_avgm", "fed_prox", "fed_yogi", "q_fed_avg"]
