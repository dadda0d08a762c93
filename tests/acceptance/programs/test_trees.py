"""Payloads of varying size: every client grows a tree, and the forest is all of them, joined."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-subclassing-any, no-check-untyped-defs
from __future__ import annotations

import json

import numpy as np

import umbel


def grow(x, y, depth):
    """A decision tree as nested lists: [feature, threshold, left, right], or the share of ones."""
    if depth == 0 or y.min() == y.max():
        return float(y.mean())
    cuts = [
        (_impurity(x[:, f], y, t), f, float(t)) for f in range(x.shape[1]) for t in np.quantile(x[:, f], [0.3, 0.7])
    ]
    _, feature, threshold = min(cuts)
    left = x[:, feature] <= threshold
    if left.all() or not left.any():
        return float(y.mean())
    return [feature, threshold, grow(x[left], y[left], depth - 1), grow(x[~left], y[~left], depth - 1)]


def _impurity(column, y, threshold):
    sides = [y[column <= threshold], y[column > threshold]]
    return sum(len(side) * side.var() for side in sides if len(side))


def predict(tree, x):
    if isinstance(tree, float):
        return tree
    feature, threshold, left, right = tree
    return predict(left if x[feature] <= threshold else right, x)


def sample(rng, n):
    x = rng.normal(size=(n, 3))
    return x, (x[:, 0] * x[:, 1] > 0).astype(float)


client = umbel.ClientApp()


@client.data
def load(ctx):
    return sample(ctx.rng, ctx.site["patients"])


@client.query("tree")
def tree(model, ctx):
    return umbel.Update(value={"tree": json.dumps(grow(*ctx.data, depth=ctx.config["depth"])).encode()})


server = umbel.ServerApp(rounds=1)


@server.main
def main(fed):
    for _ in fed.rounds():
        got = fed.query(
            "tree", config={"depth": 4}, cohort=umbel.sample.everyone(), aggregator=umbel.aggregate.concat()
        )
        trees = umbel.aggregate.split(got.concat, "tree")
        fed.commit({"clients": got.clients, "trees": trees})


def test_the_forest_has_each_clients_tree_whole():
    sites = {f"clinic{n}": {"patients": n} for n in (5, 40, 80, 160, 320)}
    result = umbel.run(server, client, on=umbel.Simulation(clients=sites), seed=1)
    forest = dict(zip(result.state["clients"], result.state["trees"], strict=True))
    assert forest.keys() == sites.keys()
    assert len({len(tree) for tree in forest.values()}) > 2  # of varying size
    trees = [json.loads(tree) for tree in forest.values()]
    x, y = sample(np.random.default_rng(0), 200)
    votes = [np.mean([predict(tree, row) for tree in trees]) > 0.5 for row in x]
    assert np.mean(votes == y) > 0.7
