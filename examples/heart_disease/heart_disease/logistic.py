"""Logistic regression in NumPy: the training code that was there before anything was federated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from heart_disease.hospitals import FEATURES, Floats, Patients

BATCH = 4  # patients a step


def start(seed: int) -> dict[str, Floats]:
    """A model that knows nothing yet: random weights like those of torch.nn.Linear, at most 1 / sqrt(features)."""
    rng = np.random.default_rng(seed)
    bound = len(FEATURES) ** -0.5
    return {"weights": rng.uniform(-bound, bound, len(FEATURES)), "bias": rng.uniform(-bound, bound, 1)}


def batches(patients: int, rng: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
    """Everyone in random order, four at a time; then everyone in a new order; and so on without end."""
    while True:
        order = rng.permutation(patients)
        yield from (order[i : i + BATCH] for i in range(0, patients, BATCH))


def gradient(model: Mapping[str, Any], x: Floats, y: Floats) -> dict[str, Floats]:
    """How the mean log loss of these patients grows with each parameter."""
    error = (probability(model, x) - y) / len(y)
    return {"weights": error @ x, "bias": error.sum(keepdims=True)}


def sgd(
    model: Mapping[str, Any], patients: Patients, steps: Iterable[Any], *, lr: float, pull: float = 0.0
) -> dict[str, Floats]:
    """The model after one step of stochastic gradient descent for each batch of `steps`.

    With `pull`, each step is also drawn back to the model that came: the gradient of pull / 2 * |distance|^2.
    """
    trained = {name: np.array(value) for name, value in model.items()}
    for batch in steps:
        for name, slope in gradient(trained, patients.x[batch], patients.y[batch]).items():
            trained[name] -= lr * (slope + pull * (trained[name] - model[name]))
    return trained


def probability(model: Mapping[str, Any], x: Floats) -> Floats:
    """How likely each patient has heart disease, according to the model."""
    return np.asarray(0.5 + 0.5 * np.tanh((x @ model["weights"] + model["bias"]) / 2))  # the sigmoid, without overflow


def accuracy(model: Mapping[str, Any], patients: Patients) -> float:
    """The share of patients whom the model puts on the right side of one half."""
    return float(np.mean((probability(model, patients.x) > 0.5) == patients.y))


def log_loss(model: Mapping[str, Any], patients: Patients) -> float:
    """The mean of -log(probability of what was found)."""
    right = np.where(patients.y == 1, 1.0, -1.0) * (patients.x @ model["weights"] + model["bias"])
    return float(np.mean(np.logaddexp(0.0, -right)))
