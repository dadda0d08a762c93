"""An app that travels by its name."""

from __future__ import annotations

import numpy as np

import umbel

client = umbel.ClientApp()


@client.train
def train(model: umbel.Arrays, ctx: umbel.Context) -> umbel.Update:
    return umbel.Update(model=model + 1)


server = umbel.ServerApp(model={"w": np.zeros(2)}, strategy=umbel.fed_avg(), rounds=2)
own = umbel.ServerApp(model={"w": np.zeros(2)}, rounds=2)


@own.main
def main(fed: umbel.Federation) -> None:
    fed.commit({"model": fed.initial})


def combine(values: object, weights: object) -> float:
    return 0.0


fancy = umbel.ServerApp(model={"w": np.zeros(2)}, strategy=umbel.fed_avg(metrics={"loss": combine}), rounds=2)


@fancy.evaluate
def central(model: umbel.Arrays, ctx: umbel.Context) -> umbel.Metrics:
    return umbel.Metrics({})


evaluated = umbel.ServerApp(model={"w": np.zeros(2)}, strategy=umbel.fed_avg(), rounds=2)
evaluated.evaluate(every=3)(central)
