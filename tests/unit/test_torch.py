"""Modules as arrays: names, roles, what is refused, and what stays as it was."""

from __future__ import annotations

import copy
import gc
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor, nn

import umbel.torch
from umbel.arrays import Arrays
from umbel.errors import BadUpdate, EntryError, UsageError
from umbel.spec import entries
from umbel.torch import module, plan


class Net(nn.Module):
    """A parameter of each kind that common modules have."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 2, bias=False)
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.register_buffer("mask", torch.ones(2, dtype=torch.bool))
        self.register_buffer("scratch", torch.zeros(3), persistent=False)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.decoder = nn.Linear(3, 5, bias=False)
        self.decoder.weight = self.embedding.weight


def roles(model: Arrays) -> dict[str, str]:
    return {e.name: e.role for e in model.spec.entries}


def test_names_order_and_roles() -> None:
    net = Net()
    net.head.requires_grad_(False)
    model = umbel.torch.arrays(net)
    assert list(model) == list(net.state_dict())
    assert roles(model) == {
        "scale": "trained",
        "mask": "counter",
        "conv.weight": "trained",
        "conv.bias": "trained",
        "bn.weight": "trained",
        "bn.bias": "trained",
        "bn.running_mean": "buffer",
        "bn.running_var": "buffer",
        "bn.num_batches_tracked": "counter",
        "head.weight": "frozen",
    }


def test_roles_can_be_overridden_and_the_first_choice_wins() -> None:
    chosen = [entries("bn.running_var", role="frozen"), entries("bn.running_*", "head.*", role="local")]
    got = roles(umbel.torch.arrays(Net(), roles=chosen))
    assert (got["bn.running_var"], got["bn.running_mean"], got["head.weight"]) == ("frozen", "local", "local")
    only = umbel.torch.arrays(Net(), only=entries("head.*", role="local"))
    assert roles(only) == {"head.weight": "local"}


def test_a_choice_without_a_role_is_refused() -> None:
    with pytest.raises(UsageError, match="has no role"):
        umbel.torch.arrays(Net(), roles=[entries("bn.*")])


def test_roles_follow_requires_grad() -> None:
    net = nn.Linear(2, 2)
    assert roles(umbel.torch.arrays(net))["bias"] == "trained"
    net.bias.requires_grad_(False)
    assert roles(umbel.torch.arrays(net))["bias"] == "frozen"


def test_the_same_spec_object_each_time() -> None:
    net = Net()
    assert umbel.torch.arrays(net).spec is umbel.torch.arrays(net).spec


# --- tied weights ---------------------------------------------------------------------------------


def test_tied_weights_are_stored_once() -> None:
    net = Tied()
    model = umbel.torch.arrays(net)
    assert model.spec.aliases == (("decoder.weight", "embedding.weight"),)
    assert model.nbytes == 5 * 3 * 4
    other = Tied()
    umbel.torch.into(other, model)
    assert other.decoder.weight is other.embedding.weight
    assert torch.equal(other.decoder.weight, net.embedding.weight)


def test_a_submodule_registered_twice_is_stored_once() -> None:
    net = nn.Module()
    net.a = net.b = nn.Linear(2, 2)
    model = umbel.torch.arrays(net)
    assert dict(model.spec.aliases) == {"b.weight": "a.weight", "b.bias": "a.bias"}


def test_tied_weights_under_a_parametrization() -> None:
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    for layer in net:
        nn.utils.parametrizations.weight_norm(layer)
    first, second = (layer.get_submodule("parametrizations.weight") for layer in net)
    second.original1 = first.original1
    model = umbel.torch.arrays(net)
    assert list(model) == list(net.state_dict())
    name = "parametrizations.weight.original1"
    assert model.spec.aliases == ((f"1.{name}", f"0.{name}"),)
    other = copy.deepcopy(net)
    nn.init.zeros_(other.get_parameter("0.parametrizations.weight.original1"))
    umbel.torch.into(other, model)
    x = torch.ones(1, 3)
    assert torch.equal(other(x), net(x))


def test_only_is_a_pattern_or_a_choice() -> None:
    with pytest.raises(UsageError, match=r"only is a list\n.*umbel\.entries"):
        umbel.torch.arrays(nn.Linear(2, 2), only=["weight"])  # type: ignore[arg-type]


def test_only_the_second_name_of_a_tied_weight() -> None:
    part = umbel.torch.arrays(Tied(), only="decoder.*")
    assert list(part) == ["decoder.weight"]
    assert part.spec.aliases == ()
    net = Tied()
    umbel.torch.into(net, part)
    assert np.array_equal(net.embedding.weight.detach().numpy(), part["decoder.weight"])


def test_a_tied_module_refuses_two_different_values() -> None:
    same = np.ones((5, 3), np.float32)
    umbel.torch.into(Tied(), Arrays({"embedding.weight": same, "decoder.weight": same}))
    with pytest.raises(EntryError, match="are one tensor in Tied and differ"):
        umbel.torch.into(Tied(), Arrays({"embedding.weight": same, "decoder.weight": same * 2}))


def test_weights_tied_in_the_model_only_go_to_both() -> None:
    net = Tied()
    net.decoder.weight = nn.Parameter(torch.zeros(5, 3))
    umbel.torch.into(net, umbel.torch.arrays(Tied()))
    assert torch.equal(net.decoder.weight, net.embedding.weight)


# --- dtypes, strides, devices ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_precision_stays_and_safetensors_reads_our_files(dtype: torch.dtype, tmp_path: Path) -> None:
    load_file = pytest.importorskip("safetensors.torch").load_file
    net = Net().to(dtype)
    net.register_buffer("packed", torch.randint(0, 255, (3,), dtype=torch.uint8))
    net.conv.weight.data = net.conv.weight.data.to(memory_format=torch.channels_last)
    umbel.torch.arrays(net).save(tmp_path / "net.safetensors")
    read = load_file(tmp_path / "net.safetensors")
    state = net.state_dict()
    assert {n: t.dtype for n, t in read.items()} == {n: t.dtype for n, t in state.items()}
    assert all(torch.equal(read[n], t) for n, t in state.items())
    other = Net().to(dtype)
    other.register_buffer("packed", torch.zeros(3, dtype=torch.uint8))
    umbel.torch.into(other, Arrays.load(tmp_path / "net.safetensors"))
    assert all(torch.equal(other.state_dict()[n], t) for n, t in state.items())


def test_a_file_that_safetensors_wrote_goes_into_a_module(tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    net, other = Net().bfloat16(), Net().bfloat16()
    save_file(net.state_dict(), tmp_path / "theirs.safetensors")
    umbel.torch.into(other, Arrays.load(tmp_path / "theirs.safetensors"))
    assert all(torch.equal(other.state_dict()[n], t) for n, t in net.state_dict().items())


def test_strides_stay_in_the_module() -> None:
    net = cast("Any", nn.Conv2d(3, 4, 2)).to(memory_format=torch.channels_last)  # typed in some versions only
    strides = net.weight.stride()
    model = umbel.torch.arrays(net)
    umbel.torch.into(net, model * 2)
    assert net.weight.stride() == strides
    assert np.array_equal(net.weight.detach().numpy(), model["weight"] * 2)


def test_an_expanded_tensor_takes_one_value() -> None:
    net = nn.Module()
    net.register_buffer("e", torch.ones(2, 1).expand(2, 3))
    assert umbel.torch.arrays(net)["e"].shape == (2, 3)
    umbel.torch.into(net, Arrays({"e": np.array([[5, 5, 5], [6, 6, 6]], np.float32)}))
    assert net.get_buffer("e").tolist() == [[5, 5, 5], [6, 6, 6]]
    with pytest.raises(EntryError, match="expanded"):
        umbel.torch.into(net, Arrays({"e": np.array([[5, 5, 5], [6, 7, 6]], np.float32)}))


def test_the_way_through_torch_that_other_devices_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "memory_of", lambda *_: None)
    for dtype in (torch.float32, torch.bfloat16):
        net, other = Net().to(dtype), Net().to(dtype)
        for n in (net, other):
            n.register_buffer("e", torch.ones(2, 1).expand(2, 3))
        umbel.torch.into(other, umbel.torch.arrays(net))
        assert all(torch.equal(other.state_dict()[n], t) for n, t in net.state_dict().items())
        before = bytes(umbel.torch.arrays(net).to_bytes())
        nn.init.zeros_(other.head.weight)
        assert bytes(umbel.torch.arrays(net).to_bytes()) == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs cuda: no such device")
def test_another_device() -> None:
    net = Net().cuda()
    model = umbel.torch.arrays(net)
    other = Net()
    umbel.torch.into(other, model)
    umbel.torch.into(other.cuda(), model)
    assert other.head.weight.is_cuda
    assert umbel.torch.arrays(other) == model


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_under_other_grad_modes(mode: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = umbel.torch.arrays(nn.Linear(2, 2))
    with mode():
        made = nn.Linear(2, 2)
        umbel.torch.into(made, model)
    assert umbel.torch.arrays(umbel.torch.into(made, model)) == model
    monkeypatch.setattr(plan, "memory_of", lambda *_: None)
    with mode():
        made = nn.Linear(2, 2)
        umbel.torch.into(made, model)
    assert umbel.torch.arrays(umbel.torch.into(made, model)) == model


def test_the_module_inside_torch_compile() -> None:
    net = nn.Linear(2, 2)
    compiled = cast(nn.Module, torch.compile(net, backend="eager"))
    assert umbel.torch.arrays(compiled) == umbel.torch.arrays(net)
    assert umbel.torch.into(compiled, umbel.torch.arrays(nn.Linear(2, 2))) is compiled
    assert umbel.torch.arrays(compiled) == umbel.torch.arrays(net)


# --- what into leaves, and what not ---------------------------------------------------------------


def test_gradients_of_the_client_before_are_dropped() -> None:
    net = Net()
    net.scale.grad = torch.ones(())
    net.head.weight.grad = torch.ones(2, 4)
    umbel.torch.into(net, umbel.torch.arrays(Net(), only="head.*"))
    assert all(p.grad is None for p in net.parameters())


def test_an_optimizer_made_before_keeps_working() -> None:
    net = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    umbel.torch.into(net, Arrays({"weight": np.full((1, 1), 3, np.float32)}))
    net(torch.ones(1, 1)).backward()
    optimizer.step()
    assert net.weight.item() == 2.0


def test_a_backward_pass_through_the_values_before_fails() -> None:
    net = nn.Linear(2, 2)
    model = umbel.torch.arrays(net)
    loss = net(net(torch.ones(1, 2))).sum()
    umbel.torch.into(net, model)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_entries_that_the_model_lacks_stay() -> None:
    net = Net()
    before = net.conv.weight.detach().clone()
    umbel.torch.into(net, umbel.torch.arrays(Net(), only="head.*"))
    assert torch.equal(net.conv.weight, before)


def test_no_warning_about_read_only_memory(recwarn: pytest.WarningsRecorder) -> None:
    model = Arrays.from_bytes(bytes(umbel.torch.arrays(Net()).to_bytes()))
    umbel.torch.into(Net(), model)
    assert not recwarn.list


def refuse(net: nn.Module, model: Arrays, match: str) -> EntryError:
    before = umbel.torch.arrays(net)
    with pytest.raises(EntryError, match=match) as caught:
        umbel.torch.into(net, model)
    assert umbel.torch.arrays(net) == before, "nothing is written then"
    return caught.value


def test_an_unknown_entry_names_the_closest() -> None:
    model = Arrays({"bias": np.zeros(2, np.float32), "wieght": np.zeros((2, 2), np.float32)})
    error = refuse(nn.Linear(2, 2), model, "Linear has no entry 'wieght'; the closest is 'weight'")
    assert error.entry == "wieght"


def test_another_shape_is_refused() -> None:
    model = umbel.torch.arrays(nn.Linear(2, 3))
    assert refuse(nn.Linear(2, 2), model, r"'weight': the model has shape \(3, 2\), Linear has \(2, 2\)").entry


def test_another_dtype_is_refused_with_the_way_out() -> None:
    model = umbel.torch.arrays(nn.Linear(2, 2).double())
    error = refuse(nn.Linear(2, 2), model, "model has torch.float64, Linear has torch.float32")
    assert "model.astype('F32')" in error.advice
    umbel.torch.into(nn.Linear(2, 2), model.astype("F32"))


def test_what_is_no_module_and_what_is_no_model() -> None:
    net = nn.Linear(2, 2)
    with pytest.raises(UsageError, match=r"expected a torch\.nn\.Module, not Arrays"):
        umbel.torch.into(umbel.torch.arrays(net), net)  # type: ignore[type-var, arg-type]
    with pytest.raises(UsageError, match=r"a model is umbel\.Arrays, not OrderedDict"):
        umbel.torch.into(net, net.state_dict())  # type: ignore[arg-type]


# --- what cannot be carried -----------------------------------------------------------------------


def holding(t: Tensor) -> nn.Module:
    net = nn.Module()
    net.inner = nn.Linear(2, 2)
    net.inner.register_buffer("odd", t)
    return net


@pytest.mark.filterwarnings("ignore:.*")  # PyTorch's, on making the odd tensors
@pytest.mark.parametrize(
    ("t", "what"),
    [
        (lambda: torch.empty(2, device="meta"), "meta device"),
        (lambda: torch.zeros(2, dtype=torch.complex64), "complex"),
        (lambda: torch.eye(2).to_sparse(), "sparse"),
        (lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "quantized"),
        (lambda: torch.zeros(2).to(torch.float8_e4m3fn), "dtype that Umbel does not carry"),
    ],
)
def test_tensors_that_cannot_be_carried_are_named(t: Callable[[], Tensor], what: str) -> None:
    net = holding(t())
    with pytest.raises(EntryError, match=f"'inner.odd' of Module .*{what}") as caught:
        umbel.torch.arrays(net)
    assert caught.value.entry == "inner.odd"
    rest = umbel.torch.arrays(net, only=entries("*", but="inner.odd"))
    assert list(rest) == ["inner.weight", "inner.bias"]
    umbel.torch.into(net, rest)


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_lazy_parameters_are_named() -> None:
    net = nn.Sequential(nn.LazyLinear(2))
    with pytest.raises(EntryError, match=r"'0\.weight' .*not initialised yet"):
        umbel.torch.arrays(net)
    net(torch.ones(1, 3))
    assert umbel.torch.arrays(net)["0.weight"].shape == (2, 3)


def test_extra_state_is_named() -> None:
    class Extra(nn.Linear):
        def get_extra_state(self) -> Any:
            return {"calls": 3}

    net = nn.Sequential(Extra(2, 2))
    with pytest.raises(EntryError, match=r"'0\._extra_state'.*neither a parameter nor a buffer"):
        umbel.torch.arrays(net)
    assert list(umbel.torch.arrays(net, only=entries("*", but="*_extra_state"))) == ["0.weight", "0.bias"]


def test_a_pattern_that_matches_nothing() -> None:
    with pytest.raises(EntryError, match="no entry of Net matches 'lora_"):
        umbel.torch.arrays(Net(), only="lora_*")


def test_a_module_without_entries() -> None:
    assert len(umbel.torch.arrays(nn.ReLU())) == 0


# --- the plan follows the module ------------------------------------------------------------------


def change_nothing(net: Net) -> None: ...


def replace_a_parameter(net: Net) -> None:
    net.head.weight = nn.Parameter(torch.rand(2, 4))


def replace_the_data(net: Net) -> None:
    net.head.weight.data = torch.rand(2, 4)


def replace_a_layer(net: Net) -> None:
    net.head = nn.Linear(4, 2, bias=False)


def rename_a_layer(net: Net) -> None:
    net.tail = net.head
    del net.head


def add_a_layer(net: Net) -> None:
    net.tail = nn.Linear(2, 2)


def another_dtype(net: Net) -> None:
    net.double()


def other_strides(net: Net) -> None:
    net.conv.weight.data = net.conv.weight.data.mT


def other_shape(net: Net) -> None:
    net.head.weight.data = net.head.weight.data[:1]


def transpose_in_place(net: Net) -> None:
    with torch.no_grad():
        net.head.weight.t_()


def freeze_a_parameter(net: Net) -> None:
    net.head.weight.requires_grad_(False)


def drop_a_parameter(net: Net) -> None:
    net.scale = None  # type: ignore[assignment]


def share_memory(net: Net) -> None:
    net.share_memory()


def tie(net: Net) -> None:
    net.tail = nn.Linear(4, 2, bias=False)
    net.tail.weight = net.head.weight


@pytest.mark.parametrize(
    "change",
    [
        change_nothing,
        replace_a_parameter,
        replace_the_data,
        replace_a_layer,
        rename_a_layer,
        add_a_layer,
        another_dtype,
        other_strides,
        other_shape,
        transpose_in_place,
        freeze_a_parameter,
        drop_a_parameter,
        share_memory,
        tie,
    ],
)
def test_a_module_may_change_between_two_calls(change: Callable[[Net], None]) -> None:
    net = Net()
    umbel.torch.into(net, umbel.torch.arrays(net))
    change(net)
    got = umbel.torch.arrays(net)
    assert got == umbel.torch.arrays(copy.deepcopy(net))
    doubled = got * 2
    umbel.torch.into(net, doubled)
    assert umbel.torch.arrays(copy.deepcopy(net)) == doubled


class Mixed(nn.Module):
    """Entries that follow each other in a file in another order than in the module."""

    def __init__(self, width: int, *, strided: bool = False) -> None:
        super().__init__()
        self.register_buffer("flag", torch.tensor([True, False]))
        self.weight = nn.Parameter(torch.rand(width, 3).mT if strided else torch.rand(3, width))
        self.norm = nn.BatchNorm1d(4)
        self.short = nn.Parameter(torch.rand(5).bfloat16())
        self.precise = nn.Parameter(torch.rand(2, dtype=torch.float64), requires_grad=False)
        self.register_buffer("nothing", torch.zeros(0))


@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("width", [1, 2_000, 20_000, 200_000])  # joined, joined, copied, copied in blocks
def test_the_bytes_are_those_of_arrays_that_are_written_one_by_one(width: int, strided: bool) -> None:
    net, other = Mixed(width, strided=strided), Mixed(width, strided=strided)
    model = umbel.torch.arrays(net)
    assert model.to_bytes() == Arrays.build(model.spec, lambda name, out: np.copyto(out, model.raw(name))).to_bytes()
    for name, t in net.state_dict().items():
        assert torch.equal(module.borrow(model.raw(name), model.spec.by_name[name].dtype), t)
    for _ in range(2):
        umbel.torch.into(other, model)
        assert umbel.torch.arrays(other) == model


@pytest.mark.parametrize("width", [1, 2_000, 20_000])
def test_the_values_are_read_only_aligned_and_nobody_elses(width: int) -> None:
    net = Mixed(width)
    model = umbel.torch.arrays(net)
    before = bytes(model.to_bytes())
    with torch.no_grad():
        net.weight.add_(1)
    assert model.to_bytes() == before
    for values in model.stored():
        assert not values.flags.writeable
        assert values.ctypes.data % values.itemsize == 0


def test_values_of_a_small_module_are_looked_at_when_they_are_checked() -> None:
    net = nn.Linear(2, 2)
    good = umbel.torch.arrays(net)
    with torch.no_grad():
        net.bias[1] = torch.nan
    with pytest.raises(BadUpdate, match="'bias' is not finite"):
        umbel.aggregate.mean().expects(good).check(umbel.Update(model=umbel.torch.arrays(net)))


def test_untying_is_seen() -> None:
    net = Tied()
    umbel.torch.arrays(net)
    net.decoder.weight = nn.Parameter(torch.zeros(5, 3))
    assert umbel.torch.arrays(net)["decoder.weight"].sum() == 0
    assert not umbel.torch.arrays(net).spec.aliases


def test_a_module_is_not_kept_alive() -> None:
    net = Net()
    net.head.weight.owner = net  # type: ignore[attr-defined]  # a parameter may refer to its module
    umbel.torch.into(net, umbel.torch.arrays(net))
    alive = weakref.ref(net)
    del net
    gc.collect()
    assert alive() is None


def test_what_is_known_of_a_module_goes_with_it() -> None:
    before = set(module._known)
    net = Net()
    umbel.torch.arrays(net)
    assert id(net) in module._known
    del net
    gc.collect()
    assert set(module._known) <= before


def test_a_module_at_the_address_of_another_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    net, other = Net(), nn.Linear(2, 2)
    umbel.torch.arrays(net)
    monkeypatch.setitem(module._known, id(other), module._known[id(net)])
    assert list(umbel.torch.arrays(other)) == ["weight", "bias"]


def test_copies_are_modules_of_their_own() -> None:
    net = Net()
    model = umbel.torch.arrays(net)
    umbel.torch.into(net, model)
    other = copy.deepcopy(net)
    umbel.torch.into(other, model * 3)
    assert umbel.torch.arrays(net) == model


def test_models_of_several_kinds_into_one_module() -> None:
    net = Net()
    whole, part = umbel.torch.arrays(Net()), umbel.torch.arrays(Net(), only="conv.*")
    for _ in range(2):
        umbel.torch.into(net, whole)
        umbel.torch.into(net, part)
    assert umbel.torch.arrays(net) == whole.merge(part)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs cuda: no such device")
def test_a_gpu_that_nobody_has_used_yet_is_seeded_for_its_first_task() -> None:
    """In an interpreter of its own: in this one somebody may have used it."""
    program = """
import torch
from umbel.client.determinism import seed_all
torch.manual_seed(0)  # as a set-up may do; it waits for the GPU, and is not to count for the first task
drawn = []
for _ in range(2):
    seed_all(5)
    drawn.append(torch.rand(4, device="cuda").tolist())
assert drawn[0] == drawn[1], drawn
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
