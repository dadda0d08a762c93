"""The published algorithms, transcribed in 60-digit decimal arithmetic. Needs the standard library alone.

Writes paper_optimizers.json and paper_strategies.json from inputs.json. Every number is computed with `decimal` and
rounded once, at the very end, to the nearest float64; so the distance to a vector is the error of what is tested.
Each function follows the cited algorithm and nothing else; it imports nothing of this project.

McMahan et al., AISTATS 2017, Algorithm 1 (FedAvg). https://arxiv.org/abs/1602.05629
Hsu et al., 2019, section 4.3 (FedAvgM). https://arxiv.org/abs/1909.06335
Sutskever et al., ICML 2013, equations 1 to 4 (heavy ball and Nesterov). https://proceedings.mlr.press/v28/sutskever13
Reddi et al., ICLR 2021, Algorithm 2 (FedAdagrad, FedYogi, FedAdam). https://arxiv.org/abs/2003.00295
Li et al., ICLR 2020, Algorithm 2 (q-FedAvg). https://arxiv.org/abs/1905.10497
Li et al., MLSys 2020, Algorithm 2 (FedProx; its server averages like FedAvg). https://arxiv.org/abs/1812.06127
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from decimal import Decimal, getcontext
from typing import Any

from tests.golden import vector_file

getcontext().prec = 60

Vector = list[Decimal]
Delta = Callable[[int, Vector], Vector]  # (round from 0, the model of that round) -> the mean client update


def sgd(x: Vector, delta: Delta, rounds: int, *, lr: Decimal) -> Iterator[Vector]:
    """Reddi et al., Algorithm 1 with ServerOpt = SGD: x_{t+1} = x_t + eta * Delta_t; FedAvg where eta = 1."""
    for t in range(rounds):
        x = [xi + lr * di for xi, di in zip(x, delta(t, x), strict=True)]
        yield x


def momentum(
    x: Vector, delta: Delta, rounds: int, *, lr: Decimal, momentum: Decimal, nesterov: bool = False
) -> Iterator[Vector]:
    """Hsu et al.: v <- beta v + Delta, w <- w + eta v (in the paper eta = 1); Nesterov steps along beta v + Delta."""
    v = [Decimal(0)] * len(x)
    for t in range(rounds):
        d = delta(t, x)
        v = [momentum * vi + di for vi, di in zip(v, d, strict=True)]
        along = [momentum * vi + di for vi, di in zip(v, d, strict=True)] if nesterov else v
        x = [xi + lr * ai for xi, ai in zip(x, along, strict=True)]
        yield x


def adaptive(
    x: Vector,
    delta: Delta,
    rounds: int,
    second: Callable[[Decimal, Decimal], Decimal],
    *,
    lr: Decimal,
    beta1: Decimal,
    tau: Decimal,
) -> Iterator[Vector]:
    """Reddi et al., Algorithm 2, what the server does: v_{-1} = tau^2 (the paper: at least tau^2), m_{-1} = 0."""
    m, v = [Decimal(0)] * len(x), [tau * tau] * len(x)
    for t in range(rounds):
        d = delta(t, x)
        m = [beta1 * mi + (1 - beta1) * di for mi, di in zip(m, d, strict=True)]
        v = [second(vi, di * di) for vi, di in zip(v, d, strict=True)]
        x = [xi + lr * mi / (vi.sqrt() + tau) for xi, mi, vi in zip(x, m, v, strict=True)]
        yield x


def adam(x: Vector, delta: Delta, rounds: int, *, beta2: Decimal, **rest: Decimal) -> Iterator[Vector]:
    """v_t = beta2 v_{t-1} + (1 - beta2) Delta_t^2; no bias correction anywhere."""
    return adaptive(x, delta, rounds, lambda v, d2: beta2 * v + (1 - beta2) * d2, **rest)


def yogi(x: Vector, delta: Delta, rounds: int, *, beta2: Decimal, **rest: Decimal) -> Iterator[Vector]:
    """v_t = v_{t-1} - (1 - beta2) Delta_t^2 sign(v_{t-1} - Delta_t^2), with sign(0) = 0."""
    return adaptive(x, delta, rounds, lambda v, d2: v - (1 - beta2) * d2 * ((v > d2) - (v < d2)), **rest)


def adagrad(x: Vector, delta: Delta, rounds: int, *, beta1: Decimal = Decimal(0), **rest: Decimal) -> Iterator[Vector]:
    """v_t = v_{t-1} + Delta_t^2; the paper's experiments set beta1 = 0."""
    return adaptive(x, delta, rounds, lambda v, d2: v + d2, beta1=beta1, **rest)


def q_fed_avg(x: Vector, answers: list[list[dict[str, Any]]], *, q: Decimal, lr: Decimal) -> Iterator[Vector]:
    """Li et al. (q-FFL), Algorithm 2: L = 1 / lr, F_k(w^t) is the loss *before* training; no weights."""
    big_l = 1 / lr
    for row in answers:
        numerator, denominator = [Decimal(0)] * len(x), Decimal(0)
        for answer in row:
            dw = [big_l * (xi - wi) for xi, wi in zip(x, answer["model"], strict=True)]
            loss = answer["loss"]
            numerator = [ni + loss**q * di for ni, di in zip(numerator, dw, strict=True)]
            denominator += q * loss ** (q - 1) * sum(di * di for di in dw) + big_l * loss**q
        x = [xi - ni / denominator for xi, ni in zip(x, numerator, strict=True)]
        yield x


def mean_of(answers: list[list[dict[str, Any]]], *, uniform: bool) -> Delta:
    """Delta_t = sum n_i (x_i - x_t) / sum n_i, over the clients of round t; all n_i = 1 where `uniform`."""

    def delta(t: int, x: Vector) -> Vector:
        shares = [Decimal(1) if uniform else answer["weight"] for answer in answers[t]]
        models = [answer["model"] for answer in answers[t]]
        total = sum(shares)
        return [
            sum((n * (w[i] - xi) for n, w in zip(shares, models, strict=True)), Decimal(0)) / total
            for i, xi in enumerate(x)
        ]

    return delta


OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("sgd", {"lr": 1.0}),
    ("sgd", {"lr": 0.3}),
    ("replace", {}),
    ("momentum", {"lr": 1.0, "momentum": 0.9}),
    ("momentum", {"lr": 0.3, "momentum": 0.5}),
    ("momentum", {"lr": 1.0, "momentum": 0.9, "nesterov": True}),
    ("momentum", {"lr": 0.3, "momentum": 0.5, "nesterov": True}),
    ("adam", {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "tau": 1e-3}),
    ("adam", {"lr": 0.03, "beta1": 0.5, "beta2": 0.999, "tau": 2.0**-10}),
    ("yogi", {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "tau": 1e-3}),
    ("yogi", {"lr": 0.03, "beta1": 0.5, "beta2": 0.9, "tau": 2.0**-10}),
    ("adagrad", {"lr": 0.1, "tau": 1e-3}),
    ("adagrad", {"lr": 1.0, "tau": 2.0**-10}),
    ("adagrad", {"lr": 0.01, "tau": 1e-3, "beta1": 0.9}),
]
SINGLE_OPTIMIZERS = [OPTIMIZERS[i] for i in (1, 4, 6, 7, 9, 11)]  # in float32 too: one of each rule
STRATEGIES: list[tuple[str, str, dict[str, Any]]] = [  # strategy, part of inputs.json, hyper-parameters
    ("fed_avg", "cohort", {}),
    ("fed_avg", "cohort", {"uniform": True}),
    ("fed_avg", "shards", {}),
    ("fed_avg", "shards", {"uniform": True}),
    ("fed_prox", "cohort", {"mu": 0.1}),
    ("fed_avgm", "cohort", {"lr": 1.0, "momentum": 0.9}),
    ("fed_avgm", "cohort", {"lr": 0.3, "momentum": 0.5}),
    ("fed_adam", "cohort", {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "tau": 1e-3}),
    ("fed_adam", "cohort", {"lr": 0.03, "beta1": 0.5, "beta2": 0.999, "tau": 0.01}),
    ("fed_yogi", "cohort", {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "tau": 1e-3}),
    ("fed_yogi", "cohort", {"lr": 0.03, "beta1": 0.5, "beta2": 0.9, "tau": 0.01}),
    ("fed_adagrad", "cohort", {"lr": 0.1, "tau": 1e-3}),
    ("fed_adagrad", "cohort", {"lr": 1.0, "tau": 0.01}),
    ("q_fed_avg", "fair", {"q": 0.0, "lr": 0.1}),
    ("q_fed_avg", "fair", {"q": 0.2, "lr": 0.1}),
    ("q_fed_avg", "fair", {"q": 1.0, "lr": 1.0}),
    ("q_fed_avg", "fair", {"q": 5.0, "lr": 0.5}),
]
SINGLE_STRATEGIES = [STRATEGIES[i] for i in (0, 1, 2, 5, 7, 9, 11, 14)]
RULE: dict[str, Callable[..., Iterator[Vector]]] = {
    "sgd": sgd,
    "momentum": momentum,
    "adam": adam,
    "yogi": yogi,
    "adagrad": adagrad,
    "fed_avg": sgd,
    "fed_prox": sgd,
    "fed_avgm": momentum,
    "fed_adam": adam,
    "fed_yogi": yogi,
    "fed_adagrad": adagrad,
}


def as_float32(value: float) -> float:
    """The nearest float32."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def flat(model: dict[str, Any], rounded: Callable[[float], float]) -> Vector:
    """All numbers of a model, entry by entry, row by row."""

    def walk(value: Any) -> Iterator[Decimal]:
        if isinstance(value, list):
            for item in value:
                yield from walk(item)
        else:
            yield Decimal(rounded(value))

    return [number for entry in model.values() for number in walk(entry)]


def shaped(numbers: Vector, like: dict[str, Any], digits: int) -> dict[str, Any]:
    """The inverse of `flat`, in float64, or in as many digits as float32 has."""
    left = iter(numbers)

    def walk(value: Any) -> Any:
        return [walk(item) for item in value] if isinstance(value, list) else float(f"{float(next(left)):.{digits}g}")

    return {name: walk(entry) for name, entry in like.items()}


def exact(values: dict[str, Any]) -> dict[str, Any]:
    """Hyper-parameters as the exact value of the double that the tested code is given."""
    return {name: Decimal(value) if isinstance(value, float) else value for name, value in values.items()}


def optimizer_case(inputs: dict[str, Any], name: str, hyper: dict[str, Any], *, single: bool) -> dict[str, Any]:
    """One server optimizer over the recorded deltas."""
    rounded = as_float32 if single else float
    deltas = [flat(delta, rounded) for delta in inputs["deltas"]]
    rule, given = ("sgd", {"lr": 1.0}) if name == "replace" else (name, hyper)
    models = RULE[rule](flat(inputs["model"], rounded), lambda t, _: deltas[t], len(deltas), **exact(given))
    return {
        "optimizer": name,
        "hyper": hyper,
        "dtype": "float32" if single else "float64",
        "models": [shaped(model, inputs["model"], 9 if single else 17) for model in models],
    }


def strategy_case(
    inputs: dict[str, Any], name: str, part: str, hyper: dict[str, Any], *, single: bool
) -> dict[str, Any]:
    """One strategy over the recorded answers of the clients."""
    rounded = as_float32 if single else float
    answers = [
        [{k: flat(v, rounded) if k == "model" else Decimal(v) for k, v in answer.items()} for answer in row.values()]
        for row in inputs["rounds"]
    ]
    start, given = flat(inputs["model"], rounded), exact(hyper)
    if name == "q_fed_avg":
        models = q_fed_avg(start, answers, **given)
    else:
        delta = mean_of(answers, uniform=given.pop("uniform", False))
        given = {"lr": Decimal(1)} if RULE[name] is sgd else given
        models = RULE[name](start, delta, len(answers), **given)
    return {
        "strategy": name,
        "inputs": part,
        "hyper": hyper,
        "dtype": "float32" if single else "float64",
        "models": [shaped(model, inputs["model"], 9 if single else 17) for model in models],
    }


def main() -> None:
    """Write both files."""
    inputs = vector_file.read("inputs.json")
    oracle = "make_paper.py: the published algorithm in 60-digit decimals, rounded once; `models`: after each"
    steps = inputs["steps"]
    cases = [optimizer_case(steps, *case, single=False) for case in OPTIMIZERS]
    cases += [optimizer_case(steps, *case, single=True) for case in OPTIMIZERS if case in SINGLE_OPTIMIZERS]
    vector_file.write("paper_optimizers.json", {"oracle": f"{oracle} step", "inputs": "steps", "cases": cases})
    cases = [strategy_case(inputs[case[1]], *case, single=False) for case in STRATEGIES]
    cases += [strategy_case(inputs[case[1]], *case, single=True) for case in STRATEGIES if case in SINGLE_STRATEGIES]
    vector_file.write("paper_strategies.json", {"oracle": f"{oracle} round", "cases": cases})


if __name__ == "__main__":
    main()
