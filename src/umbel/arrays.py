"""Ordered named arrays over one contiguous buffer.

The buffer is a whole ``.safetensors`` file, header and data. The bytes that are sent, that lie
on the disk and that the arithmetic walks over are the same bytes.

Where our code copies an array: in the constructor (1), and in arithmetic, whose result is new.
``to_bytes``, ``load`` of an aligned file, and indexing copy nothing.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self, final

import numpy as np

from umbel.bfloat16 import from_bfloat16
from umbel.buffers import SMALL, TINY, Array, filled_file, new_file, stored_bytes
from umbel.digest import digest_of
from umbel.elements import (
    as_storage,
    cast,
    check_shapes,
    copy,
    entry_difference,
    in_blocks,
    numbers,
    scalar,
    spec_of_plain,
)
from umbel.errors import EntryError, FormatError, UsageError
from umbel.spec import FLOATS, STORAGE, Entries, Entry, Role, Run, Spec, layout, parse, resolve_role

BLOCK = 8192  # elements that stay in the first-level cache together with a few temporaries
_BYTE = np.dtype(np.uint8)


@final
class Arrays:
    """A model, or anything else made of named arrays.

    Values do not change: what indexing gives is read-only, and arithmetic returns new arrays.
    Arithmetic with a number or with arrays of the same names and shapes touches floating-point
    entries; integers, booleans and payloads keep the left operand's value, and so does what the
    right one lacks because no update has it: frozen entries, counters, payloads, local ones. The
    result has the left operand's dtypes; 16-bit floats are computed in float32. NumPy's elementwise
    functions work too: ``np.sqrt(arrays)``.

    Args:
        values: names and arrays, numbers, or bytes (a payload); copied once.
        roles: roles by name, or choices such as ``umbel.entries("*.bn*", role="buffer")``. By
            default floats are "trained", integers and booleans "counter", bytes "payload".
        aliases: names that stand for another entry: tied weights are stored once.

    Raises:
        EntryError: an entry that cannot be carried, by name.

    Example:
        >>> model = Arrays({"w": np.ones((2, 2)), "b": np.zeros(2)})
        >>> (model * 2)["w"].sum()
        np.float64(8.0)
    """

    __slots__ = ("__weakref__", "_digest", "_held", "_stored", "_views", "harmless", "spec")

    spec: Spec
    harmless: bool  # was it seen, while they were written, that all elements are finite and far from overflow?
    _held: Array | bytes  # the file; or, of tiny arrays into which nobody has looked yet, their bytes alone
    _stored: tuple[Array, ...]  # what `stored` gives, once it was asked for
    _views: dict[str, Any]
    _digest: str

    def __init__(
        self,
        values: Mapping[str, Any],
        *,
        roles: Mapping[str, Role] | Sequence[Entries] = (),
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        if not roles and not aliases and (spec := spec_of_plain(values)) is not None:
            self.spec, self._stored, self._views, self._digest, self.harmless = spec, (), {}, "", False
            self._held = stored_bytes(spec, values) if spec.size <= TINY else filled_file(spec, values)
            return
        found: dict[str, Array] = {}
        wanted: list[Entry] = []
        for name, value in values.items():
            code, raw = as_storage(name, value)
            payload = isinstance(value, bytes | bytearray | memoryview)
            wanted.append(Entry(name, code, raw.shape, resolve_role(name, code, roles, payload=payload)))
            found[name] = raw
        filled = Arrays.build(layout(wanted, aliases), lambda name, out: np.copyto(out, found[name]))
        self.spec, self._held, self.harmless = filled.spec, filled._held, False
        self._stored, self._views, self._digest = (), {}, ""

    @classmethod
    def build(cls, spec: Spec, write: Callable[[str, Array], object]) -> Self:
        """Arrays of a given spec, each written in place.

        Args:
            spec: what to make; see ``umbel.spec.layout``.
            write: called as ``write(name, out)`` for each stored entry; ``out`` is uninitialised
                and has the entry's shape and storage dtype (bfloat16 as uint16 bits). It may return True: what it
                wrote is harmless, as `umbel.elements.in_blocks` sees.
        """
        made = cls.blank(spec)
        looked = [write(e.name, made._storage(e)) is True for e in spec.entries]
        made.harmless = all(looked)
        return made.freeze()

    @classmethod
    def copied(cls, spec: Spec, values: Iterable[Array]) -> Self:
        """Arrays of a given spec, copied from each entry's values in storage dtype, in the order of ``Spec.placed``."""
        made = cls.over(spec, new_file(spec))
        looked = [copy(value, out) for out, value in zip(made.stored(), values, strict=True)]
        made.harmless = all(looked)
        made._file.flags.writeable = False
        return made

    @classmethod
    def blank(cls, spec: Spec, file: Array | None = None) -> Self:
        """Arrays whose values are not yet written, in memory for the whole file if that is given; then ``freeze``."""
        if file is None:
            return cls.over(spec, new_file(spec))
        file[: len(spec.header)] = spec.head
        return cls.over(spec, file)

    @classmethod
    def over(cls, spec: Spec, file: Array) -> Self:
        """Arrays over the bytes of a whole file, header and data, which have this spec; without a copy."""
        made = cls.__new__(cls)
        made.spec, made._held, made._stored, made._views, made._digest, made.harmless = spec, file, (), {}, "", False
        return made

    @property
    def _file(self) -> Array:
        """The bytes of the whole file, header and data."""
        held = self._held
        if isinstance(held, bytes):  # it had not been one, which takes a fifth of the time
            self._held = held = np.frombuffer(self.spec.header + held, _BYTE)
        return held

    @property
    def writable(self) -> bool:
        """Are these arrays still being written?"""
        return bool(self._file.flags.writeable)

    def thawed(self) -> Self:
        """A copy that can be written; `freeze` it when it is."""
        made = type(self).blank(self.spec)
        np.copyto(made._file, self._file)
        return made

    def freeze(self) -> Self:
        """End of writing: from now on the values do not change."""
        self._file.flags.writeable = False
        self._views.clear()
        return self

    def __getitem__(self, name: str) -> Any:
        """The array called ``name``, read-only; bfloat16 as float32, a payload as bytes."""
        view = self._views.get(name)
        if view is None:
            e = self.spec.by_name[name]
            raw = self._storage(e)
            view = raw.tobytes() if e.role == "payload" else from_bfloat16(raw) if e.dtype == "BF16" else raw
            if isinstance(view, np.ndarray):
                view.flags.writeable = False
            self._views[name] = view
        return view

    def __iter__(self) -> Iterator[str]:
        return iter(self.spec.names)

    def __len__(self) -> int:
        return len(self.spec.names)

    def __contains__(self, name: object) -> bool:
        return name in self.spec.by_name

    def keys(self) -> tuple[str, ...]:
        """All names, aliases among them, in the user's order."""
        return self.spec.names

    def values(self) -> list[Any]:
        """All arrays, in the user's order."""
        return [self[name] for name in self]

    def items(self) -> list[tuple[str, Any]]:
        """Names and arrays, in the user's order."""
        return [(name, self[name]) for name in self]

    def raw(self, name: str) -> Array:
        """The stored array: like indexing, but bfloat16 as its bits and a payload as uint8."""
        return self._storage(self.spec.by_name[name])

    def stored(self) -> tuple[Array, ...]:
        """The stored arrays of all entries, in the order of ``Spec.placed``; kept, for many clients read one model."""
        if not self._stored:
            made = tuple(np.ndarray(shape, dtype, self._file, begin) for _, shape, dtype, begin in self.spec.slots)
            if self._file.flags.writeable:  # not kept: they can be written to even when these arrays no longer can
                return made
            self._stored = made
        return self._stored

    def flat(self, run: Run) -> Array:
        """Neighbouring entries as one flat array in storage dtype; see ``Spec.runs``."""
        return self.stretch(run.offset, run.size, run.dtype)

    @property
    def data(self) -> Array:
        """The stored bytes of all entries, without the header."""
        return self._file[len(self.spec.header) :]

    def packed(self) -> bytes:
        """The same; a copy, unless they are tiny and nobody has looked into them."""
        held = self._held
        return held if isinstance(held, bytes) else self.data.tobytes()

    def stretch(self, offset: int, size: int, dtype: str) -> Array:
        """``size`` stored elements from byte ``offset`` of the data on, as one flat array."""
        return np.ndarray((size,), STORAGE[dtype], self._file, len(self.spec.header) + offset)

    def _storage(self, e: Entry) -> Array:
        return np.ndarray(e.shape, STORAGE[e.dtype], self._file, len(self.spec.header) + e.offset)

    @property
    def nbytes(self) -> int:
        """Bytes of data."""
        return self.spec.nbytes

    def __repr__(self) -> str:
        shown = ", ".join(f"{e.name}: {e.describe()}" for e in self.spec.entries[:6])
        return f"Arrays({shown}{', ...' if len(self.spec.entries) > 6 else ''}; {self.nbytes:,} bytes)"

    # --- bytes and files ---------------------------------------------------------------------

    def to_bytes(self) -> memoryview:
        """The arrays as a safetensors file, without a copy."""
        return self._file.data.toreadonly()

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview | mmap.mmap, *, source: str = "these bytes") -> Self:
        """Arrays over the bytes of a safetensors file; copied only if they are not aligned.

        Raises:
            FormatError: the bytes are not a safetensors file.
        """
        view = memoryview(data)
        spec = parse(view, source=source)
        file = np.frombuffer(view, np.uint8)
        misaligned = (file.ctypes.data + len(spec.header)) % 8 or any(
            r.offset % STORAGE[r.dtype].itemsize for r in spec.runs
        )
        made = cls.over(spec, file)
        return made._laid_out(spec.entries, dict(spec.aliases), spec.names) if misaligned else made.freeze()

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Arrays over a mapped safetensors file, ours or foreign; copied only if it is not aligned, and on Windows.

        Raises:
            FormatError: it is not a safetensors file; or FileNotFoundError.
        """
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise FormatError(f"{os.fspath(path)} is empty", advice="check the path, or write the file again")
            data = file.read() if sys.platform == "win32" else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return cls.from_bytes(data, source=os.fspath(path))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a ``.safetensors`` file; whoever reads the path sees the old file or the whole new one."""
        temporary = f"{os.fspath(path)}.{os.getpid()}.tmp"
        try:
            with open(temporary, "wb") as file:
                file.write(self.to_bytes())
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            if os.path.exists(temporary):
                os.unlink(temporary)
            raise

    def digest(self, between: Callable[[], object] = lambda: None) -> str:
        """BLAKE3 of the file's bytes, in hex; computed once. ``between`` is called now and then; it may raise."""
        if self._digest:
            return self._digest
        found = digest_of(self.to_bytes(), between).hex()
        self._digest = found if not self._file.flags.writeable else ""  # else not frozen yet
        return found

    @property
    def known_digest(self) -> str:
        """What `digest` gives, if it was computed already; else an empty string."""
        return self._digest

    def with_digest(self, digest: str) -> Self:
        """Itself, where somebody has compared its bytes with this digest: it need not be computed again."""
        if not self._file.flags.writeable:
            self._digest = digest
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Arrays.from_bytes, (bytes(self.to_bytes()),)

    def canonical(self) -> Self:
        """The same arrays in Umbel's own layout; itself if they are."""
        if self.spec.canonical:
            return self
        return self._laid_out(self.spec.entries, dict(self.spec.aliases), self.spec.names)

    def select(self, choice: Entries | str | Callable[[Entry], bool]) -> Self:
        """The chosen entries only; an alias stays with the entry it stands for."""
        if isinstance(choice, str):
            choice = Entries((choice,))
        test = (lambda e, c=choice: c.match(e.name)) if isinstance(choice, Entries) else choice
        kept = tuple(e for e in self.spec.entries if test(e))
        if len(kept) == len(self.spec.entries):
            return self.canonical()
        stored = {e.name for e in kept}
        aliases = {a: t for a, t in self.spec.aliases if t in stored}
        return self._laid_out(kept, aliases, tuple(n for n in self.spec.names if n in stored or n in aliases))

    def with_roles(self, *choices: Entries) -> Self:
        """The same values; entries that a choice matches get that choice's role."""
        changed = tuple(
            Entry(e.name, e.dtype, e.shape, next((c.role for c in choices if c.role and c.match(e.name)), e.role))
            for e in self.spec.entries
        )
        return self._laid_out(changed, dict(self.spec.aliases), self.spec.names)

    def with_values(self, values: Mapping[str, Any]) -> Self:
        """A copy in which some entries have other values, cast to the entry's dtype.

        Raises:
            EntryError: a name that is not here, or another shape.
        """
        unknown = next((n for n in values if n not in self.spec.by_name), None)
        if unknown is not None:
            raise EntryError(f"there is no entry {unknown!r} to replace", entry=unknown)
        targets = {self.spec.by_name[n].name: v for n, v in values.items()}

        def write(name: str, out: Array) -> None:
            e = self.spec.by_name[name]
            if name not in targets:
                np.copyto(out, self._storage(e))
                return
            code, raw = as_storage(name, targets[name])
            if raw.shape != e.shape:
                raise EntryError(f"entry {name!r} has shape {e.shape}, not {raw.shape}", entry=name)
            np.copyto(out, raw if code == e.dtype else cast(np.asarray(numbers(code, raw)), e.dtype))

        return type(self).build(self.spec, write)

    def merge(self, other: Arrays) -> Self:
        """These entries and the other's; where both have a name, the other's."""
        theirs = {e.name for e in other.spec.entries}
        both = (*(e for e in self.spec.entries if e.name not in theirs), *other.spec.entries)
        aliases = dict(self.spec.aliases) | dict(other.spec.aliases)
        spec = layout(both, {a: t for a, t in aliases.items() if a not in {e.name for e in both}})
        return type(self).build(spec, lambda n, out: np.copyto(out, (other if n in theirs else self).raw(n)))

    def astype(self, dtype: str) -> Self:
        """The same names; floating-point entries in another precision: "F64", "F32", "F16" or "BF16"."""
        if dtype not in FLOATS:
            raise UsageError(f"{dtype!r} is no floating-point dtype", advice=f"take one of {sorted(FLOATS)}")
        changed = [Entry(e.name, dtype if e.dtype in FLOATS else e.dtype, e.shape, e.role) for e in self.spec.entries]
        spec = layout(changed, dict(self.spec.aliases), names=self.spec.names)

        def write(name: str, out: Array) -> None:
            e = self.spec.by_name[name]
            raw = self._storage(e)
            np.copyto(out, raw if e.dtype not in FLOATS else cast(numbers(e.dtype, raw), dtype))

        return type(self).build(spec, write)

    def _laid_out(self, kept: Iterable[Entry], aliases: Mapping[str, str], names: tuple[str, ...]) -> Self:
        spec = layout((Entry(e.name, e.dtype, e.shape, e.role) for e in kept), aliases, names=names)
        source = self.spec.by_name
        return type(self).build(spec, lambda name, out: np.copyto(out, self._storage(source[name])))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Arrays) and not self.difference(other)

    __hash__ = None  # type: ignore[assignment]  # values that compare by content are not keys

    def difference(self, other: Arrays, *, rtol: float = 0.0, atol: float = 0.0) -> str:
        """What differs first, in words that name the entry; "" when nothing does.

        Args:
            other: the arrays to compare with.
            rtol: allowed difference relative to the other's value. With both 0 the bits are compared.
            atol: allowed absolute difference.
        """
        if text := self.spec.difference(other.spec):
            return text
        for e in self.spec.entries:
            if text := entry_difference(e, self.raw(e.name), other.raw(e.name), rtol, atol):
                return text
        return ""

    # --- arithmetic --------------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method != "__call__" or kwargs or ufunc.nout != 1:
            return NotImplemented
        return _apply(ufunc, inputs)

    def __add__(self, other: Arrays | float) -> Arrays:
        return _apply(np.add, (self, other))

    def __sub__(self, other: Arrays | float) -> Arrays:
        return _apply(np.subtract, (self, other))

    def __mul__(self, other: Arrays | float) -> Arrays:
        return _apply(np.multiply, (self, other))

    def __truediv__(self, other: Arrays | float) -> Arrays:
        return _apply(np.true_divide, (self, other))

    def __pow__(self, other: float) -> Arrays:
        return _apply(np.power, (self, other))

    def __radd__(self, other: float) -> Arrays:
        return _apply(np.add, (other, self))

    def __rsub__(self, other: float) -> Arrays:
        return _apply(np.subtract, (other, self))

    def __rmul__(self, other: float) -> Arrays:
        return _apply(np.multiply, (other, self))

    def __rtruediv__(self, other: float) -> Arrays:
        return _apply(np.true_divide, (other, self))

    def __neg__(self) -> Arrays:
        return _apply(np.negative, (self,))

    def zeros(self) -> Arrays:
        """Zeros of the same spec."""
        made = Arrays.blank(self.spec)
        made._file[len(self.spec.header) :] = 0
        return made.freeze()

    def norm(self, *, role: Role = "trained") -> float:
        """The L2 norm over all entries of one role, summed in float64 over blocks of fixed size."""
        runs = [run for run in self.spec.runs if run.role == role and run.dtype in FLOATS]
        with np.errstate(over="ignore", under="ignore"):
            for scale in (1.0, 2.0**-600, 2.0**600):  # a float64 has squares beyond the range of float64
                total = 0.0
                for run in runs:
                    flat = self.flat(run)
                    for i in range(0, run.size, BLOCK):
                        block = np.multiply(numbers(run.dtype, flat[i : i + BLOCK]), scale, dtype=np.float64)
                        total += float(np.add.reduce(block * block))
                if 1e-290 < total < np.inf:
                    break
        return float(np.sqrt(total)) / scale


def _apply(ufunc: np.ufunc, operands: tuple[Any, ...]) -> Arrays:
    """An elementwise function of arrays and numbers, laid out like the first arrays among them."""
    first = next(o for o in operands if isinstance(o, Arrays))
    for other in operands:
        if isinstance(other, Arrays) and other.spec is not first.spec:
            check_shapes(first.spec, other.spec)
        elif not isinstance(other, Arrays | int | float | np.number):
            raise UsageError(f"arithmetic of Arrays with {type(other).__name__} has no meaning")

    def write(name: str, out: Array) -> bool:
        e = first.spec.by_name[name]
        if e.dtype not in FLOATS or any(isinstance(o, Arrays) and name not in o.spec.by_name for o in operands):
            np.copyto(out, first.raw(name))
            return False
        inputs = [
            numbers(o.spec.by_name[name].dtype, o.raw(name)) if isinstance(o, Arrays) else scalar(o, e.dtype)
            for o in operands
        ]
        if e.dtype in ("F64", "F32") and all(getattr(i, "dtype", out.dtype) == out.dtype for i in inputs):
            return in_blocks(lambda block, *its: ufunc(*its, out=block), out, *inputs)
        np.copyto(out, cast(ufunc(*inputs), e.dtype))
        return False

    return Arrays.build(first.spec, write)


__all__ = ["BLOCK", "SMALL", "Array", "Arrays"]
