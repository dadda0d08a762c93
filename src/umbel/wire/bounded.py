"""JSON that other languages read, bounded in size and depth.

JSON has no NaN and no infinity, and many parsers refuse them: such a number is written {"$float": "nan"}, or "inf", or
"-inf".
"""

from __future__ import annotations

import json
import math
from typing import Any

from umbel.codec import Json
from umbel.errors import FormatError, UsageError
from umbel.wire.limits import DEPTH

_FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def to_json(value: Json, field: str, most: int) -> str:
    """JSON as text.

    Raises:
        UsageError: it is larger, or nested deeper, than what travels.
    """
    if _deeper(value, DEPTH):
        raise UsageError(f"{field} is nested deeper than {DEPTH} levels", advice="flatten it")
    text = json.dumps(_marked(value), separators=(",", ":"), allow_nan=False)
    if len(text) > most:
        raise UsageError(f"{field} has {len(text):,} characters, {most:,} travel", advice="send arrays as extra=")
    return text


def from_json(text: str, field: str, most: int) -> dict[str, Any]:
    """The JSON object in a text.

    Raises:
        FormatError: it is no JSON object, too large, or too deep; names the field.
    """
    if len(text) > most:
        raise FormatError(f"{field} has {len(text):,} characters, at most {most:,} are accepted")
    try:
        value = json.loads(text, parse_constant=_constant, object_hook=_unmarked)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{field} is no JSON: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise FormatError(f"{field} is a JSON {type(value).__name__}, not an object")
    if _deeper(value, DEPTH):
        raise FormatError(f"{field} is nested deeper than {DEPTH} levels")
    return value


def _constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _deeper(value: Any, levels: int) -> bool:
    layer = [value]
    for _ in range(levels):
        layer = [x for v in layer if isinstance(v, dict | list) for x in (v.values() if isinstance(v, dict) else v)]
        if not layer:
            return False
    return any(isinstance(v, dict | list) for v in layer)


def _marked(value: Json) -> Json:
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"}
    if isinstance(value, dict):
        return {k: _marked(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_marked(v) for v in value]
    return value


def _unmarked(value: dict[str, Any]) -> Any:
    if len(value) == 1 and "$float" in value:
        name = value["$float"]
        if not isinstance(name, str) or name not in _FLOATS:
            raise ValueError(f"there is no number {name!r}")
        return _FLOATS[name]
    return value


__all__ = ["from_json", "to_json"]
