"""Any module goes into arrays and back bit by bit; a corrected loop is the loop with the term in its loss."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")

import torch
from torch import Tensor, nn

import umbel.torch
from umbel.arrays import Arrays
from umbel.correction import Correction
from umbel.spec import entries

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
OTHERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
STRIDES: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda t: t,
    lambda t: t.mT.contiguous().mT if t.ndim >= 2 else t,
    lambda t: t.repeat_interleave(2, dim=-1)[..., ::2] if t.ndim and t.numel() else t,
)


def filled(draw: st.DrawFn, dtype: torch.dtype) -> Tensor:
    """A tensor of any bits, NaN among them, and any strides."""
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    size = torch.empty(shape, dtype=dtype).nbytes
    raw = torch.randint(0, 2 if dtype == torch.bool else 256, (size,), generator=generator, dtype=torch.uint8)
    return draw(st.sampled_from(STRIDES))(raw.view(dtype).reshape(shape))


def bits(t: Tensor) -> bytes:
    flat = t.detach().reshape(-1).clone(memory_format=torch.contiguous_format)
    return bytes(flat.view(torch.uint8).numpy().tobytes())


class Node(nn.Module):
    """A module that only holds tensors."""


@st.composite
def modules(draw: st.DrawFn) -> nn.Module:
    """Nested modules: tied parameters, shared submodules, frozen parameters, buffers of all kinds."""
    params: list[nn.Parameter] = []
    nodes: list[nn.Module] = []

    def make(depth: int) -> nn.Module:
        node = Node()
        for i in range(draw(st.integers(0, 3))):
            kind = draw(st.sampled_from(["parameter", "frozen", "tied", "buffer", "hidden buffer", "expanded"]))
            if kind == "tied" and params:
                node.register_parameter(f"p{i}", draw(st.sampled_from(params)))
            elif kind in ("buffer", "hidden buffer"):
                t = filled(draw, draw(st.sampled_from(FLOATS + OTHERS)))
                node.register_buffer(f"b{i}", t, persistent=kind == "buffer")
            elif kind == "expanded":
                node.register_buffer(f"e{i}", filled(draw, torch.float32).flatten()[:1].sum().expand(2, 3))
            else:
                dtype = draw(st.sampled_from(FLOATS))
                params.append(nn.Parameter(filled(draw, dtype), requires_grad=kind != "frozen"))
                node.register_parameter(f"p{i}", params[-1])
        for i in range(draw(st.integers(0, 2)) if depth else 0):
            shared = bool(nodes) and draw(st.booleans())
            node.add_module(f"m{i}", draw(st.sampled_from(nodes)) if shared else make(depth - 1))
        nodes.append(node)
        return node

    return make(2)


def scrambled(net: nn.Module) -> nn.Module:
    """The same module with other values."""
    other = copy.deepcopy(net)
    with torch.no_grad():
        for t in other.state_dict(keep_vars=True).values():
            one = t[:1, :1] if t.numel() and 0 in t.stride() and t.ndim == 2 else t
            one.copy_(torch.ones_like(one) if t.dtype == torch.bool else torch.full_like(one, 7))
    return other


@given(modules())
def test_arrays_are_the_state_dict(net: nn.Module) -> None:
    state = net.state_dict(keep_vars=True)
    model = umbel.torch.arrays(net)
    assert list(model) == list(state)
    for name, t in state.items():
        assert model.raw(name).tobytes() == bits(t)
        assert model.spec.by_name[name].shape == t.shape
        assert (model.spec.by_name[name].role in ("trained", "frozen")) == (
            isinstance(t, nn.Parameter) and t.dtype.is_floating_point
        )
    assert {a: id(state[a]) for a, _ in model.spec.aliases} == {a: id(state[t]) for a, t in model.spec.aliases}
    assert len(model.spec.entries) == len({id(t) for t in state.values()})


@given(modules())
def test_into_a_module_and_back(net: nn.Module) -> None:
    model = umbel.torch.arrays(net)
    other = scrambled(net)
    before = {name: (id(t), t.requires_grad, t.stride()) for name, t in other.state_dict(keep_vars=True).items()}
    assert umbel.torch.into(other, model) is other
    after = other.state_dict(keep_vars=True)
    assert {name: (id(t), t.requires_grad, t.stride()) for name, t in after.items()} == before
    assert {name: bits(t) for name, t in after.items()} == {
        name: bits(t) for name, t in net.state_dict(keep_vars=True).items()
    }
    assert umbel.torch.arrays(other) == model


@given(modules())
def test_neither_side_refers_to_the_other(net: nn.Module) -> None:
    model = umbel.torch.arrays(net)
    before = bytes(model.to_bytes())
    umbel.torch.into(net, model)
    with torch.no_grad():
        for t in net.state_dict(keep_vars=True).values():
            if 0 not in t.stride():
                t.zero_()
    assert bytes(model.to_bytes()) == before


@given(modules(), st.sampled_from(["*p*", "m0.*", "*b0", "p0"]))
def test_only_some_entries(net: nn.Module, pattern: str) -> None:
    wanted = [name for name in net.state_dict() if entries(pattern).match(name)]
    if not wanted:
        return
    part = umbel.torch.arrays(net, only=pattern)
    assert list(part) == wanted
    other = scrambled(net)
    kept = {n: bits(t) for n, t in other.state_dict().items()}
    chosen = {id(t) for n, t in other.state_dict(keep_vars=True).items() if n in wanted}
    umbel.torch.into(other, part)
    for name, t in other.state_dict(keep_vars=True).items():
        assert bits(t) == (bits(net.state_dict()[name]) if id(t) in chosen else kept[name])


# --- the correction -------------------------------------------------------------------------------

Make = Callable[[list[Tensor]], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "sgd, foreach, momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, foreach=True),
    "sgd, fused, nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, fused=True),
    "sgd, maximize": lambda p: torch.optim.SGD(p, lr=0.01, maximize=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adam, foreach, amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True, foreach=True),
    "adamw, fused": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1, fused=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
    "groups": lambda p: torch.optim.SGD([{"params": part, "lr": lr} for part, lr in ((p[:1], 0.2), (p[1:], 0.05))]),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3),
    "lbfgs, strong wolfe": lambda p: torch.optim.LBFGS(p, max_iter=3, line_search_fn="strong_wolfe"),
}


class Context:
    def __init__(self, correction: Correction | None) -> None:
        self.correction = correction


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def penalty(net: nn.Module, correction: Correction) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for name, p in net.named_parameters():
        anchor = torch.tensor(correction.anchor[name])
        total = total + correction.pull / 2 * (p - anchor).square().sum()
        if correction.offset is not None:
            total = total + (torch.tensor(correction.offset[name]) * p).sum()
    return total


def train(
    net: nn.Module,
    make: Make,
    data: list[tuple[Tensor, Tensor]],
    *,
    term: Callable[[], Tensor] | None,
    closure: bool,
    micro: int,
) -> list[float]:
    """A training loop as people write them, the term of the loss in it or not."""
    optimizer = make(list(net.parameters()))
    losses = []

    def evaluate(x: Tensor, y: Tensor) -> Any:
        optimizer.zero_grad()
        total = torch.zeros((), dtype=torch.float64)
        for i, (a, b) in enumerate(zip(x.chunk(micro), y.chunk(micro), strict=True)):
            loss = (net(a) - b).square().mean() / micro
            if i == 0 and term is not None:
                loss = loss + term()
            loss.backward()
            total += loss.detach()
        return total

    for x, y in data:
        if closure:
            losses.append(float(optimizer.step(partial(evaluate, x, y))))
        else:
            evaluate(x, y)
            optimizer.step()
    return losses


@given(
    name=st.sampled_from(sorted(OPTIMIZERS)),
    pull=st.sampled_from([0.0, 0.01, 1.0, 3.0]),
    offset=st.booleans(),
    closure=st.booleans(),
    micro=st.sampled_from([1, 2]),
    steps=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
def test_a_corrected_loop_is_the_loop_with_the_term_in_its_loss(
    *, name: str, pull: float, offset: bool, closure: bool, micro: int, steps: int, seed: int
) -> None:
    torch.default_generator.manual_seed(seed)
    model = umbel.torch.arrays(mlp())
    drift = Arrays({n: torch.randn(v.shape, dtype=torch.float64).numpy() for n, v in model.items()})
    correction = Correction(pull=pull, anchor=model, offset=drift if offset else None)
    data = [(torch.randn(4, 3).double(), torch.randn(4, 2).double()) for _ in range(steps)]
    closure = closure or name.startswith("lbfgs")
    options: dict[str, Any] = {"closure": closure, "micro": micro}

    plain, ours = mlp(), mlp()
    umbel.torch.into(plain, model)
    expected = train(plain, OPTIMIZERS[name], data, term=lambda: penalty(plain, correction), **options)
    with umbel.torch.local(ours, model, Context(correction)) as local:
        got = train(ours, OPTIMIZERS[name], data, term=None, **options)
    assert local.steps == steps
    tolerance = 1e-6 if name.startswith("lbfgs") else 1e-12  # its estimate of the curvature magnifies rounding
    assert got == pytest.approx(expected, rel=tolerance, abs=tolerance)
    difference = local.update().arrays.difference(umbel.torch.arrays(plain), rtol=tolerance, atol=tolerance)
    assert not difference
