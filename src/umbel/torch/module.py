"""The values of a module as arrays, and back.

Our code copies each tensor once in each direction, straight between the module's memory and the
buffer of the arrays. Neither ever refers to the memory of the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, final
from weakref import ref

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from umbel.arrays import Array, Arrays
from umbel.errors import EntryError, UsageError
from umbel.spec import Entries, Entry, Spec, entries, layout
from umbel.torch.plan import CODES, Named, Place, Plan, default_role, first_names, make_plan, walk

Module = TypeVar("Module", bound=nn.Module)
Choice = tuple[Entries | None, tuple[Entries, ...]]
_BYTE = np.dtype(np.uint8)
DTYPES = {code: dtype for dtype, code in CODES.items()}


@final
@dataclass(slots=True)
class _Plans:
    net: ref[nn.Module]
    outgoing: dict[Choice, Plan] = field(default_factory=dict)
    incoming: Plan | None = None


_known: dict[int, _Plans] = {}  # by id: a WeakKeyDictionary runs more code in each call than is left of ours


def arrays(net: nn.Module, only: str | Entries | None = None, roles: Sequence[Entries] = ()) -> Arrays:
    """The parameters and persistent buffers of a module, in the order and with the names of its state_dict.

    Roles: parameters that require a gradient are "trained", other floating-point parameters
    "frozen", floating-point buffers "buffer", integers and booleans "counter". Tied weights are
    stored once, with aliases. Dtypes stay (bfloat16 and float16 too); tensors on any device and of any
    strides are copied once, into contiguous main memory.

    Args:
        net: the module; of what ``torch.compile`` returned, the module inside.
        only: the entries to take, for example ``"*.lora_*"`` or ``umbel.entries("*", but="head.*")``.
        roles: choices that override roles: ``[umbel.entries("pos_*", role="frozen")]``; the first that matches.

    Returns:
        Arrays that share no memory with the module.

    Raises:
        EntryError: an entry that Umbel cannot carry (lazy, meta, complex, quantized or sparse tensors,
            extra state), or nothing matches ``only``.
        UsageError: ``net`` is no module, or a choice in ``roles`` has no role.
    """
    plans = _known.get(id(net))
    if plans is None or plans.net() is not net:
        net, plans = _met(net)
    if only is not None and not isinstance(only, (str, Entries)):
        raise UsageError(f"only is a {type(only).__name__}", advice='give umbel.entries("*.lora_*", "head.*")')
    choice: Choice = (entries(only) if isinstance(only, str) else only, tuple(roles))
    keys, tensors = walk(net)
    plan = plans.outgoing.get(choice)
    if plan is None or not plan.fits(keys, tensors):
        plan = plans.outgoing[choice] = _plan_outgoing(Named(net), choice)
    return _gather(plan, tensors)


def into(net: Module, model: Arrays) -> Module:
    """Write a model's values into a module, in place.

    Parameters stay the same objects on the same device, with the same ``requires_grad``, so that optimizers
    made before keep working. All gradients of the module are dropped: those of the client before must
    not leak into this one. Entries of the module that the model does not have keep their values: with a
    model of some entries only (LoRA adapters, a shared body) and a module that is used for several
    clients, *what the client before left in the others is still there*; start from a fresh module,
    or keep them in the client's state.

    Args:
        net: the module; of what ``torch.compile`` returned, the module inside.
        model: the model; each entry needs the dtype and the shape of the module's.

    Returns:
        ``net``.

    Raises:
        EntryError: an entry that the module does not have, or has with another shape or dtype. Nothing
            was written then. Dtypes are not converted, since that would lose precision unseen.
    """
    _put(net, model)
    return net


def load(net: nn.Module, model: Arrays) -> dict[str, Tensor]:
    """Do what `into` does, and say which tensor each name of the model is."""
    plan, tensors = _put(net, model)
    return {p.name: t for p in plan.places if (t := tensors[p.index]) is not None}


def _put(net: nn.Module, model: Arrays) -> tuple[Plan, list[Tensor | None]]:
    plans = _known.get(id(net))
    if plans is None or plans.net() is not net:
        net, plans = _met(net)
    if not isinstance(model, Arrays):
        raise UsageError(
            f"a model is umbel.Arrays, not {type(model).__name__}",
            advice="wrap a dict of arrays as umbel.Arrays(values), a file as umbel.Arrays.load(path)",
        )
    keys, tensors = walk(net)
    plan, spec = plans.incoming, model.spec
    if plan is None or (plan.spec is not spec and plan.spec != spec) or not plan.fits(keys, tensors):
        plan = plans.incoming = plan_incoming(Named(net), spec)
    if plan.memories:
        written: list[Any] = []
        for (index, memory), values in zip(plan.memories, model.stored(), strict=True):
            memory[...] = values
            written.append(tensors[index])
        increment_version(written)
    else:
        _put_with_care(plan, tensors, model, type(net).__name__)
    for t in tensors:
        if t is not None and t.is_leaf and t.grad is not None:
            t.grad = None
    return plan, tensors


def _put_with_care(plan: Plan, tensors: Sequence[Tensor | None], model: Arrays, kind: str) -> None:
    """Write a model's values into tensors of which some are tied, expanded, or on another device."""
    for a, b in plan.tied:
        if model.raw(a.entry.name).tobytes() != model.raw(b.entry.name).tobytes():
            raise EntryError(
                f"{a.name!r} and {b.name!r} are one tensor in {kind} and differ in the model",
                entry=b.name,
                advice="untie them in the module, or make the model from a module where they are tied",
            )
    for place in plan.once:
        if place.repeated:
            _check_repeated(place, model.raw(place.entry.name))
    for place in plan.once:
        _write(place, tensors[place.index], model.raw(place.entry.name))


def _gather(plan: Plan, tensors: Sequence[Tensor | None]) -> Arrays:
    """Arrays of the plan's spec from the values of the module's tensors."""
    if plan.parts:
        return Arrays.over(plan.spec, np.frombuffer(b"".join(plan.parts), _BYTE))  # bytes: read-only from the start
    if plan.memories:
        return Arrays.copied(plan.spec, [memory for _, memory in plan.memories])
    places = {p.entry.name: p for p in plan.once}

    def write(name: str, out: Array) -> None:
        place = places[name]
        if place.memory is not None:
            np.copyto(out, place.memory)
        else:
            t = tensors[place.index]
            assert t is not None
            over(out, place.entry.dtype).copy_(t.detach())

    return Arrays.build(plan.spec, write)


def like(net: nn.Module, spec: Spec) -> Arrays:
    """A module's values as arrays of a spec: what `arrays` would give for these entries and roles.

    Raises:
        EntryError: the module has no such entry, or it stands for several tensors.
    """
    net, plans = _met(net)
    keys, tensors = walk(net)
    plan = plans.incoming
    if not spec.canonical:
        spec = layout(spec.entries, dict(spec.aliases), names=spec.names)
    if plan is None or plan.spec != spec or not plan.fits(keys, tensors):
        plan = plans.incoming = plan_incoming(Named(net), spec)
    if len(plan.once) > len(spec.entries):
        alias, target = spec.aliases[0]
        raise EntryError(
            f"{alias!r} and {target!r} are tied in the model and are two tensors in {type(net).__name__}",
            entry=alias,
            advice="tie them in the module too, or make the model from a module where they are not",
        )
    return _gather(plan, tensors)


def borrow(raw: Array, dtype: str) -> Tensor:
    """A tensor over the read-only memory of arrays: without a copy, and never to be written to.

    PyTorch has no read-only tensors and warns of each; this one stays inside Umbel.
    """
    return over(np.asarray(_Borrowed(raw)), dtype)


@final
class _Borrowed:
    """An array's memory announced as writable; keeps the array alive."""

    __slots__ = ("__array_interface__", "owner")

    def __init__(self, raw: Array) -> None:
        self.owner = raw
        self.__array_interface__ = {**raw.__array_interface__, "data": (raw.__array_interface__["data"][0], False)}


def over(memory: Array, dtype: str) -> Tensor:
    """A tensor over the memory of an array that may be written to."""
    if dtype == "BF16":
        return torch.from_numpy(memory.view("<i2")).view(torch.bfloat16)
    return torch.from_numpy(memory)


def _write(place: Place, t: Tensor | None, raw: Array) -> None:
    assert t is not None
    if place.repeated:
        raw = raw[place.repeated]
    if place.memory is not None:
        np.copyto(place.memory[place.repeated] if place.repeated else place.memory, raw)
        increment_version(t)  # a backward pass through the old values must fail
        return
    with torch.inference_mode(t.is_inference()), torch.no_grad():
        (t[place.repeated] if place.repeated else t).copy_(borrow(raw, place.entry.dtype))


def _check_repeated(place: Place, raw: Array) -> None:
    assert place.repeated is not None
    if np.broadcast_to(raw[place.repeated], raw.shape).tobytes() != raw.tobytes():
        raise EntryError(
            f"entry {place.name!r} is an expanded tensor, which holds one value many times; the model's values differ",
            entry=place.name,
            advice="give it memory of its own: tensor.clone()",
        )


def _met(net: nn.Module) -> tuple[nn.Module, _Plans]:
    """A module, of what ``torch.compile`` returned the module inside, and what is known of it until it goes."""
    if not isinstance(net, nn.Module):
        raise UsageError(
            f"expected a torch.nn.Module, not {type(net).__name__}",
            advice="the module comes first: umbel.torch.into(net, model), umbel.torch.arrays(net)",
        )
    if (inside := net._modules.get("_orig_mod")) is not None:  # what torch.compile wraps
        net = inside
    key = id(net)
    plans = _known.get(key)
    if plans is None or plans.net() is not net:
        plans = _known[key] = _Plans(ref(net, lambda _: _known.pop(key, None)))
    return net, plans


def _plan_outgoing(named: Named, choice: Choice) -> Plan:
    only, roles = choice
    names = named.choose(only.match if only else lambda _: True)
    if only and not names:
        raise EntryError(
            f"no entry of {type(named.net).__name__} matches {', '.join(map(repr, only.include))}",
            advice=f"it has {', '.join(list(named.tensors)[:8])}{', ...' if len(named.tensors) > 8 else ''}",
        )
    for role in roles:
        if role.role is None:
            raise UsageError(
                f"{role} in roles= has no role", advice='write umbel.entries(pattern, role="frozen") or another role'
            )
    overrides = (*roles, only) if only else roles
    first = first_names({name: named.check(name) for name in names}, names)
    stored = [_entry(name, named.tensors[name], overrides) for name in names if first[name] == name]
    aliases = {name: target for name, target in first.items() if name != target}
    return make_plan(named, layout(stored, aliases, names=names), names)


def _entry(name: str, t: Tensor, overrides: Sequence[Entries]) -> Entry:
    role = next((c.role for c in overrides if c.role and c.match(name)), default_role(t))
    return Entry(name, CODES[t.dtype], tuple(t.shape), role)


def plan_incoming(named: Named, spec: Spec) -> Plan:
    """A plan for writing a model of this spec into the module.

    Raises:
        EntryError: an entry that the module does not have, or has with another shape or dtype.
    """
    for name in spec.names:
        e, t = spec.by_name[name], named.check(name)
        where = f"entry {name!r}: the model has"
        if e.shape != t.shape:
            raise EntryError(
                f"{where} shape {e.shape}, {type(named.net).__name__} has {tuple(t.shape)}",
                entry=name,
                advice="use the architecture that the model was made from",
            )
        if e.dtype != CODES[t.dtype]:
            raise EntryError(
                f"{where} {DTYPES[e.dtype]}, {type(named.net).__name__} has {t.dtype}",
                entry=name,
                advice=f"convert one of them: net.to({DTYPES[e.dtype]}), or model.astype({CODES[t.dtype]!r})",
            )
    return make_plan(named, spec, spec.names)


__all__ = ["DTYPES", "arrays", "borrow", "into", "like", "load", "over", "plan_incoming"]
