"""The server's step."""

from __future__ import annotations

from umbel.optimize.adagrad import adagrad
from umbel.optimize.adam import adam
from umbel.optimize.base import OptimizerState, Rule, ServerOptimizer, as_optimizer
from umbel.optimize.momentum import momentum
from umbel.optimize.replace import replace
from umbel.optimize.sgd import sgd
from umbel.optimize.yogi import yogi

__all__ = [
    "OptimizerState",
    "Rule",
    "ServerOptimizer",
    "adagrad",
    "adam",
    "as_optimizer",
    "momentum",
    "replace",
    "sgd",
    "yogi",
]
