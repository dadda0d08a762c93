"""Where the entries of a module lie in memory, worked out once per module and then only checked.

A plan lists (tensor, entry) pairs. For tensors in main memory it also keeps a NumPy view of the
values, so that a copy is one ``np.copyto``: for a small module the walk through PyTorch would cost
more than the copy. A plan is used only while every tensor still has the memory, shape and dtype it
was made for; the view keeps that memory alive, so equal addresses mean the same memory.

What runs for each client here is short and calls little on purpose: between two clients a whole
training runs, after which neither this code nor what it looks at is in the first-level caches.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from umbel.arrays import SMALL, Array
from umbel.errors import EntryError
from umbel.spec import Entry, Role, Spec

_NAMES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}
CODES: dict[torch.dtype, str] = {getattr(torch, n): code for n, code in _NAMES.items() if hasattr(torch, n)}

_LEAVE_OUT = 'or leave the entry out: only=umbel.entries("*", but="{name}")'
_REFUSED: tuple[tuple[Callable[[Tensor], bool], str, str], ...] = (
    (
        lambda t: isinstance(t, UninitializedParameter | UninitializedBuffer),
        "is not initialised yet",
        "send one batch through the module first, so that its lazy layers know their shapes",
    ),
    (lambda t: t.is_meta, "is on the meta device and has no values", "give it some: net.to_empty(device=...)"),
    (lambda t: t.is_quantized, "is quantized", "federate the float module and quantize what comes out"),
    (lambda t: t.layout != torch.strided, "is sparse", "store it dense: tensor.to_dense()"),
    (lambda t: t.is_complex(), "is complex", "store torch.view_as_real(tensor) and compute with view_as_complex"),
    (
        lambda t: type(t).__torch_dispatch__ is not Tensor.__torch_dispatch__,
        "is distributed or wrapped and has no memory of its own",
        "gather it into an ordinary tensor first",
    ),
    (lambda t: t.dtype not in CODES, "has a dtype that Umbel does not carry", "convert it: net.to(torch.bfloat16)"),
)

Stamp = tuple[Any, ...]


@final
@dataclass(frozen=True, slots=True)
class Place:
    """One tensor of a module and the entry that it is.

    Attributes:
        name: its name in the module's state_dict.
        index: which tensor of the walk it is; see `walk`.
        entry: its entry in the arrays.
        memory: a NumPy view of its values (bfloat16 as bits); None on another device.
        repeated: for an expanded tensor, where one copy of its values lies; else None.
    """

    name: str
    index: int
    entry: Entry
    memory: Array | None
    repeated: tuple[slice, ...] | None


def walk(net: nn.Module) -> tuple[list[str], list[Tensor | None]]:
    """All parameters and buffers of a module, and the names of everything passed on the way.

    This runs at each copy, so it is a plain loop: ``named_parameters`` takes several times as long.
    """
    keys: list[str] = []
    tensors: list[Tensor | None] = []
    todo: list[nn.Module | None] = [net]
    for module in todo:  # grows while it is walked
        if module is None:
            continue
        if params := module._parameters:
            keys += params
            tensors += params.values()
        if buffers := module._buffers:
            keys += buffers
            tensors += buffers.values()
        if children := module._modules:
            keys += children
            todo += children.values()
    return keys, tensors


def _walked_names(net: nn.Module) -> list[str]:
    """The full names of the tensors in the order of `walk`."""
    names: list[str] = []
    todo: list[tuple[str, nn.Module]] = [("", net)]
    for prefix, module in todo:
        names += [prefix + key for table in (module._parameters, module._buffers) for key in table]
        todo += [(f"{prefix}{key}.", child) for key, child in module._modules.items() if child is not None]
    return names


def _stamp(t: Tensor) -> Stamp:
    """What identifies the memory of a tensor and how it is read."""
    return t.data_ptr(), t.requires_grad, t.dtype, t.shape, t.stride()


@final
class Named:
    """The entries of a module by name, in the order of its state_dict.

    Attributes:
        tensors: parameters and persistent buffers by name; the same tensor may stand under several.
        index: where each stands in the walk.
    """

    __slots__ = ("_foreign", "index", "keys", "net", "tensors")

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self.keys, walked = walk(net)
        index = {name: i for i, name in enumerate(_walked_names(net))}
        state = net.state_dict(keep_vars=True)
        self.tensors: dict[str, Tensor] = {}
        self._foreign: list[str] = []
        self.index = index
        for name in state:
            t = walked[index[name]] if name in index else None
            if t is None:
                self._foreign.append(name)
            else:
                self.tensors[name] = t

    def check(self, name: str) -> Tensor:
        """The tensor of a name.

        Raises:
            EntryError: there is none, or Umbel cannot carry it.
        """
        t = self.tensors.get(name)
        if t is None:
            raise self.unknown(name)
        for test, what, advice in _REFUSED:
            if test(t):
                raise EntryError(
                    f"entry {name!r} of {self._kind} ({t.dtype}) {what}",
                    entry=name,
                    advice=f"{advice}; {_LEAVE_OUT.format(name=name)}",
                )
        return t

    def choose(self, match: Callable[[str], bool]) -> list[str]:
        """The chosen names.

        Raises:
            EntryError: one of them is no parameter or buffer (extra state, packed weights).
        """
        for name in self._foreign:
            if match(name):
                raise EntryError(
                    f"{self._kind}.state_dict() has {name!r}, which is neither a parameter nor a buffer",
                    entry=name,
                    advice=f"keep it in a buffer, {_LEAVE_OUT.format(name=name)} and send it in Update(extra=...)",
                )
        return [name for name in self.tensors if match(name)]

    def unknown(self, name: str) -> EntryError:
        """The error for an entry that the module does not have."""
        close = difflib.get_close_matches(name, self.tensors, n=1, cutoff=0.4)
        nearest = f"; the closest is {close[0]!r}" if close else ""
        return EntryError(
            f"{self._kind} has no entry {name!r}{nearest}",
            entry=name,
            advice="use the architecture that the model was made from, or the entries it has: model.select(...)",
        )

    @property
    def _kind(self) -> str:
        return type(self.net).__name__


def _place(named: Named, name: str, entry: Entry) -> Place:
    """Where the values of an entry lie."""
    t = named.tensors[name]
    expanded = [stride == 0 and n > 1 for stride, n in zip(t.stride(), t.shape, strict=True)]
    repeated = tuple(slice(0, 1) if e else slice(None) for e in expanded) if any(expanded) else None
    return Place(name, named.index[name], entry, memory_of(t), repeated)


def memory_of(t: Tensor) -> Array | None:
    """A NumPy view of a tensor's values (bfloat16 as bits); None on another device."""
    if t.device.type != "cpu":
        return None
    t = t.detach()
    array: Array = t.view(torch.int16).numpy().view("<u2") if t.dtype == torch.bfloat16 else t.numpy()
    return array


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """Which tensor holds which entry.

    Attributes:
        keys: the names met on the walk; other names mean another structure.
        places: one for each name that is copied, aliases among them.
        stamps: which tensors of the walk these are, and what must be unchanged of each for this to be right.
        spec: what the arrays consist of.
        once: the places without those of a tensor that stands here already: what is copied.
        tied: pairs of places of one tensor that are two entries; they must hold the same values.
        memories: for all entries, as they follow each other in a file, which tensor of the walk it is, and its values;
            empty unless each is one tensor in main memory.
        parts: the bytes of a whole file, header and ``memories``, where it is small and they have no gaps; else empty.
    """

    keys: list[str]
    places: tuple[Place, ...]
    stamps: tuple[tuple[int, Stamp], ...]
    spec: Spec
    once: tuple[Place, ...]
    tied: tuple[tuple[Place, Place], ...]
    memories: tuple[tuple[int, Array], ...]
    parts: tuple[bytes | memoryview, ...]

    def fits(self, keys: list[str], tensors: list[Tensor | None]) -> bool:
        """Is the module still the one that the plan was made for?"""
        if keys != self.keys:
            return False
        try:
            for index, stamp in self.stamps:  # as `_stamp` has it, without a call for each
                t = tensors[index]
                if t is None or (t.data_ptr(), t.requires_grad, t.dtype, t.shape, t.stride()) != stamp:
                    return False
        except (RuntimeError, ValueError):  # a tensor that has no memory any more
            return False
        return True


def make_plan(named: Named, spec: Spec, names: Iterable[str]) -> Plan:
    """A plan for copying the entries called ``names`` between the module and arrays of a spec."""
    places = tuple(_place(named, name, spec.by_name[name]) for name in names)
    first: dict[int, Place] = {}
    tied = []
    for p in places:
        other = first.setdefault(id(named.tensors[p.name]), p)
        if other.entry is not p.entry:
            tied.append((other, p))
    once = tuple(first.values())
    stamps = tuple((p.index, _stamp(named.tensors[p.name])) for p in places)
    memories = () if tied else _memories(spec, once)
    small = spec.size <= SMALL and all(memory.flags.c_contiguous for _, memory in memories)
    parts: list[bytes | memoryview] = [spec.header] if memories and small else []
    parts += [memory.reshape(-1).view(np.uint8).data for _, memory in memories if parts]
    return Plan(named.keys, places, stamps, spec, once, tuple(tied), memories, tuple(parts))


def _memories(spec: Spec, once: Sequence[Place]) -> tuple[tuple[int, Array], ...]:
    """Where the values of all entries are, as they follow each other; () unless each is one tensor in main memory."""
    found = {p.entry.name: (p.index, p.memory) for p in once if p.memory is not None and not p.repeated}
    return tuple(found[e.name] for e in spec.placed) if len(found) == len(once) == len(spec.entries) else ()


def first_names(tensors: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, str]:
    """For each name the first name of the same tensor: tied weights are one tensor."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensors[name]), name) for name in names}


def default_role(t: Tensor) -> Role:
    """What an entry is for, when nobody says otherwise."""
    if not t.dtype.is_floating_point:
        return "counter"
    if isinstance(t, nn.Parameter):
        return "trained" if t.requires_grad else "frozen"
    return "buffer"


__all__ = ["CODES", "Named", "Place", "Plan", "default_role", "first_names", "make_plan", "memory_of", "walk"]
