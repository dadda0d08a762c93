"""Drives torch.optim with the pseudo-gradient -delta in float64 and writes torch_optimizers.json. Needs PyTorch.

`same` names our optimizer whose definition coincides, with its hyper-parameters:

- SGD(lr, momentum, dampening=0, nesterov) is heavy ball and Nesterov as they stand;
- Adagrad(initial_accumulator_value=tau^2, eps=tau) is FedAdagrad with beta1 = 0;
- Adam corrects the bias. With its step counter preset to 10^6 both corrections are 1 in float64, and with its second
  moment preset to tau^2 it is FedAdam; `preset` says so.

Adam and SGD with dampening = momentum as they come out of the box are recorded too, with `same` null: nothing of ours
computes them, and the vectors are there for whoever adds an option that does.
"""

from __future__ import annotations

from typing import Any

import torch

from tests.golden import vector_file

DELTAS = "steps"
CASES: list[tuple[str, dict[str, Any], dict[str, float], dict[str, Any] | None]] = [
    # torch.optim class, its arguments, its preset state, ours
    ("SGD", {"lr": 0.3}, {}, {"optimizer": "sgd", "lr": 0.3}),
    ("SGD", {"lr": 1.0, "momentum": 0.9}, {}, {"optimizer": "momentum", "lr": 1.0, "momentum": 0.9}),
    (
        "SGD",
        {"lr": 0.3, "momentum": 0.5, "nesterov": True},
        {},
        {"optimizer": "momentum", "lr": 0.3, "momentum": 0.5, "nesterov": True},
    ),
    (
        "Adagrad",
        {"lr": 0.1, "initial_accumulator_value": 1e-3**2, "eps": 1e-3},
        {},
        {"optimizer": "adagrad", "lr": 0.1, "tau": 1e-3},
    ),
    (
        "Adam",
        {"lr": 0.1, "betas": [0.9, 0.99], "eps": 1e-3},
        {"step": 1e6, "exp_avg_sq": 1e-3**2},
        {"optimizer": "adam", "lr": 0.1, "beta1": 0.9, "beta2": 0.99, "tau": 1e-3},
    ),
    ("Adam", {"lr": 0.1, "betas": [0.9, 0.99], "eps": 1e-3}, {}, None),
    ("SGD", {"lr": 0.3, "momentum": 0.9, "dampening": 0.9}, {}, None),
]


def played(name: str, arguments: dict[str, Any], preset: dict[str, float]) -> list[dict[str, Any]]:
    """The model after each step."""
    inputs = vector_file.read("inputs.json")[DELTAS]
    model = {k: torch.tensor(v, dtype=torch.float64, requires_grad=True) for k, v in inputs["model"].items()}
    optimizer: torch.optim.Optimizer = getattr(torch.optim, name)(list(model.values()), **arguments)
    if preset:
        for tensor in model.values():
            optimizer.state[tensor] = {
                "step": torch.tensor(preset["step"], dtype=torch.float64),
                "exp_avg": torch.zeros_like(tensor),
                "exp_avg_sq": torch.full_like(tensor, preset["exp_avg_sq"]),
            }
    out = []
    for delta in inputs["deltas"]:
        for k, tensor in model.items():
            tensor.grad = -torch.tensor(delta[k], dtype=torch.float64)
        optimizer.step()
        out.append({k: tensor.tolist() for k, tensor in model.items()})
    return out


def main() -> None:
    """Write the file."""
    cases = [
        {
            "torch": name,
            "arguments": arguments,
            "preset": preset,
            "same": same,
            "dtype": "float64",
            "models": played(name, arguments, preset),
        }
        for name, arguments, preset, same in CASES
    ]
    version = torch.__version__.partition("+")[0]
    vector_file.write(
        "torch_optimizers.json", {"oracle": f"make_torch_optim.py: torch {version}", "inputs": DELTAS, "cases": cases}
    )


if __name__ == "__main__":
    main()
