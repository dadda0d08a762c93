"""Corrected local training around loops of every kind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

import umbel.torch
from umbel.arrays import Arrays
from umbel.correction import Correction
from umbel.errors import EntryError, UsageError
from umbel.update import Update


class Context:
    def __init__(self, correction: Correction | None = None) -> None:
        self.correction = correction


def linear(dtype: torch.dtype = torch.float64) -> nn.Linear:
    """A layer whose parameters are multiples of 1/64, so that sums with small integers are exact."""
    net = nn.Linear(3, 2, dtype=dtype)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(64).round_().div_(64)
    return net


def ones(model: Arrays, value: float = 1.0) -> Arrays:
    return model.zeros() + value


def push(model: Arrays, pull: float = 0.0) -> Context:
    """A correction that adds exactly 1 to each gradient at the anchor, and pull * step further on."""
    return Context(Correction(pull=pull, anchor=model, offset=ones(model)))


def step(net: nn.Module, optimizer: Optimizer) -> None:
    """One step on a loss whose gradient is 0 everywhere."""
    optimizer.zero_grad()
    (net(torch.ones(1, 3, dtype=next(net.parameters()).dtype)).sum() * 0).backward()
    optimizer.step()


def moved(net: nn.Module, model: Arrays) -> float:
    """How far each parameter went from the model; the same for all."""
    distances = {float(d) for v in (umbel.torch.arrays(net) - model).values() for d in np.unique(v.round(12))}
    assert len(distances) == 1
    return distances.pop()


def sgd(net: nn.Module, **options: Any) -> torch.optim.SGD:
    return torch.optim.SGD(net.parameters(), lr=1.0, **options)


# --- the loop stays as it is ----------------------------------------------------------------------


def test_entering_writes_the_model() -> None:
    net, model = linear(), umbel.torch.arrays(linear())
    net.weight.grad = torch.ones(2, 3, dtype=torch.float64)
    with umbel.torch.local(net, model, Context()) as local:
        assert umbel.torch.arrays(net) == model
        assert net.weight.grad is None
    assert local.steps == 0


def test_without_a_correction_training_is_untouched() -> None:
    net, model = linear(), umbel.torch.arrays(linear())
    with umbel.torch.local(net, model, Context()) as local:
        optimizer = sgd(net)
        step(net, optimizer)
        step(net, optimizer)
    assert moved(net, model) == 0
    assert local.steps == 2


def test_the_update_has_the_entries_that_were_sent() -> None:
    net = nn.Sequential(linear(), linear())
    model = umbel.torch.arrays(net, only="0.*")
    with umbel.torch.local(net, model, push(model)) as local:
        step(net[0], sgd(net))
        update = local.update(weight=3, metrics={"loss": 0.5}, extra={"c": {"x": np.ones(1)}})
    assert isinstance(update, Update)
    assert update.kind == "model"
    assert update.arrays.spec == model.spec
    assert update.arrays == model - 1
    assert (update.weight, update.metrics) == (3, {"loss": 0.5})
    assert local.update().arrays == model - 1, "after the with too"


def test_the_update_of_a_model_from_a_foreign_file() -> None:
    net = nn.Sequential(linear(), nn.BatchNorm1d(2))
    header = b'{"0.bias":{"dtype":"F64","shape":[2],"data_offsets":[0,16]}}    '
    foreign = Arrays.from_bytes(len(header).to_bytes(8, "little") + header + np.arange(2.0).tobytes())
    with umbel.torch.local(net, foreign, Context()) as local:
        pass
    assert local.update().arrays == foreign


def test_gradient_accumulation_gets_the_correction_once() -> None:
    net, model = linear(), umbel.torch.arrays(linear())
    with umbel.torch.local(net, model, push(model)) as local:
        optimizer = sgd(net)
        for _ in range(4):
            (net(torch.ones(1, 3).double()).sum() * 0).backward()
        optimizer.step()
    assert moved(net, model) == -1
    assert local.steps == 1


def test_gradients_that_are_never_cleared_accumulate_the_correction_like_the_rest() -> None:
    net, model = linear(), umbel.torch.arrays(linear())
    with umbel.torch.local(net, model, push(model)):
        optimizer = sgd(net)
        for _ in range(3):
            (net(torch.ones(1, 3).double()).sum() * 0).backward()
            optimizer.step()
    assert moved(net, model) == -(1 + 2 + 3)


def test_a_second_step_on_the_same_gradients_adds_nothing() -> None:
    net, model = linear(), umbel.torch.arrays(linear())
    with umbel.torch.local(net, model, push(model)):
        optimizer = sgd(net)
        step(net, optimizer)
        optimizer.step()
    assert moved(net, model) == -2, "the gradient is 1 both times"


def test_clipping_before_the_step_acts_on_the_uncorrected_gradient() -> None:
    net, model = linear(), umbel.torch.arrays(linear())
    with umbel.torch.local(net, model, push(model)):
        optimizer = sgd(net)
        (net(torch.ones(1, 3).double()).sum() * 1e6).backward()
        norm = nn.utils.clip_grad_norm_(net.parameters(), 1e-13)
        optimizer.step()
    assert norm > 1e6
    assert moved(net, model) == -1


def test_set_to_none_and_set_to_zero() -> None:
    for to_none in (True, False):
        net, model = linear(), umbel.torch.arrays(linear())
        with umbel.torch.local(net, model, push(model)):
            optimizer = sgd(net)
            for _ in range(3):
                optimizer.zero_grad(set_to_none=to_none)
                (net(torch.ones(1, 3).double()).sum() * 0).backward()
                optimizer.step()
        assert moved(net, model) == -3


def test_a_scheduler_wraps_the_step() -> None:
    net, model = linear(), umbel.torch.arrays(linear())
    with umbel.torch.local(net, model, push(model)) as local:
        optimizer = sgd(net)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        for _ in range(3):
            step(net, optimizer)
            scheduler.step()
    assert moved(net, model) == -(1 + 0.5 + 0.25)
    assert local.steps == 3


def test_two_optimizers_on_two_parts() -> None:
    net, model = linear(), umbel.torch.arrays(linear())
    with umbel.torch.local(net, model, push(model)) as local:
        for _ in range(3):
            net(torch.ones(1, 3).double()).mul(0).sum().backward()
            for p in net.parameters():
                torch.optim.SGD([p], lr=1.0).step()
            net.zero_grad()
    assert moved(net, model) == -3
    assert local.steps == 3, "not 6, and not 1: an optimizer made anew counts on"


def test_a_parameter_without_a_gradient_is_skipped() -> None:
    net = nn.Sequential(linear(), linear())
    model = umbel.torch.arrays(net)
    with umbel.torch.local(net, model, push(model, pull=1.0)):
        step(net[0], sgd(net))
    got = umbel.torch.arrays(net) - model
    assert got["0.weight"].max() == -1
    assert got["1.weight"].min() == 0


def test_frozen_parameters_are_not_corrected() -> None:
    net = linear()
    net.bias.requires_grad_(False)
    model = umbel.torch.arrays(net)
    with umbel.torch.local(net, model, Context(Correction(pull=1.0, anchor=model, offset=ones(model)))):
        step(net, sgd(net))
    got = umbel.torch.arrays(net) - model
    assert got["weight"].max() == -1
    assert got["bias"].max() == 0


def test_tied_weights_get_the_correction_once() -> None:
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)).double()
    net[1].weight = net[0].weight
    model = umbel.torch.arrays(net)
    with umbel.torch.local(net, model, push(model)):
        step(net, sgd(net))
    assert moved(net, model) == -1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_correction_in_another_precision(dtype: torch.dtype) -> None:
    net = linear(dtype)
    model = umbel.torch.arrays(net)
    wide = ones(model.astype("F64"), 0.5)
    with umbel.torch.local(net, model, Context(Correction(pull=0.0, anchor=model, offset=wide))):
        before = net.weight.detach().clone()
        step(net, sgd(net))
        assert torch.equal(net.weight, before - 0.5)


def test_a_module_that_is_converted_inside() -> None:
    net = linear(torch.float32)
    model = umbel.torch.arrays(net)
    with umbel.torch.local(net, model, push(model, pull=1.0)):
        net.double()
        optimizer = sgd(net)
        step(net, optimizer)
        net.float()
    assert moved(net, model) == pytest.approx(-1, abs=1e-6)


# --- closures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [sgd, lambda net: torch.optim.Adam(net.parameters(), lr=1.0)])
def test_a_closure_returns_the_loss_with_the_term(make: Callable[[nn.Module], Optimizer]) -> None:
    net, model = linear(), umbel.torch.arrays(linear())
    correction = Correction(pull=2.0, anchor=model - 1, offset=ones(model))
    calls = []

    def closure(as_number: bool) -> Any:
        calls.append(1)
        net.zero_grad()
        loss = net(torch.zeros(1, 3).double()).sum() * 0 + 5
        loss.backward()
        return loss.item() if as_number else loss

    expected = 5 + 2.0 / 2 * 8 + sum(float(v.sum()) for v in model.values())
    for as_number in (False, True):
        with umbel.torch.local(net, model, Context(correction)) as local:
            loss = make(net).step(partial(closure, as_number))
        assert torch.as_tensor(loss).item() == pytest.approx(expected)
        assert local.steps == 1
    assert len(calls) == 2


def test_a_closure_by_keyword_and_one_that_returns_nothing() -> None:
    net, model = linear(), umbel.torch.arrays(linear())

    def closure() -> None:
        net.zero_grad()
        net(torch.zeros(1, 3).double()).mul(0).sum().backward()

    with umbel.torch.local(net, model, push(model)):
        assert sgd(net).step(closure=closure) is None
    assert moved(net, model) == -1


def test_a_line_search_sees_a_function_and_its_own_gradient() -> None:
    """The corrected quadratic 1/2 |w|^2 + pull/2 |w - a|^2 + <o, w> has its minimum at (pull * a - o) / (1 + pull)."""
    net, model = linear(), umbel.torch.arrays(linear())
    correction = Correction(pull=3.0, anchor=model, offset=ones(model))
    with umbel.torch.local(net, model, Context(correction)) as local:
        optimizer = torch.optim.LBFGS(net.parameters(), max_iter=20, line_search_fn="strong_wolfe")

        def closure() -> Any:
            optimizer.zero_grad()
            loss = torch.stack([p.square().sum() / 2 for p in net.parameters()]).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimizer.step(closure)  # type: ignore[no-untyped-call]
    assert not umbel.torch.arrays(net).difference((3.0 * model - 1.0) / 4.0, rtol=1e-9, atol=1e-9)
    assert local.steps == 1


# --- optimizers within optimizers ------------------------------------------------------------------


class Wrapper(Optimizer):
    """An optimizer that steps another one, as Lookahead and sharded optimizers do."""

    def __init__(self, inner: Optimizer) -> None:
        super().__init__(inner.param_groups, {})
        self.inner = inner

    def step(self, closure: Any = None) -> Any:
        return self.inner.step(torch.enable_grad()(closure) if closure else None)


class Sharpness(Optimizer):
    """Sharpness-aware minimisation: up to w + e, a gradient there, back, and a step of another optimizer."""

    def __init__(self, inner: Optimizer) -> None:
        super().__init__(inner.param_groups, {})
        self.inner = inner

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        with torch.enable_grad():
            closure()
        params = [p for group in self.param_groups for p in group["params"]]
        for p in params:
            p.add_(0.25)
        with torch.enable_grad():
            loss = closure()
        for p in params:
            p.sub_(0.25)
        self.inner.step()
        return loss


def test_an_optimizer_within_an_optimizer_corrects_and_counts_once() -> None:
    for use_closure in (False, True):
        net, model = linear(), umbel.torch.arrays(linear())
        with umbel.torch.local(net, model, push(model)) as local:
            optimizer = Wrapper(sgd(net))
            for _ in range(2):

                def closure(net: nn.Module = net) -> Any:
                    net.zero_grad()
                    loss = net(torch.zeros(1, 3).double()).mul(0).sum()
                    loss.backward()
                    return loss

                if use_closure:
                    start = sum(float(p.detach().sum()) for p in net.parameters())
                    assert optimizer.step(closure).item() == pytest.approx(start), "the term is added once"
                else:
                    closure()
                    optimizer.step()
        assert moved(net, model) == -2
        assert local.steps == 2


def test_sharpness_aware_minimisation_is_corrected_where_its_gradient_is_taken() -> None:
    net, model = linear(), umbel.torch.arrays(linear())

    def closure() -> None:
        net.zero_grad()
        net(torch.zeros(1, 3).double()).mul(0).sum().backward()

    with umbel.torch.local(net, model, push(model, pull=2.0)) as local:
        Sharpness(sgd(net)).step(closure)
    assert moved(net, model) == pytest.approx(-(1 + 2.0 * 0.25))
    assert local.steps == 1


# --- mixed precision ------------------------------------------------------------------------------


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("unscale", [False, True])
def test_a_gradient_scaler(fused: bool, unscale: bool) -> None:
    net = nn.Linear(3, 2)
    model = umbel.torch.arrays(net)
    data = [torch.ones(1, 3), torch.full((1, 3), torch.inf), torch.ones(1, 3)]

    def train(context: Context | None) -> tuple[int, Arrays]:
        local = umbel.torch.local(net, model, context or Context())
        with local:
            optimizer = torch.optim.SGD(net.parameters(), lr=0.01, fused=fused)
            scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
            for x in data:
                optimizer.zero_grad()
                with torch.autocast("cpu", torch.bfloat16):
                    loss = net(x).float().square().sum()
                if context is None:
                    loss = loss + sum(((p - a).square().sum() / 2 + p.sum() for p, a in pairs()), torch.zeros(()))
                scaler.scale(loss).backward()
                if unscale:
                    scaler.unscale_(optimizer)
                scaler.step(optimizer)
                scaler.update()
        return local.steps, umbel.torch.arrays(net)

    def pairs() -> list[tuple[Tensor, Tensor]]:
        return [(p, torch.tensor(model[n])) for n, p in net.named_parameters()]

    (_, expected), (steps, got) = train(None), train(push(model, pull=1.0))
    assert steps == 2, "the step on infinite gradients was skipped"
    assert not got.difference(expected, rtol=1e-5, atol=1e-7)


# --- who is concerned -----------------------------------------------------------------------------


def test_after_the_with_nothing_is_corrected() -> None:
    net, model = linear(), umbel.torch.arrays(linear())
    with umbel.torch.local(net, model, push(model)):
        optimizer = sgd(net)
        step(net, optimizer)
    step(net, optimizer)
    assert moved(net, model) == -1


def test_a_loop_behind_the_with_is_noticed() -> None:
    net, model = linear(), umbel.torch.arrays(linear())
    with umbel.torch.local(net, model, push(model)) as local:
        pass
    net.zero_grad()
    sgd(net).step()  # without gradients it does nothing
    local.update()
    step(net, sgd(net))
    with pytest.raises(
        UsageError, match=r"Linear was trained after the `with .*\n.*put the whole loop into the `with`"
    ):
        local.update()
    with local:
        step(net, sgd(net))
    assert local.update().arrays == umbel.torch.arrays(net)
    with umbel.torch.local(net, model, Context()) as uncorrected:
        pass
    step(net, sgd(net))
    assert uncorrected.update().arrays == umbel.torch.arrays(net)


def test_after_an_exception_nothing_is_corrected_and_the_module_is_free() -> None:
    net, model = linear(), umbel.torch.arrays(linear())
    with pytest.raises(ZeroDivisionError), umbel.torch.local(net, model, push(model)):
        raise ZeroDivisionError
    step(net, sgd(net))
    assert moved(net, model) == 0
    with umbel.torch.local(net, model, push(model)):
        step(net, sgd(net))
    assert moved(net, model) == -1


def test_other_modules_are_not_concerned() -> None:
    net, other = linear(), linear()
    model, theirs = umbel.torch.arrays(net), umbel.torch.arrays(other)
    with umbel.torch.local(net, model, push(model)) as local:
        step(other, sgd(other))
        assert local.steps == 0
    assert moved(other, theirs) == 0


def test_an_optimizer_of_two_modules_and_one_within_the_other() -> None:
    first, second = linear(), linear()
    model = umbel.torch.arrays(first)
    with (
        umbel.torch.local(first, model, push(model)) as outer,
        umbel.torch.local(second, model, Context(Correction(pull=0.0, anchor=model, offset=ones(model, 2.0)))) as inner,
    ):
        net = nn.Sequential(first, nn.Linear(2, 3).double(), second)
        step(net, sgd(net))
    assert (moved(first, model), moved(second, model)) == (-1, -2)
    assert (outer.steps, inner.steps) == (1, 1)


def test_a_module_in_use_is_refused() -> None:
    net, model = linear(), umbel.torch.arrays(linear())
    with umbel.torch.local(net, model, push(model)):
        step(net, sgd(net))
        with pytest.raises(UsageError, match="already inside"), umbel.torch.local(net, model + 1, Context()):
            pass
        assert moved(net, model) == -1, "and was not written to"
        step(net, sgd(net))
    assert moved(net, model) == -2


def test_one_local_twice_in_a_row_and_not_within_itself() -> None:
    net, model = linear(), umbel.torch.arrays(linear())
    local = umbel.torch.local(net, model, push(model))
    for _ in range(2):
        with local:
            step(net, sgd(net))
            with pytest.raises(UsageError, match="already inside"), local:
                pass
            step(net, sgd(net))
        assert local.steps == 2
        step(net, sgd(net))
        assert moved(net, model) == -2


def test_arguments_in_the_wrong_order() -> None:
    net = linear()
    with (
        pytest.raises(UsageError, match=r"expected a torch\.nn\.Module, not Arrays"),
        umbel.torch.local(umbel.torch.arrays(net), net, Context()),  # type: ignore[arg-type]
    ):
        pass


def test_threads_with_a_module_each() -> None:
    def client(number: int, results: dict[int, float], start: threading.Barrier) -> None:
        net = linear()
        model = umbel.torch.arrays(net)
        offset = ones(model, float(number))
        start.wait()
        for _ in range(20):
            with umbel.torch.local(net, model, Context(Correction(pull=0.0, anchor=model, offset=offset))):
                optimizer = sgd(net)
                for _ in range(5):
                    step(net, optimizer)
            results[number] = moved(net, model)

    results: dict[int, float] = {}
    start = threading.Barrier(4)
    threads = [threading.Thread(target=client, args=(i, results, start)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == {i: -5.0 * i for i in range(4)}


# --- what goes wrong is said ----------------------------------------------------------------------


def test_a_sparse_gradient_is_refused_by_name() -> None:
    net = nn.Embedding(4, 2, sparse=True)
    model = umbel.torch.arrays(net)
    for context in (Context(), push(model)):
        optimizer = sgd(net)
        with umbel.torch.local(net, model, context) as local:
            net(torch.tensor([1])).sum().backward()
            if context.correction:
                with pytest.raises(UsageError, match="gradient of 'weight' is sparse"):
                    optimizer.step()
            else:
                optimizer.step()
                assert local.steps == 1


def test_a_loop_that_steps_by_hand_is_noticed() -> None:
    net, model = linear(), umbel.torch.arrays(linear())
    with (
        pytest.raises(UsageError, match=r"'weight' was trained, but no torch\.optim optimizer stepped it"),
        umbel.torch.local(net, model, push(model)),
        torch.no_grad(),
    ):
        net.weight.sub_(1.0)
    with umbel.torch.local(net, model, Context()), torch.no_grad():
        net.weight.sub_(1.0)


def test_training_nothing_is_lawful() -> None:
    net = nn.Sequential(linear(), nn.BatchNorm1d(2)).double()
    model = umbel.torch.arrays(net)
    offset = model.select(lambda e: e.role == "trained").zeros()
    with umbel.torch.local(net, model, Context(Correction(pull=1.0, anchor=model, offset=offset))) as local:
        net(torch.rand(4, 3).double())  # moves the statistics, not the parameters
    assert local.steps == 0


def test_a_parameter_that_is_replaced_inside_is_noticed() -> None:
    net, model = linear(), umbel.torch.arrays(linear())
    with (
        pytest.raises(UsageError, match="'weight' was replaced"),
        umbel.torch.local(net, model, push(model)),
    ):
        net.weight = nn.Parameter(net.weight.detach().clone())


def test_a_correction_that_does_not_fit() -> None:
    net = linear()
    model = umbel.torch.arrays(net)
    part, other = model.select("weight"), umbel.torch.arrays(nn.Linear(2, 2).double())
    for anchor, offset, name in ((model, part, "bias"), (model, other, "weight"), (other, None, "weight")):
        with (
            pytest.raises(EntryError, match=f"the correction of '{name}'") as caught,
            umbel.torch.local(net, model, Context(Correction(pull=1.0, anchor=anchor, offset=offset))),
        ):
            pass
        assert caught.value.entry == name
    with (
        pytest.raises(EntryError, match="the correction has 'bias', which the model does not have"),
        umbel.torch.local(net, part, Context(Correction(pull=1.0, anchor=model))),
    ):
        pass
    with umbel.torch.local(net, model, Context()):
        pass


def test_the_update_of_a_module_that_was_untied_inside() -> None:
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    net[1].weight = net[0].weight
    with umbel.torch.local(net, umbel.torch.arrays(net), Context()) as local:
        net[1].weight = nn.Parameter(torch.zeros(3, 3))
    with pytest.raises(EntryError, match="tied in the model and are two tensors"):
        local.update()


def test_the_update_of_a_module_that_was_converted_inside() -> None:
    net = linear()
    with umbel.torch.local(net, umbel.torch.arrays(net), Context()) as local:
        net.float()
    with pytest.raises(EntryError, match=r"the model has torch\.float64, Linear has torch\.float32"):
        local.update()


def test_the_gradients_are_not_kept_alive() -> None:
    """Between two steps only PyTorch holds the gradients, so that dropping them frees their memory."""
    net, model = linear(), umbel.torch.arrays(linear())
    freed: list[str] = []

    class Watch:
        def __del__(self) -> None:
            freed.append("")

    with umbel.torch.local(net, model, push(model)):
        optimizer = sgd(net)
        step(net, optimizer)
        assert net.weight.grad is not None
        net.weight.grad.watch = Watch()  # type: ignore[attr-defined]
        net.zero_grad()
        assert freed == [""]
