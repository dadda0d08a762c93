"""Umbel: federated learning. Train AI models on data that cannot move, by moving the model to the data.

The first program is in the README; every public name is in docs/reference.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

from umbel import aggregate, errors, metrics, optimize, partition, sample, schedule, transforms
from umbel.api import Evaluation, evaluate, run
from umbel.arrays import Arrays
from umbel.client.app import ClientApp
from umbel.client.context import Context
from umbel.engine.app import ServerApp
from umbel.engine.checkpoint import Checkpoint, EarlyStopping
from umbel.engine.federation import Federation
from umbel.errors import UmbelError
from umbel.policy import evaluation, rounds
from umbel.result import Result
from umbel.simulation.simulation import Simulation
from umbel.spec import entries
from umbel.strategies import Strategy, fed_adagrad, fed_adam, fed_avg, fed_avgm, fed_prox, fed_yogi, q_fed_avg
from umbel.update import Metrics, Update

if TYPE_CHECKING:
    from umbel import sklearn, torch

# loaded on first touch: a framework is never imported unless the user did
_ADAPTERS = ("sklearn", "torch")


def __getattr__(name: str) -> Any:
    if name in _ADAPTERS:
        return importlib.import_module(f"umbel.{name}")
    raise AttributeError(f"module 'umbel' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ADAPTERS})


__all__ = [
    "Arrays",
    "Checkpoint",
    "ClientApp",
    "Context",
    "EarlyStopping",
    "Evaluation",
    "Federation",
    "Metrics",
    "Result",
    "ServerApp",
    "Simulation",
    "Strategy",
    "UmbelError",
    "Update",
    "aggregate",
    "entries",
    "errors",
    "evaluate",
    "evaluation",
    "fed_adagrad",
    "fed_adam",
    "fed_avg",
    "fed_avgm",
    "fed_prox",
    "fed_yogi",
    "metrics",
    "optimize",
    "partition",
    "q_fed_avg",
    "rounds",
    "run",
    "sample",
    "schedule",
    "sklearn",
    "torch",
    "transforms",
]
