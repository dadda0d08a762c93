"""`umbel.torch.local` around unchanged loops, against autograd of a loss that contains the proximal term.

The loops below are those of make_fedprox.py without the term.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import umbel
from tests.golden import vector_file
from tests.golden.comparison import assert_trajectory
from umbel.client.context import Context

torch = pytest.importorskip("torch")
VECTORS = vector_file.read("fedprox.json")
STEPS, BATCH = 5, VECTORS["data"]["batch"]
CASES = VECTORS["cases"]


class Task:
    """The net and the loss of the task on any rows."""

    def __init__(self, name: str) -> None:
        self.x, self.y = (torch.tensor(VECTORS["data"][k], dtype=torch.float64) for k in ("x", "y"))
        first, last = torch.nn.Linear(3, 4, dtype=torch.float64), torch.nn.Linear(4, 2, dtype=torch.float64)
        linear = torch.nn.Linear(3, 2, dtype=torch.float64)
        self.net = linear if name == "linear" else torch.nn.Sequential(first, torch.nn.Tanh(), last)

    def __call__(self, rows: slice) -> Any:
        return torch.nn.functional.mse_loss(self.net(self.x[rows]), self.y[rows])


def batches() -> Iterator[slice]:
    for step in range(STEPS):
        start = step * BATCH % len(VECTORS["data"]["x"])
        yield slice(start, start + BATCH)


def plain(task: Task, *optimizers: Any) -> Iterator[None]:
    for rows in batches():
        task.net.zero_grad()
        task(rows).backward()
        for optimizer in optimizers:
            optimizer.step()
        yield


def sgd(task: Task) -> Iterator[None]:
    return plain(task, torch.optim.SGD(task.net.parameters(), lr=0.1))


def momentum_decay(task: Task) -> Iterator[None]:
    return plain(task, torch.optim.SGD(task.net.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01))


def adam(task: Task) -> Iterator[None]:
    return plain(task, torch.optim.Adam(task.net.parameters(), lr=0.01))


def adamw(task: Task) -> Iterator[None]:
    return plain(task, torch.optim.AdamW(task.net.parameters(), lr=0.01, weight_decay=0.1))


def two_optimizers(task: Task) -> Iterator[None]:
    first, *others = task.net.parameters()
    return plain(task, torch.optim.SGD([first], lr=0.1), torch.optim.Adam(others, lr=0.01))


def frozen(task: Task) -> Iterator[None]:
    next(task.net.parameters()).requires_grad_(False)
    return plain(task, torch.optim.SGD([p for p in task.net.parameters() if p.requires_grad], lr=0.1))


def accumulation(task: Task) -> Iterator[None]:
    optimizer = torch.optim.SGD(task.net.parameters(), lr=0.1, momentum=0.9)
    for _ in range(STEPS):
        optimizer.zero_grad()
        for start in (0, 4, 8):
            (task(slice(start, start + BATCH)) / 3).backward()
        optimizer.step()
        yield


def clip_task(task: Task) -> Iterator[None]:
    optimizer = torch.optim.SGD(task.net.parameters(), lr=0.1)
    for rows in batches():
        optimizer.zero_grad()
        task(rows).backward()
        torch.nn.utils.clip_grad_norm_(task.net.parameters(), 0.5)
        optimizer.step()
        yield


def scaled(task: Task) -> Iterator[None]:
    """Loss scaling, as with mixed precision: the scaler unscales before the step's hooks run."""
    optimizer, scaler = torch.optim.SGD(task.net.parameters(), lr=0.1), torch.amp.GradScaler("cpu")
    for rows in batches():
        optimizer.zero_grad()
        scaler.scale(task(rows)).backward()
        scaler.step(optimizer)
        scaler.update()
        yield


def closures(task: Task, **arguments: Any) -> Iterator[None]:
    optimizer = torch.optim.LBFGS(task.net.parameters(), max_iter=3, tolerance_grad=0, tolerance_change=0, **arguments)

    def closure() -> float:
        optimizer.zero_grad()
        loss = task(slice(None))
        loss.backward()
        return float(loss.detach())

    for _ in range(3):
        optimizer.step(closure)
        yield


def lbfgs(task: Task) -> Iterator[None]:
    return closures(task, lr=0.3)


def lbfgs_wolfe(task: Task) -> Iterator[None]:
    return closures(task, lr=1.0, line_search_fn="strong_wolfe")


LOOPS: dict[str, Callable[[Task], Iterator[None]]] = {
    loop.__name__: loop
    for loop in (sgd, momentum_decay, adam, adamw, two_optimizers, frozen, accumulation, clip_task, lbfgs, lbfgs_wolfe)
}


def trained(loop: Callable[[Task], Iterator[None]], name: str, mu: float) -> list[dict[str, Any]]:
    """The parameters after each step, on the one client of a FedProx run."""
    client = umbel.ClientApp()
    steps: list[dict[str, Any]] = []

    @client.train
    def train(model: umbel.Arrays, ctx: Context) -> umbel.Update:
        task = Task(name)
        with umbel.torch.local(task.net, model, ctx) as local:
            steps.extend({k: p.detach().numpy().copy() for k, p in task.net.named_parameters()} for _ in loop(task))
        return local.update(weight=len(task.x))

    received = {k: torch.tensor(v, dtype=torch.float64).numpy() for k, v in VECTORS["received"][name].items()}
    server = umbel.ServerApp(model=lambda: umbel.Arrays(received), strategy=umbel.fed_prox(mu=mu), rounds=1)
    result = umbel.run(server, client, on=umbel.Simulation(clients=["one"], engine="inline"), seed=0)
    assert result.model is not None
    final = {k: v.tolist() for k, v in steps[-1].items()}
    assert_trajectory([dict(result.model.items())], [final], start=received, dtype="float64")
    return steps


@pytest.mark.parametrize("name", VECTORS["received"])
@pytest.mark.parametrize("scenario", [*LOOPS, "scaled"])
def test_local_is_the_term_in_the_loss(scenario: str, name: str) -> None:
    recorded = "sgd" if scenario == "scaled" else scenario  # the scale is a power of two: it changes nothing
    case = next(c for c in CASES if (c["scenario"], c["net"]) == (recorded, name))
    steps = trained(scaled if scenario == "scaled" else LOOPS[scenario], name, case["mu"])
    want = case["steps"]
    assert_trajectory(steps[-len(want) :], want, start=VECTORS["received"][name], dtype="float64")


def test_every_recorded_scenario_is_tested_but_the_one_that_differs() -> None:
    assert {case["scenario"] for case in CASES} - set(LOOPS) == {"clip_total"}
