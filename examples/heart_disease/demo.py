"""Four hospitals train one model together, and no patient's data leaves a hospital.

make demo    or    python examples/heart_disease/demo.py

Prints how often three kinds of model are right: one that a hospital trains alone, one that all train together, and one
that is trained on all data in one place, for comparison. Writes the model, the history and a plot to demo-output.
Needs no PyTorch: the model is a logistic regression in NumPy (logistic.py); hospitals.py reads the data.
"""

from __future__ import annotations

import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import hospitals
import logistic
import numpy as np
from hospitals import Patients

import umbel

SEED, ROUNDS, STEPS, LR = 1, 20, 50, 0.01

# What runs at each hospital.

client = umbel.ClientApp()


@client.data
def load(ctx):
    return hospitals.load(ctx.site["hospital"])


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


def main(folder: Path) -> None:
    shutil.rmtree(folder / "run", ignore_errors=True)  # the last demo; without this line, an interrupted run goes on
    sites = {name: {"hospital": name} for name in hospitals.HOSPITALS}
    result = umbel.run(server, client, on=umbel.Simulation(clients=sites), seed=SEED, dir=folder / "run")

    result.model.save(folder / "model.safetensors")
    result.history.save(folder / "history.csv")
    result.plot().savefig(folder / "history.png")
    print_comparison(result.model)
    print(f"\nIn {folder}: model.safetensors, history.csv, history.png")


# For comparison: as many of the same steps from the same start, without a federation.


def train_centrally(patients: Patients) -> dict[str, Any]:
    batches = logistic.batches(len(patients), np.random.default_rng(SEED))
    return logistic.sgd(logistic.start(SEED), patients, islice(batches, ROUNDS * STEPS), lr=LR)


def print_comparison(federated: umbel.Arrays) -> None:
    hospital = {name: hospitals.load(name) for name in hospitals.HOSPITALS}
    everyone = hospitals.join(hospital.values())
    pooled = train_centrally(everyone.train)
    print("\nTest patients judged correctly by a model that the hospital trained alone, that all four trained")
    print("together, or that was trained on pooled data, which is what the hospitals may not do:\n")
    print(f"{'':24}{'of its own test patients':^36}{'of all':>12}")
    print(f"{'':15}{'patients':>9}{'alone':>12}{'federated':>12}{'pooled':>12}{'alone':>12}")
    for name, own in hospital.items():
        alone = train_centrally(own.train)
        rates = [logistic.accuracy(model, own.test) for model in (alone, federated, pooled)]
        rates.append(logistic.accuracy(alone, everyone.test))
        print(f"{hospitals.HOSPITALS[name]:15}{len(own):9}", *(f"{rate:11.1%}" for rate in rates))
    rates = [logistic.accuracy(model, everyone.test) for model in (federated, pooled)]
    print(f"{'all four':15}{len(everyone):9}{'':12}", *(f"{rate:11.1%}" for rate in rates))

    published = logistic.accuracy(federated, hospitals.load(*hospitals.HOSPITALS).test)
    print(f"\nCounted as the FLamby benchmark counts, the federated model reaches {published:.1%}. Published for")
    print("these hospitals are 74.8% to 77.9% federated and 79.7% pooled; flamby.py, beside this file, repeats them.")


if __name__ == "__main__":
    main(Path("demo-output"))
