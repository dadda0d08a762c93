"""Values as JSON, with their arrays as blobs beside it; nothing is ever unpickled.

Strategies, recipes and committed state are trees of plain values, frozen dataclasses and `Arrays`.
A tagged object stands for what JSON lacks:

    {"$class": "umbel.optimize.adam:Adam", "fields": {...}}     a dataclass
    {"$arrays": "<name>"}      {"$bytes": "<base64>"}           Arrays as a blob; bytes
    {"$array": [dtype, shape, "<base64>"]}                      a small NumPy array
    {"$blob": "<name>"}                                         a large one, as Arrays
    {"$turned": {...}}                                          one that lies in memory column by column
    {"$scalar": [dtype, number]}                                a number of NumPy's
    {"$tuple": [...]}          {"$map": [[key, value], ...]}    a tuple; a mapping with other keys
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import numpy as np

from umbel.arrays import Arrays
from umbel.errors import FormatError, UsageError

Json = Any
Place = Callable[[Arrays], Json]
Fetch = Callable[[str], Arrays]
_CONTAINERS = (dict, list)
MOST_BITS = 14_000  # of an integer: about the 4300 decimal digits that Python makes, and reads, of one
_LARGE = 4096  # bytes; a NumPy array above that is a blob


def encode(value: Any, place: Place, *, where: str = "this value") -> Json:
    """A value as JSON.

    Args:
        value: a tree of None, numbers, strings, bytes, lists, tuples, mappings, NumPy arrays, `Arrays`
            and dataclasses.
        place: keeps arrays somewhere and returns what stands for them: a name.
        where: how to call the value in errors.

    Raises:
        UsageError: something in it cannot be written down; says where.
    """
    if value is None or isinstance(value, bool | int | float | str | np.generic | Enum):
        return _encode_plain(value, where)
    if isinstance(value, Arrays):
        return {"$arrays": place(value)}
    if isinstance(value, np.ndarray):
        return _encode_array(value, place, where)
    if isinstance(value, bytes | bytearray):
        return _bytes(value)
    if isinstance(value, tuple) and type(value) is tuple:
        return {"$tuple": [encode(v, place, where=f"{where}[{i}]") for i, v in enumerate(value)]}
    if isinstance(value, list):
        return [encode(v, place, where=f"{where}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, Mapping):
        return _encode_mapping(value, place, where)
    if is_dataclass(value) and not isinstance(value, type):
        return _encode_dataclass(value, place, where)
    raise _refused(value, where)


def describe(value: Any) -> Json:
    """A value as JSON that says what it is, for digests and for naming differences; it cannot be read back.

    It is the same in every process. `Arrays` stand as their digest; what ``encode`` would refuse stands as the name
    of its class or function.
    """
    if isinstance(value, Enum):
        return f"{name_of(type(value))}.{value.name}"
    if isinstance(value, np.generic) and _is_number(value.dtype):
        return value.item()
    if _is_long(value):
        return hex(value)
    if isinstance(value, np.ndarray):
        value = np.asarray(value, order="C")
    if isinstance(value, Mapping):
        return {str(k): describe(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [describe(v) for v in value]
    if isinstance(value, set | frozenset):
        return {"set": sorted((describe(v) for v in value), key=json.dumps)}
    if isinstance(value, functools.partial):
        return {"partial of": describe(value.func), "args": describe(value.args), "keywords": describe(value.keywords)}
    if is_dataclass(value) and not isinstance(value, type):
        content = {f.name: describe(getattr(value, f.name)) for f in fields(value) if f.init}
        kind = type(value)
        ours = kind.__module__.startswith("umbel.")
        return {"is": kind.__qualname__ if ours else f"{kind.__module__}:{kind.__qualname__}", **content}
    try:
        return encode(value, lambda arrays: arrays.digest())
    except UsageError:
        return name_of(value)


def name_of(value: Any) -> str:
    """What a function, a class or an object of a class is called: "module:name"."""
    named = value if isinstance(getattr(value, "__qualname__", None), str) else type(value)
    return f"{getattr(named, '__module__', None)}:{named.__qualname__}"


def fingerprint(value: Any) -> str:
    """A digest of a value; two values that are described alike have the same."""
    return hashlib.sha256(json.dumps(describe(value), sort_keys=True).encode()).hexdigest()


def _refused(value: Any, where: str) -> UsageError:
    return UsageError(
        f"{where} is a {type(value).__name__}, which cannot be kept or sent",
        advice="use numbers, strings, bytes, lists, mappings, arrays, umbel.Arrays or dataclasses of these",
    )


def _is_long(value: Any) -> bool:
    return isinstance(value, int) and value.bit_length() > MOST_BITS


def _is_number(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "biuf" and dtype.itemsize <= 8


def _encode_plain(value: Any, where: str) -> Json:
    """Numbers and text. Those of NumPy stay NumPy's: whoever reads them computes with the same type."""
    if isinstance(value, Enum):
        kind = "an int" if isinstance(value, int) else "text or another value"
        raise UsageError(
            f"{where} is a {type(value).__name__}, and would be read back as {kind}", advice="use its .value"
        )
    if _is_long(value):
        raise UsageError(f"{where} is an integer of {value.bit_length():,} bits", advice="use bytes: n.to_bytes(...)")
    if not isinstance(value, np.generic):
        return value
    if isinstance(value, np.str_ | np.bytes_):
        return value.item() if isinstance(value, np.str_) else _bytes(value)
    if not _is_number(value.dtype):
        raise _refused(value, where)
    return {"$scalar": [value.dtype.str, value.item()]}


def _bytes(value: bytes | bytearray) -> Json:
    return {"$bytes": base64.b64encode(value).decode()}


def _encode_array(value: np.ndarray[Any, Any], place: Place, where: str) -> Json:
    if isinstance(value, np.ma.MaskedArray):
        raise UsageError(f"{where} is an array with a mask", advice="say what stands there: .filled(0)")
    if type(value) not in (np.ndarray, np.memmap):
        kind = type(value).__name__
        raise UsageError(f"{where} is a {kind}, and would be read back as a plain array", advice="use np.asarray(...)")
    if value.flags.f_contiguous and not value.flags.c_contiguous:  # what NumPy sums up in this order
        return {"$turned": _encode_array(value.T, place, where)}
    if value.dtype.hasobject or value.dtype.kind == "V":
        what = "Python objects" if value.dtype.hasobject else str(value.dtype)
        raise UsageError(f"{where} is an array of {what}", advice="use an array of numbers, or umbel.Arrays")
    if value.nbytes > _LARGE and _is_number(value.dtype) and value.dtype.isnative:
        return {"$blob": place(Arrays({"array": value}))}
    data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
    return {"$array": [value.dtype.str, list(value.shape), data]}


def _encode_mapping(value: Mapping[Any, Any], place: Place, where: str) -> Json:
    if isinstance(value, defaultdict | Counter):
        raise UsageError(f"{where} is a {type(value).__name__}, and would be read back as a dict", advice="use a dict")
    if all(type(k) is str and not k.startswith("$") for k in value):
        return {k: encode(v, place, where=f"{where}[{k!r}]") for k, v in value.items()}
    return {
        "$map": [
            [encode(k, place, where=f"a key of {where}"), encode(v, place, where=f"{where}[{k!r}]")]
            for k, v in value.items()
        ]
    }


def _encode_dataclass(value: Any, place: Place, where: str) -> Json:
    kind = type(value)
    if "<locals>" in kind.__qualname__:
        raise UsageError(
            f"{where} is a {kind.__qualname__}, a class defined inside a function",
            advice="define the class at the top of its module, so that it can be found again",
        )
    content = {
        f.name: encode(getattr(value, f.name), place, where=f"{where}.{f.name}") for f in fields(value) if f.init
    }
    return {"$class": f"{kind.__module__}:{kind.__qualname__}", "fields": content}


_VALUES = "aggregate correction engine errors metrics optimize policy sample schedule spec strategies transforms"


def own_classes(path: str) -> bool:
    """Which classes ``decode`` makes by default: the values of this package, and never an adapter's."""
    package, _, rest = path.partition(".")
    return package == "umbel" and rest.replace(":", ".").partition(".")[0] in _VALUES.split()


def loaded_classes(path: str) -> bool:
    """Our own values, and classes of modules that the program has imported itself."""
    return own_classes(path) or path.partition(":")[0] in sys.modules


def decode(data: Json, fetch: Fetch, *, allow: Callable[[str], bool] = own_classes) -> Any:
    """The value that ``encode`` wrote.

    Args:
        data: what ``encode`` returned.
        fetch: gives the arrays that a name stands for.
        allow: may an object of this class, "module:Name", be made? Only dataclasses ever are.

    Raises:
        FormatError: it is not something that ``encode`` wrote, or a class is not allowed.
    """
    try:
        return _decode(data, fetch, allow)
    except FormatError:
        raise
    except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError) as error:
        raise FormatError(f"this is not what Umbel writes: {error}") from error


def _decode(data: Json, fetch: Fetch, allow: Callable[[str], bool]) -> Any:
    if isinstance(data, list):
        return [_decode(v, fetch, allow) for v in data]
    if not isinstance(data, dict):
        return data
    if next(iter(data), "")[:1] != "$":  # no tag: a mapping, as most are
        return {k: _decode(v, fetch, allow) if type(v) in _CONTAINERS else v for k, v in data.items()}
    match data:
        case {"$arrays": str(name)}:
            return fetch(name)
        case {"$bytes": str(text)}:
            return base64.b64decode(text, validate=True)
        case {"$blob": _} | {"$array": _} | {"$turned": _} | {"$scalar": _}:
            return _decode_numpy(data, fetch)
        case {"$tuple": list(items)}:
            return tuple(_decode(v, fetch, allow) for v in items)
        case {"$map": list(pairs)}:
            return {_decode(k, fetch, allow): _decode(v, fetch, allow) for k, v in pairs}
        case {"$class": str(path), "fields": dict(content)}:
            return _find_class(path, allow)(**{k: _decode(v, fetch, allow) for k, v in content.items()})
    raise FormatError(f"there is no tag {next(iter(data))!r}")


def _decode_numpy(data: Json, fetch: Fetch) -> Any:
    match data:
        case {"$blob": str(name)}:
            return fetch(name)["array"].copy()
        case {"$array": [str(dtype), list(shape), str(text)]}:
            return np.frombuffer(base64.b64decode(text, validate=True), np.dtype(dtype)).reshape(shape).copy()
        case {"$turned": {"$blob": _} | {"$array": _} as rows}:
            return _decode_numpy(rows, fetch).T
        case {"$scalar": [str(dtype), bool() | int() | float() as number]} if _is_number(np.dtype(dtype)):
            with np.errstate(over="raise"):  # a number that it cannot hold is none that was written
                return np.dtype(dtype).type(number)
    raise FormatError(f"this is no {next(iter(data))!r} that Umbel writes")


def _find_class(path: str, allow: Callable[[str], bool]) -> Any:
    if not allow(path):
        raise FormatError(f"a value of class {path!r} is not accepted here")
    module, _, name = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise FormatError(
            f"class {path!r} is not to be found ({error})", advice="run the program that wrote it, unchanged"
        ) from error
    if not (isinstance(found, type) and is_dataclass(found) and found.__module__ == module):
        raise FormatError(f"{path!r} is no dataclass")
    return found


__all__ = [
    "MOST_BITS",
    "Fetch",
    "Json",
    "Place",
    "decode",
    "describe",
    "encode",
    "fingerprint",
    "loaded_classes",
    "name_of",
    "own_classes",
]
