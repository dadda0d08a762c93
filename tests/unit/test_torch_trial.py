"""Modules whose clients had better not be stacked, though PyTorch would stack them: they are trained one by one."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import umbel
from tests.unit.test_torch_declared import alone, arrays_of, asked, bench, by_hand, drawn, made, stacked, together


class Computes(nn.Module):
    """Two layers, and what a test does with what goes in."""

    def __init__(self, deed: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.deed = nn.Linear(4, 5), nn.Linear(5, 4), deed
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("last", None)
        self.known: dict[int, Tensor] = {}
        self.decayed = [self.a.weight]
        self.seen = 0
        self.sums = nn.RNN(4, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(self.deed(self, x))))  # type: ignore[no-any-return]  # a module's own


def averages(net: Computes, x: Tensor) -> Tensor:
    net.mean = 0.9 * net.mean + 0.1 * x.mean(0).detach()
    return x - net.mean


def remembers(net: Computes, x: Tensor) -> Tensor:
    if len(x) not in net.known:
        net.known[len(x)] = torch.zeros_like(x) + torch.arange(4.0)
    return x + net.known[len(x)]


def counts(net: Computes, x: Tensor) -> Tensor:
    net.seen += 1
    return x / net.seen


def changes_its_input(net: Computes, x: Tensor) -> Tensor:
    x /= 2
    return x


DEEDS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "assigns a buffer": averages,
    "keeps what it made of its input": remembers,
    "counts its calls": counts,
    "changes its input": changes_its_input,
    "draws from random": lambda _, x: x.flip(-1) if random.random() < 0.5 else x,
    "draws from numpy": lambda _, x: x * float(np.random.rand()),
    "uses its parameters a second time": lambda net, x: x + 1e-4 * net.decayed[0].pow(2).sum(),
    "uses their values": lambda net, x: x + 1e-4 * net.decayed[0].detach().sum(),
    "is recurrent": lambda net, x: net.sums(x[:, None])[0][:, 0],
}


def module_that(deed: str) -> Callable[[], nn.Module]:
    return lambda: Computes(DEEDS[deed])


@pytest.mark.parametrize("deed", sorted(DEEDS))
@pytest.mark.parametrize("zero", [False, True])
def test_a_module_that_does_more_than_compute_is_not_stacked(
    deed: str, zero: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the values of the model are on which it is tried first."""
    data, net = drawn([6] * 20), module_that(deed)
    model = made(net) * (0.0 if zero else 1.0)
    widths = stacked(monkeypatch)
    many = together(bench(net, data), asked(model), data)
    assert widths == []
    if deed not in ("counts its calls", "keeps what it made of its input"):  # of the clients before, then
        at = bench(net, data)
        assert arrays_of(many) == [arrays_of(alone(at, asked(model), {n: data[n]}))[0] for n in data]


@pytest.mark.parametrize("padding", [0, 1])
def test_an_embedding_with_padding_is_not_stacked(padding: int) -> None:
    """PyTorch's vmap heeds it for the first client only."""
    rng = np.random.default_rng(0)
    data = {str(i): (rng.integers(0, 6, (8, 5)), rng.integers(0, 4, 8)) for i in range(20)}

    def net() -> nn.Module:
        return nn.Sequential(nn.Embedding(6, 4, padding_idx=padding), nn.Flatten(), nn.Linear(20, 4))

    at, question = bench(net, data), asked(made(net))
    assert arrays_of(together(at, question, data)) == arrays_of(alone(at, question, data))


class Warns(nn.Module):
    """PyTorch warns once in a process that ``indexing`` is not given."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        i, j = torch.meshgrid(torch.arange(2.0), torch.arange(2.0))
        return self.a(torch.tanh(self.a(x + (i + j).flatten())))  # type: ignore[no-any-return]  # a module's own


def test_what_was_warned_of_before_makes_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    data, question, widths = drawn([8] * 20), asked(made(Warns)), stacked(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arrays_of(together(bench(Warns, data), question, data))
        before, widths[:] = widths[:], []
        Warns()(torch.zeros(2, 4))
        arrays_of(together(bench(Warns, data), question, data))
    assert widths == before == [20, 20]


def test_a_loss_that_looks_at_how_large_its_batch_is_has_no_closed_form_for_all_of_them() -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        if len(targets) <= 2:
            return cross_entropy(outputs, targets)
        return cross_entropy(outputs, targets, reduction="none").topk(len(targets) // 2)[0].mean()

    data = drawn([10] * 20)  # batches of 4, 4 and 2
    at, question = bench(lambda: nn.Linear(4, 4), data, loss=loss), asked(made(lambda: nn.Linear(4, 4)))
    for a, b in zip(arrays_of(together(at, question, data)), arrays_of(alone(at, question, data)), strict=True):
        assert a.difference(b, rtol=1e-5, atol=1e-5) == ""


class Halves(nn.Linear):
    """In place, and only batches of more than two."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 2:
            x /= 2
        return super().forward(x)


@pytest.mark.parametrize("net", [lambda: Halves(4, 4), lambda: nn.Sequential(Halves(4, 4), nn.Tanh(), nn.Linear(4, 4))])
def test_a_module_that_changes_larger_batches_than_the_trial_s_is_given_copies(net: Callable[[], nn.Module]) -> None:
    data = drawn([10] * 20)
    at, question = bench(net, data, epochs=2), asked(made(net))
    for a, b in zip(arrays_of(together(at, question, data)), arrays_of(alone(at, question, data)), strict=True):
        assert a.difference(b, rtol=1e-5, atol=1e-5) == ""


def test_a_buffer_that_is_assigned_anew_is_what_a_loop_makes_of_it() -> None:
    data, net = drawn([8] * 3), module_that("assigns a buffer")
    model, at = made(net), bench(net, data, epochs=2)
    for (client, its), got in zip(data.items(), arrays_of(alone(at, asked(model), data)), strict=True):
        assert got.difference(by_hand(net(), model, its, None), rtol=1e-6, atol=1e-6) == "", client
        assert got["mean"].any()


def test_a_buffer_whose_shape_training_changes_is_refused_by_name() -> None:
    class Grows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)
            self.met: Tensor
            self.register_buffer("met", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.met = torch.cat([self.met, torch.zeros(1)])
            return self.a(x)  # type: ignore[no-any-return]  # a module's own

    data = drawn([4] * 2)
    for done in alone(bench(Grows, data), asked(made(Grows)), data):
        assert isinstance(done, umbel.errors.Failure)
        assert "buffer 'met'" in done.message


@pytest.fixture
def on_disk(tmp_path: Path) -> np.ndarray[Any, Any]:
    np.save(tmp_path / "x.npy", np.full((8, 4), 8, np.float32))
    x: np.ndarray[Any, Any] = np.load(tmp_path / "x.npy", mmap_mode="r")
    return x


def test_what_a_module_does_to_its_input_is_not_done_to_the_data(on_disk: np.ndarray[Any, Any]) -> None:
    net = module_that("changes its input")
    data = {"0": (on_disk, np.zeros(8, np.int64))}
    at, question = bench(net, data), asked(made(net))
    assert arrays_of(alone(at, question, data)) == arrays_of(alone(at, question, data))
    assert (on_disk == 8).all()


@pytest.mark.parametrize("ask", [together, alone])
def test_a_loss_that_is_no_number_says_what_to_look_for(ask: Any) -> None:
    data = {
        "0": (np.full((8, 4), np.nan, np.float32), np.zeros(8, np.int64)),
        "1": (np.zeros((8, 4), np.float32), np.full(8, -100)),
    }
    for done in ask(bench(lambda: nn.Linear(4, 4), data), asked(made(lambda: nn.Linear(4, 4))), data):
        assert isinstance(done, umbel.errors.Failure)
        assert "learning rate" in done.message
        assert "loss" in done.message
