"""How golden vectors are written: JSON that a person can read, one array to a line.

Numbers are written in their
shortest form that reads back to the same value, so nothing is rounded between the oracle and the test.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def write(name: str, content: dict[str, Any]) -> None:
    """Write `content` to the file `name` beside this script; lists of numbers stay on one line."""
    (HERE / name).write_text(_render(content, depth=0) + "\n", encoding="utf-8")


def read(name: str) -> dict[str, Any]:
    """Read a file beside this script."""
    content: dict[str, Any] = json.loads((HERE / name).read_text(encoding="utf-8"))
    return content


def _render(value: Any, *, depth: int) -> str:
    if isinstance(value, dict) and value:
        inner = ",\n".join(
            f"{' ' * (depth + 1)}{json.dumps(key)}: {_render(item, depth=depth + 1)}" for key, item in value.items()
        )
        return "{\n" + inner + "\n" + " " * depth + "}"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        inner = ",\n".join(" " * (depth + 1) + _render(item, depth=depth + 1) for item in value)
        return "[\n" + inner + "\n" + " " * depth + "]"
    return json.dumps(value, allow_nan=False)
