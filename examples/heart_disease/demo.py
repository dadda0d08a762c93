"""Four hospitals train one model together, and no patient's data leaves a hospital.

make demo    or    python examples/heart_disease/demo.py [FOLDER]

Prints how often three kinds of model are right: one that a hospital trains alone, one that all train together, and one
that is trained on all data in one place, for comparison. FOLDER, by default demo-output, gets the model, the
history and a plot. Needs no PyTorch: the model is a logistic regression in NumPy (logistic.py), and hospitals.py reads
the data.
"""

from __future__ import annotations

import shutil
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import hospitals
import logistic
import numpy as np
from hospitals import Patients

import umbel

ROUNDS, STEPS, LR = 20, 50, 0.01

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
    model=logistic.start,
    strategy=umbel.fed_avg(config={"lr": LR}),
    rounds=ROUNDS,
)


def main(folder: Path) -> None:
    shutil.rmtree(folder / "run", ignore_errors=True)  # without this line, a run that was interrupted goes on
    sites = {name: {"hospital": name} for name in hospitals.HOSPITALS}
    result = umbel.run(server, client, on=umbel.Simulation(clients=sites), seed=1, dir=folder / "run")

    result.model.save(folder / "model.safetensors")
    result.history.save(folder / "history.csv")
    result.plot().savefig(folder / "history.png")
    print_comparison(result.model)
    print(f"\nIn {folder}: model.safetensors, history.csv, history.png")


# For comparison: the same number of the same steps, without a federation.


def train_alone(patients: Patients) -> dict[str, Any]:
    batches = logistic.batches(len(patients), np.random.default_rng(1))
    return logistic.sgd(logistic.start(), patients, islice(batches, ROUNDS * STEPS), lr=LR)


def print_comparison(federated: umbel.Arrays) -> None:
    everyone = hospitals.load(*hospitals.HOSPITALS)
    pooled = train_alone(everyone.train)
    print(
        "\nTest patients judged correctly by a model that the hospital trained alone, that all four trained together,"
    )
    print("or that was trained on pooled data, which is what the hospitals may not do:\n")
    print(f"{'':24}{'of its own test patients':^36}{'of all':>12}")
    print(f"{'':15}{'patients':>9}{'alone':>12}{'federated':>12}{'pooled':>12}{'alone':>12}")
    for name, title in hospitals.HOSPITALS.items():
        own = hospitals.load(name)
        alone = train_alone(own.train)
        rates = [logistic.accuracy(model, own.test) for model in (alone, federated, pooled)]
        rates.append(logistic.accuracy(alone, everyone.test))
        print(f"{title:15}{len(own.train) + len(own.test):9}", *(f"{rate:11.1%}" for rate in rates))
    rates = [logistic.accuracy(model, everyone.test) for model in (federated, pooled)]
    print(f"{'all four':15}{len(everyone.train) + len(everyone.test):9}{'':12}", *(f"{rate:11.1%}" for rate in rates))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo-output"))
