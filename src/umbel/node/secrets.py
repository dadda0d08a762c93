"""Secrets in a data set's settings: references, resolved in the app's process and nowhere else.

"env:NAME"                   the variable of the environment that the node was started in
"file:/run/secrets/x"        the content of a file, without the line's end
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from umbel.errors import UsageError

_ENV, _FILE = "env:", "file:"
_LARGEST = 1 << 20  # bytes of a secret


def resolved(value: Any, environment: Mapping[str, str], *, where: str = "") -> Any:
    """Settings with every reference replaced by what it refers to.

    Args:
        value: settings, or a value in them.
        environment: the variables.
        where: the keys that lead to it, for complaints.

    Raises:
        UsageError: a variable or a file is not there; names the key, and never a secret.
    """
    if isinstance(value, Mapping):
        return {
            name: resolved(inner, environment, where=f"{where}.{name}" if where else name)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [resolved(inner, environment, where=where) for inner in value]
    if isinstance(value, str) and value.startswith(_ENV):
        return _variable(value.removeprefix(_ENV), environment, where)
    if isinstance(value, str) and value.startswith(_FILE):
        return _content(Path(value.removeprefix(_FILE)), where)
    return value


def _variable(name: str, environment: Mapping[str, str], where: str) -> str:
    if name not in environment:
        raise UsageError(
            f"setting {where!r} refers to the variable {name}, which is not set",
            advice="set it where the node is started, or change the data set's settings in node.toml",
        )
    return environment[name]


def _content(path: Path, where: str) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST).decode().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "it is no text"
        raise UsageError(
            f"setting {where!r} refers to the file {path}, which cannot be read: {reason}",
            advice="check the path and its permissions, or change the data set's settings in node.toml",
        ) from None


__all__ = ["resolved"]
