"""Trains with the proximal term in the loss and writes fedprox.json: what FedProx's client should do. Needs PyTorch.

FedProx (Li et al., MLSys 2020, https://arxiv.org/abs/1812.06127) minimises h(w) = F(w) + mu/2 ||w - w0||^2, with w0 the
model that was received. Here the term stands in the loss and autograd differentiates it. What is tested adds
mu (w - w0) to the gradient in a step pre-hook and leaves the loss alone, which must give the same trajectory. Two
places where that is a matter of definition, not of rounding:

- clipping. The user's loop clips before it calls `step`. `clip_task` clips the gradient of the task alone and adds the
  proximal gradient after that, as a step pre-hook does. `clip_total` has the term in the loss, so that the sum is
  clipped. The trajectories differ; both are recorded.
- a line search (`lbfgs_wolfe`) reads the value of the loss, so the term has to be in the value as well.

Everything is float64. Each case records the parameters: after each step of the linear net, after the last of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.autograd import backward
from torch.nn.functional import mse_loss

from tests.golden import vector_file

STEPS = 5
BATCH = 4
X = [
    [0.31, -1.2, 0.55],
    [-0.74, 0.08, 1.9],
    [1.15, 0.42, -0.37],
    [-0.2, -0.66, 0.91],
    [0.83, 1.37, -1.04],
    [-1.51, 0.29, 0.12],
    [0.05, -0.98, -0.6],
    [0.47, 0.73, 1.28],
    [-0.39, 1.05, -0.81],
    [1.62, -0.14, 0.33],
    [-0.91, -0.52, -1.47],
    [0.26, 0.61, 0.7],
]
Y = [
    [0.9, -0.4],
    [-1.3, 0.7],
    [0.2, 1.1],
    [0.6, -0.8],
    [-0.5, 1.4],
    [1.7, 0.1],
    [-0.2, -1.6],
    [0.8, 0.3],
    [-1.1, 0.5],
    [0.4, -0.9],
    [1.2, 0.6],
    [-0.7, -0.3],
]
RECEIVED: dict[str, dict[str, Any]] = {
    "linear": {"weight": [[0.4, -0.25, 0.1], [-0.6, 0.35, 0.8]], "bias": [0.05, -0.15]},
    "mlp": {
        "0.weight": [[0.5, -0.3, 0.2], [-0.7, 0.4, 0.1], [0.25, 0.6, -0.45], [-0.15, -0.55, 0.35]],
        "0.bias": [0.1, -0.2, 0.05, 0.0],
        "2.weight": [[0.3, -0.5, 0.7, 0.15], [-0.4, 0.2, -0.1, 0.65]],
        "2.bias": [-0.05, 0.25],
    },
}
MUS = {"linear": 0.5, "mlp": 0.05}

Net = torch.nn.Module
Loss = Callable[[slice], torch.Tensor]


class Proximal:
    """A net that starts from the received parameters, and h(w) on any rows of the data."""

    def __init__(self, name: str) -> None:
        self.mu = MUS[name]
        self.x, self.y = (torch.tensor(rows, dtype=torch.float64) for rows in (X, Y))
        self.net = built(name)
        self.net.load_state_dict({k: torch.tensor(v, dtype=torch.float64) for k, v in RECEIVED[name].items()})
        self.received = [p.detach().clone() for p in self.net.parameters()]

    def task(self, rows: slice) -> torch.Tensor:
        """F(w) on these rows."""
        return mse_loss(self.net(self.x[rows]), self.y[rows])

    def term(self) -> torch.Tensor:
        """mu/2 ||w - w0||^2 over all parameters."""
        pairs = zip(self.net.parameters(), self.received, strict=True)
        return self.mu / 2 * torch.stack([((w - w0) ** 2).sum() for w, w0 in pairs]).sum()

    def __call__(self, rows: slice) -> torch.Tensor:
        """h(w) on these rows."""
        return self.task(rows) + self.term()


def built(name: str) -> Net:
    """The linear model 3 -> 2, or 3 -> 4 -> 2 with tanh; float64."""
    if name == "linear":
        return torch.nn.Linear(3, 2, dtype=torch.float64)
    first, last = torch.nn.Linear(3, 4, dtype=torch.float64), torch.nn.Linear(4, 2, dtype=torch.float64)
    return torch.nn.Sequential(first, torch.nn.Tanh(), last)


def batches() -> Iterator[slice]:
    """The rows of each step."""
    for step in range(STEPS):
        start = step * BATCH % len(X)
        yield slice(start, start + BATCH)


def plain(h: Proximal, *optimizers: torch.optim.Optimizer) -> Iterator[None]:
    """One backward and one step of each optimizer per batch."""
    for rows in batches():
        h.net.zero_grad()
        backward(h(rows))
        for optimizer in optimizers:
            optimizer.step()
        yield


def sgd(h: Proximal) -> Iterator[None]:
    """SGD."""
    return plain(h, torch.optim.SGD(h.net.parameters(), lr=0.1))


def momentum_decay(h: Proximal) -> Iterator[None]:
    """SGD with momentum and weight decay."""
    return plain(h, torch.optim.SGD(h.net.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01))


def adam(h: Proximal) -> Iterator[None]:
    """Adam."""
    return plain(h, torch.optim.Adam(h.net.parameters(), lr=0.01))


def adamw(h: Proximal) -> Iterator[None]:
    """AdamW: the decay is decoupled, the proximal term is not."""
    return plain(h, torch.optim.AdamW(h.net.parameters(), lr=0.01, weight_decay=0.1))


def two_optimizers(h: Proximal) -> Iterator[None]:
    """SGD on the first parameter, Adam on the others."""
    first, *others = h.net.parameters()
    return plain(h, torch.optim.SGD([first], lr=0.1), torch.optim.Adam(others, lr=0.01))


def frozen(h: Proximal) -> Iterator[None]:
    """The first parameter does not train."""
    next(h.net.parameters()).requires_grad_(False)
    return plain(h, torch.optim.SGD([p for p in h.net.parameters() if p.requires_grad], lr=0.1))


def accumulation(h: Proximal) -> Iterator[None]:
    """Three micro-batches a step, each loss divided by three; the term counts once a step."""
    optimizer = torch.optim.SGD(h.net.parameters(), lr=0.1, momentum=0.9)
    for _ in range(STEPS):
        optimizer.zero_grad()
        for start in (0, 4, 8):
            backward(h(slice(start, start + BATCH)) / 3)
        optimizer.step()
        yield


def clip_task(h: Proximal) -> Iterator[None]:
    """The task's gradient is clipped to norm 0.5, then the term's gradient is added."""
    optimizer = torch.optim.SGD(h.net.parameters(), lr=0.1)
    for rows in batches():
        optimizer.zero_grad()
        backward(h.task(rows))
        torch.nn.utils.clip_grad_norm_(h.net.parameters(), 0.5)
        backward(h.term())
        optimizer.step()
        yield


def clip_total(h: Proximal) -> Iterator[None]:
    """The gradient of task and term together is clipped to norm 0.5."""
    optimizer = torch.optim.SGD(h.net.parameters(), lr=0.1)
    for rows in batches():
        optimizer.zero_grad()
        backward(h(rows))
        torch.nn.utils.clip_grad_norm_(h.net.parameters(), 0.5)
        optimizer.step()
        yield


def closures(h: Proximal, **arguments: Any) -> Iterator[None]:
    """LBFGS on all rows; the closure is called several times a step."""
    optimizer: torch.optim.Optimizer = torch.optim.LBFGS(
        h.net.parameters(), max_iter=3, tolerance_grad=0, tolerance_change=0, **arguments
    )

    def closure() -> float:
        optimizer.zero_grad()
        loss = h(slice(None))
        backward(loss)
        return float(loss.detach())

    for _ in range(3):
        optimizer.step(closure)
        yield


def lbfgs(h: Proximal) -> Iterator[None]:
    """LBFGS with a fixed step."""
    return closures(h, lr=0.3)


def lbfgs_wolfe(h: Proximal) -> Iterator[None]:
    """LBFGS with the strong Wolfe line search."""
    return closures(h, lr=1.0, line_search_fn="strong_wolfe")


SCENARIOS = (
    sgd,
    momentum_decay,
    adam,
    adamw,
    two_optimizers,
    frozen,
    accumulation,
    clip_task,
    clip_total,
    lbfgs,
    lbfgs_wolfe,
)


def case(scenario: Callable[[Proximal], Iterator[None]], name: str) -> dict[str, Any]:
    """The parameters along one scenario."""
    h = Proximal(name)
    steps = [{k: p.detach().tolist() for k, p in h.net.named_parameters()} for _ in scenario(h)]
    recorded = steps if name == "linear" else steps[-1:]
    return {"scenario": scenario.__name__, "net": name, "mu": h.mu, "about": scenario.__doc__, "steps": recorded}


def check_by_hand() -> None:
    """The linear net's SGD without autograd: both gradients written out."""
    (w, b), mu = RECEIVED["linear"].values(), MUS["linear"]
    weight = weight0 = torch.tensor(w, dtype=torch.float64)
    bias = bias0 = torch.tensor(b, dtype=torch.float64)
    x, y = (torch.tensor(rows, dtype=torch.float64) for rows in (X, Y))
    for rows in batches():
        error = (x[rows] @ weight.T + bias - y[rows]) * 2 / (BATCH * 2)
        step = error.T @ x[rows] + mu * (weight - weight0), error.sum(0) + mu * (bias - bias0)
        weight, bias = weight - 0.1 * step[0], bias - 0.1 * step[1]
    last = case(sgd, "linear")["steps"][-1]
    torch.testing.assert_close(weight.tolist(), last["weight"], rtol=1e-13, atol=0)
    torch.testing.assert_close(bias.tolist(), last["bias"], rtol=1e-13, atol=0)


def main() -> None:
    """Write the file."""
    check_by_hand()
    version = torch.__version__.partition("+")[0]
    content = {
        "oracle": f"make_fedprox.py: torch {version}, autograd of the task's loss + mu/2 ||w - w0||^2, float64",
        "data": {"x": X, "y": Y, "batch": BATCH},
        "received": RECEIVED,
        "cases": [case(scenario, name) for name in RECEIVED for scenario in SCENARIOS],
    }
    vector_file.write("fedprox.json", content)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
