"""The FLamby benchmark of the four hospitals, repeated: five algorithms, and training on all data in one place.

python examples/heart_disease/flamby.py    prints the published accuracies beside ours

All train a logistic regression: 15 rounds in which each hospital takes 100 steps of plain SGD, four patients a step,
from one endless shuffled stream of its patients; the mean weighs each hospital by its training patients. What counts
is the accuracy on all 254 test patients, standardised like pooled training data. `flamby.csv` holds the published
results: correctly judged test patients for each seed.

Source: Ogier du Terrail et al., FLamby, NeurIPS 2022 Datasets and Benchmarks. https://arxiv.org/abs/2210.04620
    At owkin/FLamby, commit edacf54: hyper-parameters in flamby/config_heart_disease.json, rounds, epochs and batch in
    flamby/datasets/fed_heart_disease/common.py, results in flamby/results/results_benchmark_fed_heart_disease.
Differs: FLamby's adaptive methods start at v = 0, ours as in their paper at tau**2, here 1e-16. Random numbers are
    NumPy's, so a seed stands for other draws; fed with theirs, each result is the published one to the patient
    (tests/acceptance/test_heart_disease.py). FLamby's training data for `pooled` follows the order in which a
    directory lists its files: its results are those of the order Cleveland, Switzerland, Hungary, VA Long Beach
    (.7953); other orders give up to .7969.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
from heart_disease import hospitals, logistic
from heart_disease.hospitals import Floats

import umbel

SEEDS = range(42, 47)
ROUNDS, STEPS, EPOCHS = 15, 100, 50
PUBLISHED = {  # mean accuracy of the seeds
    "FedAvg": 0.7480,
    "FedProx": 0.7480,
    "FedAdam": 0.7787,
    "FedAdagrad": 0.7787,
    "FedYogi": 0.7787,
    "pooled": 0.7969,
}
STRATEGIES = {
    "FedAvg": umbel.fed_avg(config={"lr": 0.001}),
    "FedProx": umbel.fed_prox(mu=0.01, config={"lr": 0.001}),
    "FedAdam": umbel.fed_adam(lr=0.01, beta1=0.9, beta2=0.999, tau=1e-8, config={"lr": 0.01}),
    "FedAdagrad": umbel.fed_adagrad(lr=0.316228, beta1=0.9, tau=1e-8, config={"lr": 0.003162}),
    "FedYogi": umbel.fed_yogi(lr=0.01, beta1=0.9, beta2=0.999, tau=1e-8, config={"lr": 0.003162}),
}


def endless(ctx: Any) -> Iterator[Any]:
    """This round's batches: the client's state keeps who is still to come of a shuffle that the round ends in."""
    left = ctx.state.get("left", np.empty(0, np.int64))
    for _ in range(STEPS):
        if not len(left):
            left = ctx.rng.permutation(len(ctx.data.train))
        yield left[: logistic.BATCH]
        left = left[logistic.BATCH :]
    ctx.state["left"] = left


def hospital_app(batches: Callable[[Any], Iterable[Any]] = endless) -> umbel.ClientApp:
    """What runs at a hospital, with the batches of a round from `batches`."""
    client = umbel.ClientApp()

    @client.data
    def load(ctx):
        return hospitals.load(ctx.client.name)

    @client.train
    def train(model, ctx):
        patients = ctx.data.train
        pull = ctx.correction.pull if ctx.correction else 0.0  # FedProx
        trained = logistic.sgd(model, patients, batches(ctx), lr=ctx.config["lr"], pull=pull)
        return umbel.Update(model=trained, weight=len(patients))

    return client


def federated(
    method: str, seed: int, *, initial: Mapping[str, Any] | None = None, client: umbel.ClientApp | None = None
) -> umbel.Arrays:
    """The model that the four hospitals train together."""
    server = umbel.ServerApp(model=initial or logistic.start(seed), strategy=STRATEGIES[method], rounds=ROUNDS)
    federation = umbel.Simulation(clients=list(hospitals.HOSPITALS))
    return umbel.run(server, client or hospital_app(), on=federation, seed=seed).model


def pooled(seed: int) -> dict[str, Floats]:
    """The model trained with Adam on all data in one place."""
    everyone = hospitals.load(*hospitals.HOSPITALS).train
    batches = logistic.batches(len(everyone), np.random.default_rng(seed))
    steps = EPOCHS * math.ceil(len(everyone) / logistic.BATCH)
    return adam(logistic.start(seed), everyone, islice(batches, steps))


def adam(
    model: Mapping[str, Any], patients: hospitals.Patients, steps: Iterable[Any], *, lr: float = 0.001
) -> dict[str, Floats]:
    """The model after one step of Adam for each batch of `steps`.

    Source: Kingma and Ba, Adam, ICLR 2015, Algorithm 1, with its defaults. https://arxiv.org/abs/1412.6980
    """
    trained = {name: np.array(value) for name, value in model.items()}
    m, v = ({name: np.zeros_like(value) for name, value in trained.items()} for _ in range(2))
    for t, batch in enumerate(steps, 1):
        slope = logistic.gradient(trained, patients.x[batch], patients.y[batch])
        for name, g in slope.items():
            m[name] = 0.9 * m[name] + 0.1 * g
            v[name] = 0.999 * v[name] + 0.001 * g**2
            trained[name] -= lr * (m[name] / (1 - 0.9**t)) / (np.sqrt(v[name] / (1 - 0.999**t)) + 1e-8)
    return trained


def accuracies(method: str) -> list[float]:
    """What the models of all seeds reach on the pooled test patients."""
    everyone = hospitals.load(*hospitals.HOSPITALS).test
    models = [pooled(seed) if method == "pooled" else federated(method, seed) for seed in SEEDS]
    return [logistic.accuracy(model, everyone) for model in models]


def main() -> None:
    print(f"{'':12}{'published':>9}{'here':>9}   mean and deviation of seeds {SEEDS[0]} to {SEEDS[-1]}")
    for method, published in PUBLISHED.items():
        here = accuracies(method)
        print(f"{method:12}{published:9.4f}{statistics.mean(here):9.4f} ± {statistics.stdev(here):.4f}")


if __name__ == "__main__":
    main()
