"""Umbel: federated learning. Train AI models on data that cannot move, by moving the model to the data.

The first program is in the README; every public name is in docs/reference.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from umbel.version import __version__

if TYPE_CHECKING:
    from umbel import aggregate, errors, metrics, optimize, partition, sample, schedule, transforms
    from umbel import jax as jax
    from umbel import sklearn as sklearn
    from umbel import torch as torch
    from umbel.api import Evaluation, evaluate, run
    from umbel.arrays import Arrays
    from umbel.client.app import ClientApp
    from umbel.client.context import Context
    from umbel.engine.app import ServerApp
    from umbel.engine.checkpoint import Checkpoint, EarlyStopping
    from umbel.engine.federation import Federation
    from umbel.errors import UmbelError
    from umbel.policy import evaluation, rounds
    from umbel.remote.remote import connect
    from umbel.result import Result
    from umbel.simulation.ray_engine import Ray
    from umbel.simulation.simulation import Simulation
    from umbel.spec import entries
    from umbel.strategies.base import Strategy
    from umbel.strategies.fed_avg import fed_avg, fed_avgm
    from umbel.strategies.fed_opt import fed_adagrad, fed_adam, fed_yogi
    from umbel.strategies.fed_prox import fed_prox
    from umbel.strategies.q_fed_avg import q_fed_avg
    from umbel.update import Metrics, Update

# Where each name comes from. It is loaded when it is first touched: that keeps `import umbel` quick, and a
# framework is never imported unless the user did.
_HOMES = {
    "": "aggregate errors jax metrics optimize partition sample schedule sklearn torch transforms",
    ".api": "Evaluation evaluate run",
    ".arrays": "Arrays",
    ".client.app": "ClientApp",
    ".client.context": "Context",
    ".engine.app": "ServerApp",
    ".engine.checkpoint": "Checkpoint EarlyStopping",
    ".engine.federation": "Federation",
    ".errors": "UmbelError",
    ".policy": "evaluation rounds",
    ".result": "Result",
    ".remote.remote": "connect",
    ".simulation.ray_engine": "Ray",
    ".simulation.simulation": "Simulation",
    ".spec": "entries",
    ".strategies": "Strategy fed_adagrad fed_adam fed_avg fed_avgm fed_prox fed_yogi q_fed_avg",
    ".update": "Metrics Update",
}
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'umbel' has no attribute {name!r}")
    home = _HOME[name]
    value = getattr(import_module(f"umbel{home}"), name) if home else import_module(f"umbel.{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})


__all__ = [
    "Arrays",
    "Checkpoint",
    "ClientApp",
    "Context",
    "EarlyStopping",
    "Evaluation",
    "Federation",
    "Metrics",
    "Ray",
    "Result",
    "ServerApp",
    "Simulation",
    "Strategy",
    "UmbelError",
    "Update",
    "__version__",
    "aggregate",
    "connect",
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
    "transforms",
]
