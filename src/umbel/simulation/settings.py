"""Clients' settings on their way to worker processes: they may hold what pickle alone cannot send."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import PosixPath, PurePosixPath, WindowsPath
from typing import Any, final

import numpy as np

from umbel.errors import UsageError
from umbel.simulation.shipping import dumps

_PLAIN = frozenset({str, int, float, bool, type(None), bytes, PosixPath, PurePosixPath, WindowsPath})

Settings = Mapping[str, Any]


@final
class _Packed:
    """Settings that are unpickled where they arrive: classes and functions of ``__main__`` go by value."""

    def __init__(self, settings: Settings) -> None:
        self._data = dumps(settings)

    def __reduce__(self) -> tuple[Any, ...]:
        return pickle.loads, (self._data,)


def sendable(sites: Mapping[str, Settings]) -> Mapping[str, Any]:
    """The settings by client, as pickle can send them."""
    return {name: settings if _is_plain(settings) else _Packed(settings) for name, settings in sites.items()}


def check_sendable(sites: Mapping[str, Settings]) -> None:
    """Can all settings be sent?

    Raises:
        UsageError: names the client and the setting.
    """
    for client, settings in sites.items():
        for name, value in settings.items():
            try:
                if not _is_plain(value):
                    dumps(value)
            except Exception as error:
                raise UsageError(
                    f"setting {name!r} of client {client!r} cannot be sent to a worker process: "
                    f"{type(error).__name__}: {error}",
                    advice="give what it is made from (a path, a number), and make it in @client.data; or take "
                    "engine='inline', which sends nothing",
                ) from error


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind in _PLAIN:
        return True
    if kind is dict:
        return all(_is_plain(part) for pair in value.items() for part in pair)
    if kind is list or kind is tuple:
        return all(map(_is_plain, value))
    return kind is np.ndarray and not value.dtype.hasobject


__all__ = ["check_sendable", "sendable"]
