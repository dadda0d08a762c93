"""Draws what every server-side vector starts from, and writes inputs.json. Needs NumPy alone.

`steps`    one initial model and five deltas, for the server optimizers one by one. Round 1 holds zeros, exact ties
           |delta| = 2**-10 (Yogi's sign(0), where tau = 2**-10) and both signs.
`cohort`   one initial model and what five clients of unequal, changing weight return in each of five rounds.
`fair`     the same for q-FedAvg, with a loss for each answer; all entries are of order one, because the norm in h_k
           would otherwise be that of the largest entry alone.
`shards`   one round of 130 clients: two full shards of 64 and a rest of two, with a large common offset that cancels.

A client returns the recorded model whatever it was sent, so the same answers serve every algorithm. Magnitudes run
from 1e-6 to 1e4 inside one array. Vectors for float32 use the same numbers, rounded to float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tests.golden import vector_file

SHAPES = {"weight": (3, 4), "bias": (4,), "scale": (1,)}
SMALL = {"weight": (2, 3), "bias": (2,)}
ROUNDS = 5
TIE = 2.0**-10
CLIENTS = ("berlin", "lyon", "oslo", "porto", "turin")
WEIGHTS = (1, 250, 37, 1000, 8)

Arrays = dict[str, npt.NDArray[np.float64]]


def magnitudes() -> Arrays:
    """The order of magnitude of each entry of the mixed model."""
    return {
        "weight": np.array([[1.0, 1e4, 1e-6, 1e-2], [1.0, 1.0, 1e-6, 1e2], [1e-4, 1e4, 1.0, 1.0]]),
        "bias": np.array([1e4, 1e-6, 1.0, 1e-3]),
        "scale": np.array([1.0]),
    }


def listed(model: Arrays) -> dict[str, Any]:
    """The same as nested lists of Python floats."""
    return {name: np.vectorize(short)(array).tolist() for name, array in model.items()}


def short(value: float) -> float:
    """Seven decimal digits: easy to read, and still a full binary mantissa; powers of two stay as they are."""
    return value if abs(value) == TIE else float(f"{value:.7g}")


def drawn(rng: np.random.Generator, scale: Arrays) -> Arrays:
    """Normal entries of the given magnitudes."""
    return {name: rng.standard_normal(array.shape) * array for name, array in scale.items()}


def steps(rng: np.random.Generator) -> dict[str, Any]:
    """An initial model and five deltas."""
    scale = magnitudes()
    model = drawn(rng, scale)
    deltas = [drawn(rng, {name: 0.3 * array for name, array in scale.items()}) for _ in range(ROUNDS)]
    deltas[0]["weight"][1] = [TIE, -TIE, 0.0, TIE]
    deltas[0]["bias"][2] = -TIE
    deltas[3]["scale"][0] = 0.0
    return {"model": listed(model), "deltas": [listed(delta) for delta in deltas]}


def answers(rng: np.random.Generator, scale: Arrays, *, fair: bool) -> dict[str, Any]:
    """An initial model, and per round what each client returns: a common drift and its own deviation."""
    model = drawn(rng, scale)
    drift = drawn(rng, scale)
    rounds = []
    for number in range(1, ROUNDS + 1):
        row = {}
        for index, name in enumerate(CLIENTS):
            own = drawn(rng, scale)
            answer = {k: model[k] + 0.25 * number * drift[k] + 0.2 * own[k] for k in model}
            weight = WEIGHTS[(index + number) % len(WEIGHTS)]
            row[name] = {"weight": weight, "model": listed(answer)}
            if fair:
                row[name]["loss"] = short(np.exp(rng.standard_normal() - 0.2 * number))
        rounds.append(row)
    return {"model": listed(model), "rounds": rounds}


def shards(rng: np.random.Generator) -> dict[str, Any]:
    """One round of 130 clients whose answers nearly cancel a large offset."""
    model = {"weight": np.array([1e4, -1e-6, 0.5])}
    row = {}
    for index in range(130):
        answer = model["weight"] + rng.standard_normal(3) * [1e4, 1e-6, 1.0]
        row[f"c{index:03d}"] = {"weight": int(rng.integers(1, 500)), "model": listed({"weight": answer})}
    return {"model": listed(model), "rounds": [row]}


def main() -> None:
    """Draw everything from seed 2 and write the file."""
    rng = np.random.default_rng(2)
    ones = {name: np.ones(shape) for name, shape in SMALL.items()}
    vector_file.write(
        "inputs.json",
        {
            "made_by": f"make_inputs.py, numpy {np.__version__}, numpy.random.default_rng(2)",
            "steps": steps(rng),
            "cohort": answers(rng, magnitudes(), fair=False),
            "fair": answers(rng, ones, fair=True),
            "shards": shards(rng),
        },
    )


if __name__ == "__main__":
    main()
