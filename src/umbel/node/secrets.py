"""Secrets in a data set's settings: references, resolved in the app's process and nowhere else.

"env:NAME"                   the variable of the environment that the node was started in
"file:/run/secrets/x"        the content of a file, without the line's end

What such a reference stands for is not to be read in what the app prints, nor in errors: those reach the node's log,
its journal and the server. An app that means to tell a secret can; one that quotes the address of a database does not.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO, final
from urllib.parse import quote

from umbel.errors import UsageError

_ENV, _FILE = "env:", "file:"
_LARGEST = 1 << 20  # bytes of a secret
_SHORTEST = 4  # characters of one that is hidden: shorter ones are parts of harmless words
_INSTEAD = "(a secret)"


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


@final
class Hiding:
    """Texts without secrets.

    Args:
        references: settings as the owner wrote them.
        values: the same, resolved.
    """

    def __init__(self, references: Any = None, values: Any = None) -> None:
        found = set(_secrets(references, values))
        forms = {form for secret in found for form in (secret, repr(secret)[1:-1], quote(secret, safe=""))}
        self._forms = sorted((form for form in forms if len(form) >= _SHORTEST), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """The text with something else in the place of each secret."""
        for form in self._forms:
            text = text.replace(form, _INSTEAD)
        return text

    def watch_streams(self) -> None:
        """Hide secrets in what is printed from now on."""
        if self._forms:
            sys.stdout = sys.__stdout__ = _Stream(sys.stdout, self)  # type: ignore[misc]  # one is final, to mypy
            sys.stderr = sys.__stderr__ = _Stream(sys.stderr, self)  # type: ignore[misc]


@final
class _Stream(io.TextIOWrapper):
    """A standard stream without secrets; the one before stays open, for their files are the same."""

    def __init__(self, before: TextIO, hide: Hiding) -> None:
        super().__init__(before.buffer, encoding=before.encoding, errors=before.errors, write_through=True)
        self._before, self._hide = before, hide

    def write(self, text: str, /) -> int:
        super().write(self._hide(text))
        return len(text)


def _secrets(reference: Any, value: Any) -> Iterator[str]:
    if isinstance(reference, Mapping):
        for name, inner in reference.items():
            yield from _secrets(inner, value[name])
    elif isinstance(reference, list):
        for inner, its in zip(reference, value, strict=True):
            yield from _secrets(inner, its)
    elif isinstance(reference, str) and reference.startswith((_ENV, _FILE)):
        yield value


__all__ = ["Hiding", "resolved"]
