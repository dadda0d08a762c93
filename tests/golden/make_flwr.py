"""Drives the strategies of Flower (flwr 1.42.0, `flwr.serverapp.strategy`) and writes flwr_strategies.json.

Needs flwr 1.42.0 and NumPy. A strategy is driven as its own `start` does: `configure_train` makes the messages, each is
answered with what inputs.json recorded for that client and round, `aggregate_train` folds the answers.

Where Flower departs from the paper only in numbers that can be set from outside, they are set to the paper's, and the
case says so under `set`; the code that computes is Flower's all the same:

- `v_t` is set to tau^2 before the first round (Flower starts from 0);
- FedAdam's `eta` is divided, each round, by the factor with which Flower corrects the bias (the paper has none);
- q-FedAvg's losses are lowered by the 1e-10 that Flower adds;
- q-FedAvg's model, of which Flower makes a float64 one, is rounded back to float32 where the clients train float32.

The same case as Flower runs it out of the box is summed up under `untouched`: how far, relative to the size of each
entry, its last model is from the paper's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedProx, FedYogi, QFedAvg
from flwr.supercore.task_identity import TaskIdentity

from tests.golden import vector_file

Model = dict[str, npt.NDArray[Any]]

CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("fed_avg", "cohort", {}),
    ("fed_avg", "cohort", {"uniform": True}),
    ("fed_avg", "shards", {}),
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
IN_FLOAT32 = [CASES[i] for i in (0, 2, 4, 13)]  # not the adaptive ones: Flower's own float32 error exceeds 1e-6
ADAPTIVE = ("fed_adam", "fed_yogi", "fed_adagrad")
LOSS_EPSILON = 1e-10  # flwr/serverapp/strategy/qfedavg.py, compute_delta_and_h


class Driven(Protocol):
    """The two methods of a Flower strategy that a training round calls."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]: ...

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord | None, Any]: ...


class Nodes:
    """As much of a Grid as sampling asks for: the ids of the connected nodes."""

    def __init__(self, count: int) -> None:
        self._ids = list(range(1, count + 1))

    def get_node_ids(self) -> list[int]:
        """All ids."""
        return self._ids


def built(name: str, hyper: dict[str, Any]) -> Any:
    """The strategy of that name with Flower's names for the hyper-parameters."""
    eta = {"eta": hyper.get("lr"), "tau": hyper.get("tau")}
    betas = {"beta_1": hyper.get("beta1"), "beta_2": hyper.get("beta2")}
    if name == "fed_prox":
        return FedProx(proximal_mu=hyper["mu"])
    if name == "fed_avgm":
        return FedAvgM(server_learning_rate=hyper["lr"], server_momentum=hyper["momentum"])
    if name == "fed_adam":
        return FedAdam(**eta, **betas)
    if name == "fed_yogi":
        return FedYogi(**eta, **betas)
    if name == "fed_adagrad":
        return FedAdagrad(**eta)
    if name == "q_fed_avg":
        return QFedAvg(client_learning_rate=hyper["lr"], q=hyper["q"])
    return FedAvg()


def record(model: Model) -> ArrayRecord:
    """A Flower record of the arrays."""
    return ArrayRecord({name: Array(value) for name, value in model.items()})


def played(
    name: str, inputs: dict[str, Any], hyper: dict[str, Any], dtype: type[np.floating[Any]], *, as_paper: bool
) -> list[Model]:
    """The model after each round."""
    strategy, model = built(name, hyper), _model(inputs["model"], dtype)
    out = []
    for number, answers in enumerate(inputs["rounds"], start=1):
        if as_paper:
            _set_to_the_paper(strategy, name, hyper, model, number)
        got = _round(strategy, model, number, list(answers.values()), uniform=hyper.get("uniform", False), eps=as_paper)
        model = {k: v.astype(dtype) for k, v in got.items()}
        out.append(model)
    return out


def _round(
    strategy: Driven, model: Model, number: int, answers: list[dict[str, Any]], *, uniform: bool, eps: bool
) -> Model:
    grid = cast("Grid", Nodes(len(answers)))
    asked = {m.metadata.dst_node_id: m for m in strategy.configure_train(number, record(model), ConfigRecord(), grid)}
    replies = []
    for node, answer in enumerate(answers, start=1):
        metrics: dict[str, float] = {"num-examples": 1 if uniform else answer["weight"]}
        if "loss" in answer:
            metrics["train_loss"] = answer["loss"] - (LOSS_EPSILON if eps else 0.0)
        dtype = next(iter(model.values())).dtype.type
        content = RecordDict({"arrays": record(_model(answer["model"], dtype)), "metrics": MetricRecord(metrics)})
        replies.append(Message(content=content, reply_to=asked[node]))
    got, _ = strategy.aggregate_train(number, replies)
    if got is None:
        raise RuntimeError(f"round {number}: Flower aggregated nothing")
    return {name: array.numpy() for name, array in got.items()}


def _set_to_the_paper(strategy: Any, name: str, hyper: dict[str, Any], model: Model, number: int) -> None:
    if name in ADAPTIVE and number == 1:
        strategy.v_t = {k: np.full_like(v, hyper["tau"] ** 2) for k, v in model.items()}
    if name == "fed_adam":
        grown = number + 1.0  # Flower's exponent: one more than Adam's t
        strategy.eta = hyper["lr"] * (1 - hyper["beta1"] ** grown) / np.sqrt(1 - hyper["beta2"] ** grown)


def what_was_set(name: str, *, single: bool) -> list[str]:
    """What `_set_to_the_paper`, the lowered losses and the rounding do, in words."""
    said = ["v_t = tau**2 before round 1"] if name in ADAPTIVE else []
    said += ["eta divided by the bias correction each round"] if name == "fed_adam" else []
    said += ["losses lowered by 1e-10"] if name == "q_fed_avg" else []
    return said + (["the model rounded to float32 after each round"] if name == "q_fed_avg" and single else [])


def _model(listed: dict[str, Any], dtype: type[np.floating[Any]]) -> Model:
    return {name: np.asarray(value, dtype=dtype) for name, value in listed.items()}


def distance(one: Model, other: Model, scale: Model) -> float:
    """The largest difference of an entry, relative to its size."""
    return max(float(np.max(np.abs(one[k].astype(np.float64) - other[k]) / scale[k])) for k in one)


def sizes(models: list[Model]) -> Model:
    """The largest magnitude that each entry reaches."""
    return {k: np.max([np.abs(m[k]) for m in models], axis=0) for k in models[0]}


def listed(model: Model) -> dict[str, Any]:
    """Nested lists; float32 in the digits that float32 has."""
    digits = 9 if next(iter(model.values())).dtype == np.float32 else 17
    return {k: np.vectorize(lambda x: float(f"{float(x):.{digits}g}"))(v).tolist() for k, v in model.items()}


def case(inputs: dict[str, Any], name: str, part: str, hyper: dict[str, Any], *, single: bool) -> dict[str, Any]:
    """One case, checked against paper_strategies.json before it is written."""
    dtype = np.float32 if single else np.float64
    models = played(name, inputs[part], hyper, dtype, as_paper=True)
    written: dict[str, Any] = {"strategy": name, "inputs": part, "hyper": hyper, "dtype": np.dtype(dtype).name}
    known = vector_file.read("paper_strategies.json")["cases"]
    paper = [_model(m, np.float64) for m in next(c for c in known if c.items() >= written.items())["models"]]
    scale = sizes([_model(inputs[part]["model"], np.float64), *paper])
    agrees = max(distance(a, b, scale) for a, b in zip(models, paper, strict=True))
    written["set"] = what_was_set(name, single=single)
    written["from_paper"] = float(f"{agrees:.1e}")
    if written["set"]:
        untouched = played(name, inputs[part], hyper, dtype, as_paper=False)
        written["untouched"] = float(f"{distance(untouched[-1], paper[-1], scale):.1e}")
    print(*written.values())
    if agrees > (5e-7 if single else 1e-12):
        raise RuntimeError(f"{written}: Flower and the transcription of the paper disagree")
    return {**written, "models": [listed(model) for model in models]}


def main() -> None:
    """Write the file."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1  # a Message cannot be made without
    inputs = vector_file.read("inputs.json")
    cases = [case(inputs, *given, single=False) for given in CASES]
    cases += [case(inputs, *given, single=True) for given in CASES if given in IN_FLOAT32]
    oracle = f"make_flwr.py: flwr {version('flwr')}, flwr.serverapp.strategy, numpy {np.__version__}"
    vector_file.write("flwr_strategies.json", {"oracle": oracle, "cases": cases})


if __name__ == "__main__":
    main()
