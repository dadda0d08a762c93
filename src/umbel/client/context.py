"""`Context`: what a handler knows besides the model."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, final

import numpy as np

from umbel import rng
from umbel.arrays import Arrays
from umbel.client.state import ReadOnly, unshared
from umbel.correction import Correction
from umbel.errors import UsageError

MISSING: Any = object()
"""Stands for what an app has no handler for."""
_STATE = "a client's state is written in train and in queries; its changes count when the update does"
_NO_DATA = {
    "setup": "setup is done once per process, for no client in particular: load what is a client's in @client.data",
    "server.evaluate": "the server has no client's data: load what it tests with where the function is written",
}


@final
class ClientInfo(NamedTuple):
    """Who this client is.

    Attributes:
        name: its name.
        labels: what is known of it, for samplers that select by label.
        part: its part of the data set in a simulation: an index array; None elsewhere.
        site: its owner's settings.
    """

    name: str
    labels: Mapping[str, str] = MappingProxyType({})
    part: Any = None
    site: Mapping[str, Any] = MappingProxyType({})


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What the contexts of all clients of an exchange have in common.

    Attributes:
        kind: what is done, in words.
        key: of a client's own stream of random numbers, by its name.
        device: where to compute.
        scratch: gives the directory for temporary files; None: the system's.
        config, extra, round: as in the context.
    """

    kind: str
    key: Callable[[str], int]
    device: Callable[[], str]
    scratch: Callable[[], str] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Arrays] = field(default_factory=dict)
    round: int = 0  # the field's word


@final
class Context:
    """What a handler knows besides the model.

    Attributes:
        client: name, labels, and in a simulation ``part``, the client's index array.
        site: settings of the data's owner; read-only, never set by the server.
        config: settings of this round, from the strategy; read-only.
        extra: more named arrays that the server sent.
        round: the round, from 1.
        state: what this client keeps from round to round: names and arrays, numbers, strings or bytes. A change
            counts when its update does. Read-only in evaluate.
        device: where to compute, such as "cpu" or "cuda:0".
    """

    _rng: np.random.Generator | None = None
    _scratch: tempfile.TemporaryDirectory[str] | None = None

    def __init__(
        self,
        client: ClientInfo,
        given: Conditions,
        *,
        state: MutableMapping[str, Any] | None = None,
        shared: Any = MISSING,
        data: Any = MISSING,
        correction: Correction | None = None,
    ) -> None:
        self._client, self._given, self._shared, self._data = client, given, shared, data
        self._state = state if state is not None else ReadOnly({}, f"ctx.state in {given.kind}", _STATE)
        self._correction = correction
        self.corrected = correction is None

    @property
    def client(self) -> ClientInfo:
        """Who this client is."""
        return self._client._replace(site=self.site) if self._client.site else self._client

    @cached_property
    def site(self) -> ReadOnly:
        """Settings of the data's owner."""
        return ReadOnly(unshared(dict(self._client.site)), "ctx.site", "its owner sets it")

    @property
    def round(self) -> int:
        """The round, from 1."""
        return self._given.round

    @cached_property
    def config(self) -> ReadOnly:
        """Settings of this round."""
        return ReadOnly(unshared(dict(self._given.config)), "ctx.config", "copy it: dict(ctx.config)")

    @cached_property
    def extra(self) -> Mapping[str, Arrays]:
        """More named arrays that the server sent."""
        return ReadOnly(dict(self._given.extra), "ctx.extra", "send arrays back with Update(extra=)")

    @property
    def shared(self) -> Any:
        """What ``@client.setup`` returned in this process."""
        return self._get("shared", self._shared, "setup")

    @property
    def data(self) -> Any:
        """What ``@client.data`` returned for this client."""
        return self._get("data", self._data, "data")

    def _get(self, what: str, value: Any, handler: str) -> Any:
        if value is MISSING:
            kind = self._given.kind
            advice = f"write a function with @client.{handler} in front of it; its result is ctx.{what}"
            raise UsageError(f"ctx.{what} is not there in {kind}", advice=_NO_DATA.get(kind, advice))
        return value

    @property
    def state(self) -> MutableMapping[str, Any]:
        """What this client keeps from round to round; read-only but in train and in queries."""
        return self._state

    @state.setter
    def state(self, values: Mapping[str, Any]) -> None:
        kept = dict(values)  # may be this very mapping
        self._state.clear()
        self._state.update(kept)

    @property
    def rng(self) -> np.random.Generator:
        """This task's own stream of random numbers; the same when the task is done again."""
        if self._rng is None:
            self._rng = rng.stream(self._given.key(self._client.name), "ctx.rng")
        return self._rng

    @property
    def device(self) -> str:
        """Where to compute."""
        return self._given.device()

    @property
    def correction(self) -> Correction | None:
        """What the strategy wants added to each gradient; reading it says that the loop applies it."""
        self.corrected = True
        return self._correction

    @property
    def scratch(self) -> Path:
        """An empty directory for temporary files; it is removed when the task ends."""
        if self._scratch is None:
            where = self._given.scratch() if self._given.scratch is not None else None
            self._scratch = tempfile.TemporaryDirectory(prefix="umbel-", dir=where, ignore_cleanup_errors=True)
        return Path(self._scratch.name)

    def close(self) -> None:
        """Remove the scratch directory."""
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None

    def __repr__(self) -> str:
        return (
            f"Context({self._given.kind}, client={self.client.name!r}, round={self.round}, config={dict(self.config)})"
        )


def pick_device(devices: str, number: int = 0) -> str:
    """The device that "auto" stands for: a GPU if torch is in use and has one, else the CPU.

    Args:
        devices: "auto", or a device's name.
        number: of the worker; GPUs are given to workers in turn.
    """
    if devices != "auto":
        return devices
    there = gpus()
    return f"cuda:{number % there}" if there else "cpu"


def gpus() -> int:
    """How many GPUs there are; none unless torch is in use."""
    torch = sys.modules.get("torch")
    return torch.cuda.device_count() if torch is not None and torch.cuda.is_available() else 0


__all__ = ["MISSING", "ClientInfo", "Conditions", "Context", "gpus", "pick_device"]
