"""A run packed for the server: its submission as JSON, and the arrays beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, final

from umbel.arrays import Arrays
from umbel.codec import Json, decode, encode, own_classes
from umbel.engine.app import ServerApp
from umbel.engine.submission import Submission
from umbel.errors import FormatError, UsageError
from umbel.remote.named import name_of_server

if TYPE_CHECKING:
    from umbel import wire
    from umbel.apps.describe import App

LARGEST = 1 << 20
"""Characters of a submission; its arrays do not count."""
_INLINE = 64 << 10  # bytes of a blob that travels inside the call
_ALL_INLINE = 1 << 20  # of all of these
_WAY_OUT = (
    "install the app at the server (umbel server --app), and give the server app by the module that has it; or say it "
    "with umbel's own values"
)
_OF_EVALUATIONS = (
    "say it with umbel's own values, such as umbel.metrics.quantiles(0.5); or call fed.evaluate in a main of yours, "
    "installed at the server (umbel server --app)"
)


@final
@dataclass(frozen=True, slots=True)
class Parcel:
    """A run, packed.

    Attributes:
        submission: tagged JSON.
        blobs: the arrays that it names, by digest.
        app: that nodes run.
        main: the server's object, if it must be installed there; else "".
        why: it must; else "".
    """

    submission: Json
    blobs: Mapping[str, Arrays]
    app: App
    main: str = ""
    why: str = ""

    @property
    def large(self) -> list[Arrays]:
        """The arrays that are written before the run is submitted."""
        small = set(self._small())
        return [arrays for digest, arrays in self.blobs.items() if digest not in small]

    def _small(self) -> Iterator[str]:
        room = _ALL_INLINE
        for digest, arrays in self.blobs.items():
            size = len(arrays.to_bytes())
            if size <= min(_INLINE, room):
                room -= size
                yield digest

    def request(
        self, key: str, name: str, *, nodes: tuple[str, ...], labels: Mapping[str, str], dataset: str
    ) -> wire.SubmitRunRequest:
        """The call that submits it.

        Args:
            key: makes the call repeatable.
            name: of the run, for people.
            nodes: that may be asked, by name; empty: any.
            labels: that nodes must have.
            dataset: that nodes must offer; "": their only one.

        Raises:
            UsageError: the submission is too large.
        """
        from umbel import wire

        inline = set(self._small())
        blobs = []
        for digest, arrays in self.blobs.items():
            content = {"content": bytes(arrays.to_bytes())} if digest in inline else {}
            blobs.append(wire.Blob(digest=bytes.fromhex(digest), size=len(arrays.to_bytes()), **content))
        return wire.SubmitRunRequest(
            key=key,
            name=name,
            submission=wire.to_json(self.submission, "the run", LARGEST),
            blobs=blobs,
            app=self.app.message(),
            nodes=nodes,
            labels=[wire.Label(name=label, value=value) for label, value in labels.items()],
            dataset=dataset,
        )


def pack(submission: Submission, app: App, server: ServerApp | None = None) -> Parcel:
    """Pack a run.

    What is made of Umbel's own values travels as data. A server app with code of its own must be at the server: then
    it travels by its name.

    Args:
        submission: the run, with its strategy.
        app: that nodes run.
        server: the server app that it came from; None where there is none.

    Raises:
        UsageError: something in it cannot travel; names it.
    """
    main, why = "", ""
    if server is not None and (server.loop is not None or server.tests):
        why = "the server app has a main of its own" if server.loop is not None else "the server app has an evaluation"
        main = name_of_server(server, why)
    try:
        return _packed(submission, app, main, why)
    except UsageError as error:
        if submission.evaluation is not None:
            raise UsageError(error.what, advice=_OF_EVALUATIONS) from error
        if server is None or submission.strategy is None:
            raise
        refused = UsageError(error.what, advice=_WAY_OUT)
        try:
            main = name_of_server(server, error.what, strategy=True)
        except UsageError:
            raise refused from error
    return _packed(replace(submission, strategy=None), app, main, refused.what)


def _packed(submission: Submission, app: App, main: str, why: str) -> Parcel:
    blobs: dict[str, Arrays] = {}

    def place(arrays: Arrays) -> Json:
        blobs[arrays.digest()] = arrays
        return arrays.digest()

    data = encode(replace(submission, main=main), place, where="the run")
    foreign = next((path for path in _classes(data) if not own_classes(path)), None)
    if foreign is not None:
        raise UsageError(
            f"the run holds a value of the class {foreign.replace(':', '.')}, which the server does not have",
            advice=_WAY_OUT,
        )
    try:
        decode(data, blobs.__getitem__)  # as the server will
    except FormatError as error:
        raise UsageError(f"the run would not be understood at the server: {error.what}", advice=_WAY_OUT) from error
    json.dumps(data)
    return Parcel(data, blobs, app, main, why)


def _classes(data: Any) -> Iterator[str]:
    """The classes that JSON from `umbel.codec.encode` names."""
    if isinstance(data, list):
        for item in data:
            yield from _classes(item)
    elif isinstance(data, dict):
        if isinstance(path := data.get("$class"), str):
            yield path
        for item in data.values():
            yield from _classes(item)


__all__ = ["LARGEST", "Parcel", "pack"]
