"""What a set of arrays consists of, and where each lies in its file: the safetensors layout.

The file is 8 bytes of header length, a JSON header, and the data without holes
(https://github.com/huggingface/safetensors, section "Format"). Ours are sorted by element size,
largest first, and the header is padded to 64 bytes, so that every array is aligned in a mapped
file. Within one element size, entries of one dtype and one role lie side by side: a fold or an
optimizer step walks a few long runs of memory and not a thousand entries.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from typing import Any, Literal, final, get_args

import numpy as np

from umbel.errors import EntryError, FormatError, UsageError

Role = Literal["trained", "buffer", "frozen", "counter", "payload", "local"]
ROLES: tuple[Role, ...] = get_args(Role)
"""What a role means for an entry of a model.

trained: folded, and moved by the server optimizer. buffer: statistics that training leaves
behind; their mean replaces the server's value. frozen, counter: the server's value stays; they
are not sent back. payload: opaque bytes. local: never leaves the client.
"""

STORAGE: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "U64": np.dtype("<u8"),
    "F32": np.dtype("<f4"),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),  # NumPy has no bfloat16: its bits
    "I16": np.dtype("<i2"),
    "U16": np.dtype("<u2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
_RANK = {code: rank for rank, code in enumerate(STORAGE)}
ALIGN = 64
_MAX_HEADER = 100_000_000  # the limit that the safetensors library sets itself
_MAX_AXES = 32  # what every NumPy that we support can hold
_METADATA = "umbel"


@final
@dataclass(frozen=True, slots=True)
class Entry:
    """One named array of a model.

    Attributes:
        name: its name.
        dtype: its safetensors dtype: "F64", "F32", "F16", "BF16", "I64" ... "BOOL".
        shape: its shape; () for a scalar.
        role: what it is for; see ``umbel.spec.ROLES``.
        offset: where its bytes begin, counted from the end of the header.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    role: Role
    offset: int = 0

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Number of bytes."""
        return self.size * STORAGE[self.dtype].itemsize

    def describe(self) -> str:
        """The entry in words: ``F32 (3, 4) trained``."""
        return f"{self.dtype} {self.shape} {self.role}"


@final
@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring entries of one dtype and one role, seen as one flat array.

    Attributes:
        dtype: their safetensors dtype.
        role: their role.
        offset: where the first byte lies, counted from the end of the header.
        size: number of elements.
    """

    dtype: str
    role: Role
    offset: int
    size: int


@final
@dataclass(frozen=True, slots=True)
class Entries:
    """A choice of entries by the patterns of their names; made by ``umbel.entries``."""

    include: tuple[str, ...]
    but: tuple[str, ...] = ()
    role: Role | None = None

    def match(self, name: str) -> bool:
        """Is this entry chosen?"""
        return any(fnmatchcase(name, p) for p in self.include) and not any(fnmatchcase(name, p) for p in self.but)


def entries(*patterns: str, but: str | Sequence[str] = (), role: Role | None = None) -> Entries:
    """Choose entries of a model by name.

    Args:
        patterns: shell patterns; ``*`` also matches dots. An entry is chosen when one matches.
        but: patterns of entries that are not chosen all the same.
        role: the role that the chosen entries get, where roles are set.

    Raises:
        UsageError: no pattern, or an unknown role.
    """
    if not patterns:
        raise UsageError("umbel.entries() needs a pattern", advice='write umbel.entries("*") for all of them')
    if role is not None and role not in ROLES:
        raise UsageError(f"role {role!r} does not exist", advice=f"take one of {', '.join(ROLES)}")
    return Entries(patterns, (but,) if isinstance(but, str) else tuple(but), role)


@final
@dataclass(frozen=True)
class Spec:
    """Names, dtypes, shapes, roles and places of a set of arrays; without their values.

    Attributes:
        entries: what is stored, in the user's order.
        aliases: pairs (name, name of the entry that it shares its memory with).
        names: all names in the user's order, aliases among them.
        header: the bytes in front of the data in a file.
    """

    entries: tuple[Entry, ...]
    aliases: tuple[tuple[str, str], ...]
    names: tuple[str, ...]
    header: bytes = field(repr=False)

    def __hash__(self) -> int:
        return hash(self.header)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Spec) and self.header == other.header)

    def __reduce__(self) -> tuple[Any, ...]:
        return spec_of, (self.header,)

    @cached_property
    def by_name(self) -> dict[str, Entry]:
        """Entries by name; an alias gives the entry it stands for."""
        stored = {e.name: e for e in self.entries}
        return stored | {alias: stored[target] for alias, target in self.aliases}

    @cached_property
    def nbytes(self) -> int:
        """Bytes of data, header apart."""
        return sum(e.nbytes for e in self.entries)

    @cached_property
    def size(self) -> int:
        """Bytes of a whole file, header and data."""
        return len(self.header) + self.nbytes

    @cached_property
    def placed(self) -> tuple[Entry, ...]:
        """The entries as they follow each other in the file."""
        return tuple(sorted(self.entries, key=lambda e: e.offset))

    @cached_property
    def slots(self) -> tuple[tuple[str, tuple[int, ...], np.dtype[Any], int], ...]:
        """Of each entry of ``placed`` its name, shape, dtype as stored, and where it begins in the file."""
        return tuple((e.name, e.shape, STORAGE[e.dtype], len(self.header) + e.offset) for e in self.placed)

    @cached_property
    def template(self) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        """A file of zeros, to copy."""
        made = np.zeros(self.size, np.uint8)
        made[: len(self.header)] = self.head
        return made

    @cached_property
    def head(self) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        """The header as an array of bytes."""
        return np.frombuffer(self.header, np.uint8)

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """The data as few flat arrays, each of one dtype and one role."""
        runs: list[Run] = []
        for e in (e for e in self.placed if e.size):
            last = runs[-1] if runs else None
            if last and (last.dtype, last.role) == (e.dtype, e.role):
                runs[-1] = Run(last.dtype, last.role, last.offset, last.size + e.size)
            else:
                runs.append(Run(e.dtype, e.role, e.offset, e.size))
        return tuple(runs)

    @cached_property
    def canonical(self) -> bool:
        """Is this the layout that Umbel itself writes?"""
        return self == layout(self.entries, dict(self.aliases), names=self.names)

    def difference(self, other: Spec, *, roles: bool = True) -> str:
        """What differs first, in words that name the entry; "" when nothing does."""
        for name in (*self.names, *other.names):
            mine, its = self.by_name.get(name), other.by_name.get(name)
            if mine is None or its is None:
                return f"entry {name!r} is only in the {'second' if mine is None else 'first'}"
            for what in ("dtype", "shape", *(["role"] if roles else [])):
                if getattr(mine, what) != getattr(its, what):
                    return f"entry {name!r} has {what} {getattr(mine, what)} and {getattr(its, what)}"
        return ""


def aligned(size: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """Uninitialised bytes that begin where a file of arrays may."""
    memory = np.empty(size + ALIGN, np.uint8)
    begin = -memory.__array_interface__["data"][0] % ALIGN  # quicker than ctypes
    return memory[begin : begin + size]


def resolve_role(name: str, dtype: str, roles: Sequence[Entries] | Mapping[str, Role], *, payload: bool) -> Role:
    """The role of an entry: what ``roles`` says of its name, else what its dtype suggests."""
    if isinstance(roles, Mapping):
        if name in roles:
            return roles[name]
    else:
        for choice in roles:
            if choice.role and choice.match(name):
                return choice.role
    if payload:
        return "payload"
    return "trained" if dtype in FLOATS else "counter"


def layout(wanted: Iterable[Entry], aliases: Mapping[str, str] | None = None, *, names: Sequence[str] = ()) -> Spec:
    """Umbel's layout for these entries; their offsets are computed anew.

    Raises:
        EntryError: a name twice, an alias of nothing, or an impossible role.
    """
    wanted = tuple(wanted)
    pairs = tuple((aliases or {}).items())
    return _layout(wanted, pairs, tuple(names) or (*(e.name for e in wanted), *(a for a, _ in pairs)))


@lru_cache(maxsize=1024)
def _layout(wanted: tuple[Entry, ...], aliases: tuple[tuple[str, str], ...], names: tuple[str, ...]) -> Spec:
    _check_names(wanted, aliases, names)
    order = sorted(
        range(len(wanted)),
        key=lambda i: (
            -STORAGE[wanted[i].dtype].itemsize,
            _RANK[wanted[i].dtype],
            ROLES.index(wanted[i].role),
            i,
        ),
    )
    placed: dict[int, Entry] = {}
    offset = 0
    for i in order:
        e = wanted[i]
        placed[i] = Entry(e.name, e.dtype, e.shape, e.role, offset)
        offset += e.nbytes
    stored = tuple(placed[i] for i in range(len(wanted)))
    made = Spec(stored, aliases, names, _header([placed[i] for i in order], aliases, names))
    known = spec_of(made.header)  # which came from elsewhere, perhaps: equal ones had better be one object
    return known if known.entries == stored else made


def _check_names(wanted: tuple[Entry, ...], aliases: tuple[tuple[str, str], ...], names: tuple[str, ...]) -> None:
    stored = {e.name for e in wanted}
    if len(stored) != len(wanted) or len(set(names)) != len(names) or set(names) != stored | {a for a, _ in aliases}:
        twice = next((n for n, count in Counter((*names, *(e.name for e in wanted))).items() if count > 2), "")
        what = f"entry {twice!r} stands there twice" if twice else "the list of names does not fit the entries"
        raise EntryError(what, entry=twice)
    for alias, target in aliases:
        if alias in stored:
            raise EntryError(f"{alias!r} is an entry and also an alias of {target!r}", entry=alias)
        if target not in stored:
            raise EntryError(f"{alias!r} is an alias of {target!r}, which is not stored", entry=alias)
    for e in wanted:
        if e.name == "__metadata__" or not e.name:
            raise EntryError(f"an entry cannot be called {e.name!r}", entry=e.name, advice="choose another name")
        if e.role not in ROLES:
            raise EntryError(f"entry {e.name!r}: role {e.role!r} does not exist", entry=e.name)
        if e.role in ("trained", "buffer") and e.dtype not in FLOATS:
            raise EntryError(
                f"entry {e.name!r} is {e.dtype} and cannot be {e.role}: a mean of integers is no integer",
                entry=e.name,
                advice='give it the role "counter" (the server\'s value stays), or send floats',
            )


def _header(placed: Sequence[Entry], aliases: tuple[tuple[str, str], ...], names: tuple[str, ...]) -> bytes:
    ours = {"names": names, "aliases": dict(aliases), "roles": {e.name: e.role for e in placed}}
    table: dict[str, Any] = {"__metadata__": {_METADATA: json.dumps(ours, separators=(",", ":"))}}
    for e in placed:
        table[e.name] = {"dtype": e.dtype, "shape": e.shape, "data_offsets": [e.offset, e.offset + e.nbytes]}
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGN)
    return len(text).to_bytes(8, "little") + text


def parse(data: memoryview, *, source: str) -> Spec:
    """Read the header of a safetensors file, ours or foreign.

    Args:
        data: the whole file.
        source: how to call it in errors.

    Raises:
        FormatError: it is not a safetensors file, or a damaged one.
    """

    def refuse(why: str) -> FormatError:
        return FormatError(
            f"{source} is not a safetensors file that Umbel can read: {why}",
            advice="check the path, or write the file again",
        )

    if len(data) < 8:
        raise refuse(f"it has {len(data)} bytes")
    length = int.from_bytes(data[:8], "little")
    if not 2 <= length <= min(_MAX_HEADER, len(data) - 8):
        raise refuse(f"its header would have {length} bytes, the file has {len(data)}")
    header = bytes(data[: 8 + length])
    try:
        table = json.loads(header[8:], object_pairs_hook=_no_doubles)
    except (ValueError, RecursionError) as error:
        raise refuse(f"its header is not JSON ({error})") from None
    if not isinstance(table, dict):
        raise refuse("its header is not a table")
    metadata = table.pop("__metadata__", {})
    try:
        return _read_table(table, metadata, header, len(data) - len(header))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise refuse(str(error)) from None


@lru_cache(maxsize=1024)
def spec_of(header: bytes) -> Spec:
    """The spec that a header of ours describes; the same object each time, so that what is known of it stays known."""
    table = json.loads(header[8:])
    metadata = table.pop("__metadata__", {})
    nbytes = max((row["data_offsets"][1] for row in table.values()), default=0)
    return _read_table(table, metadata, header, nbytes)


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name stands twice")
    return table


def _read_table(table: dict[str, Any], metadata: Any, header: bytes, nbytes: int) -> Spec:
    ours = json.loads(metadata[_METADATA]) if isinstance(metadata, dict) and _METADATA in metadata else {}
    roles, aliases = dict(ours.get("roles", {})), dict(ours.get("aliases", {}))
    stored = {name: _read_entry(name, row, roles) for name, row in table.items()}
    end = 0
    for e in sorted(stored.values(), key=lambda e: (e.offset, e.nbytes)):
        if e.offset != end:
            raise ValueError(f"entry {e.name!r} begins at byte {e.offset}, expected {end}")
        end += e.nbytes
    if end != nbytes:
        raise ValueError(f"its entries have {end} bytes, the file holds {nbytes}")
    names = tuple(str(n) for n in ours.get("names", stored))
    order = tuple(stored[n] for n in names if n in stored)
    pairs = tuple((str(a), str(t)) for a, t in aliases.items())
    if len(order) != len(stored):
        raise ValueError("its list of names does not fit its entries")
    _check_names(order, pairs, names)
    return Spec(order, pairs, names, header)


def _read_entry(name: str, row: Any, roles: dict[str, Any]) -> Entry:
    dtype, shape, (begin, end) = row["dtype"], row["shape"], row["data_offsets"]
    if dtype not in STORAGE:
        raise ValueError(f"entry {name!r} has dtype {dtype!r}, which Umbel does not carry")
    if len(shape) > _MAX_AXES or not all(type(n) is int and 0 <= n < 2**62 for n in (*shape, begin, end)):
        raise ValueError(f"entry {name!r} has an impossible shape or place")
    if math.prod(n for n in shape if n) >= 2**60:  # more than NumPy can address, even where an axis is empty
        raise ValueError(f"entry {name!r} has an impossible shape")
    e = Entry(name, dtype, tuple(shape), roles.get(name) or resolve_role(name, dtype, (), payload=False), begin)
    if e.nbytes != end - begin:
        raise ValueError(f"entry {name!r} of shape {e.shape} needs {e.nbytes} bytes, not {end - begin}")
    return e


__all__ = [
    "ALIGN",
    "FLOATS",
    "ROLES",
    "STORAGE",
    "Entries",
    "Entry",
    "Role",
    "Run",
    "Spec",
    "aligned",
    "entries",
    "layout",
    "parse",
]
