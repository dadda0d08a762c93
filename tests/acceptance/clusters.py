"""A Ray cluster of two nodes on this machine, and runs on it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
import pytest

import umbel

MARKS = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray leaves its log files open
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}


@contextmanager
def two_nodes() -> Iterator[Any]:
    """Two nodes with one CPU each; this process is connected to it."""
    ray = import_module("ray")
    cluster = pytest.importorskip("ray.cluster_utils").Cluster(initialize_head=True, head_node_args=NODE)
    cluster.add_node(**NODE)
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
        gc.collect()  # so that files which Ray left open are nobody else's trouble


def inline(server: umbel.ServerApp, client: umbel.ClientApp, clients: Any, **arguments: Any) -> umbel.Result:
    """A run in this process."""
    return umbel.run(server, client, on=umbel.Simulation(clients=clients, engine="inline"), seed=11, **arguments)


def on_ray(server: umbel.ServerApp, client: umbel.ClientApp, clients: Any, **arguments: Any) -> umbel.Result:
    """The same run on the cluster."""
    return umbel.run(server, client, on=umbel.Ray(clients=clients), seed=11, **arguments)


def same(a: umbel.Result, b: umbel.Result) -> bool:
    """Are two runs the same in all that counts?"""
    assert a.model is not None
    assert b.model is not None
    counted = [{name: one.counted for name, one in result.clients.items()} for result in (a, b)]
    return a.model == b.model and a.history == b.history and a.failures == b.failures and counted[0] == counted[1]


def breaking(trouble: Any) -> umbel.ClientApp:
    """Clients with a state, that do this in the middle of their training."""
    client = umbel.ClientApp()

    @client.train
    def train(model: umbel.Arrays, ctx: Any) -> umbel.Update:
        ctx.state["n"] = ctx.state.get("n", 0) + 1
        trouble(ctx)
        x = (model["w"] * ctx.rng.random() + ctx.rng.random()).astype(np.float32)
        return umbel.Update(model={"w": x}, weight=ctx.rng.integers(1, 9), metrics={"n": ctx.state["n"]})

    return client
