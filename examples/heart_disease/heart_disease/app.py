"""The federation: what runs at each hospital, and what runs at the server.

A client is called by its hospital: `hospitals.HOSPITALS` has the names. This app brings the public data of all four
along, and each reads its own; in earnest each hospital has its own file, and names it in the settings of its site.
"""

from __future__ import annotations

from itertools import islice

import umbel
from heart_disease import hospitals, logistic

SEED, ROUNDS, STEPS, LR = 1, 20, 50, 0.01

# What runs at each hospital.

client = umbel.ClientApp()


@client.data
def load(ctx):
    return hospitals.load(ctx.client.name)


@client.train
def train(model, ctx):
    patients = ctx.data.train
    batches = islice(logistic.batches(len(patients), ctx.rng), STEPS)
    trained = logistic.sgd(model, patients, batches, lr=ctx.config["lr"])
    return umbel.Update(model=trained, weight=len(patients), metrics={"loss": logistic.log_loss(trained, patients)})


@client.evaluate
def evaluate(model, ctx):
    return umbel.Metrics({"accuracy": logistic.accuracy(model, ctx.data.test)}, weight=len(ctx.data.test))


# What runs at the server: it sees models, never patients.

server = umbel.ServerApp(
    model=lambda: logistic.start(SEED),
    strategy=umbel.fed_avg(config={"lr": LR}),
    rounds=ROUNDS,
)
