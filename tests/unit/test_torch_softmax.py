"""What is taken for softmax regression, and what its closed form gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor, nn

from umbel.torch.softmax import Softmax, softmax

cross_entropy = nn.functional.cross_entropy
Loss = Callable[[Any, Any], Tensor]


class Own(nn.Module):
    def __init__(self, change: Callable[[Tensor], Tensor] = lambda x: x, *, late: bool = False) -> None:
        super().__init__()
        self.layer, self.change, self.late = nn.Linear(6, 3), change, late

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.layer(x)) if self.late else self.layer(self.change(x))


def found(net: nn.Module, loss: Loss = cross_entropy, shape: tuple[int, ...] = (2, 6)) -> Softmax | None:
    x, y = torch.arange(12.0).view(shape), torch.zeros(2, dtype=torch.long)
    return softmax(loss(net(x), y), [p for p in net.parameters() if p.requires_grad], x, y)


@pytest.mark.parametrize(
    ("net", "loss", "shape"),
    [
        (nn.Linear(6, 3), cross_entropy, (2, 6)),
        (Own(), lambda z, y: nn.functional.nll_loss(nn.functional.log_softmax(z, -1), y), (2, 6)),
        (nn.Sequential(nn.Flatten(), nn.Linear(6, 3)), nn.CrossEntropyLoss(), (2, 2, 3)),
        (Own(lambda x: x.view(len(x), -1)), cross_entropy, (2, 1, 2, 3)),
        (nn.Linear(6, 3).double(), cross_entropy, (2, 6)),
    ],
)
def test_one_linear_layer_and_cross_entropy(net: nn.Module, loss: Loss, shape: tuple[int, ...]) -> None:
    x = torch.arange(12.0, dtype=next(net.parameters()).dtype).view(shape)
    y = torch.zeros(2, dtype=torch.long)
    assert softmax(loss(net(x), y), list(net.parameters()), x, y) == Softmax(weight=0, bias=1)


def test_without_a_bias() -> None:
    assert found(nn.Linear(6, 3, bias=False)) == Softmax(weight=0, bias=None)


@pytest.mark.parametrize(
    ("net", "loss"),
    [
        (nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3)), cross_entropy),
        (Own(lambda x: x / 2), cross_entropy),
        (Own(lambda x: x.flip(0)), cross_entropy),
        (Own(lambda z: z * 2, late=True), cross_entropy),
        (Own(torch.relu, late=True), cross_entropy),
        (nn.Linear(6, 3), lambda z, y: cross_entropy(z, y, label_smoothing=0.1)),
        (nn.Linear(6, 3), lambda z, y: cross_entropy(z, y, weight=torch.ones(3))),
        (nn.Linear(6, 3), lambda z, y: cross_entropy(z, y, ignore_index=0)),
        (nn.Linear(6, 3), lambda z, y: cross_entropy(z, y, reduction="sum")),
        (nn.Linear(6, 3), lambda z, y: cross_entropy(z, y) * 2),
        (nn.Linear(6, 3), lambda z, y: cross_entropy(z, 2 - y)),
        (nn.Linear(6, 3), lambda z, y: nn.functional.nll_loss(nn.functional.log_softmax(z, 0), y)),
        (nn.Linear(6, 3), lambda z, _: nn.functional.mse_loss(z, torch.zeros(2, 3))),
    ],
)
def test_anything_else_is_something_else(net: nn.Module, loss: Loss) -> None:
    assert found(net, loss) is None


def test_a_layer_of_which_not_all_is_trained() -> None:
    for part in ("weight", "bias"):
        net = nn.Linear(6, 3)
        getattr(net, part).requires_grad_(False)
        assert found(net) is None


@pytest.mark.parametrize("bias", [True, False])
def test_gradients_and_steps_are_those_of_autograd(bias: bool) -> None:
    torch.manual_seed(0)
    params = [torch.randn(5, 3, 6, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)][: 1 + bias]
    x, y = torch.randn(5, 4, 2, 3, dtype=torch.float64), torch.randint(0, 3, (5, 4))
    form = Softmax(0, 1 if bias else None)
    values, gradients = form.gradients(params, x, y)
    mine = [p.clone() for p in params]
    assert torch.equal(form.step(mine, x, y, 0.1), values)
    for k in range(5):
        own = [p[k].clone().requires_grad_() for p in params]
        loss = cross_entropy(nn.functional.linear(x[k].flatten(1), *own), y[k])
        torch.testing.assert_close(values[k], loss.detach())
        for p, g, new, wanted in zip(params, gradients, mine, torch.autograd.grad(loss, own), strict=True):
            torch.testing.assert_close(g[k], wanted)
            torch.testing.assert_close(new[k], p[k] - 0.1 * wanted)
