"""A run's app between the wire and the store: JSON in the run's row, and its wheel, if it brought one, as a blob.

The server keeps a wheel and gives it to nodes. It never opens one: who trusts what is for the nodes to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umbel.wire import App, Blob, Signature


def values_of(app: App) -> dict[str, Any]:
    """An app as the store keeps it.

    Args:
        app: as it was submitted; it was checked.
    """
    values: dict[str, Any] = {
        "name": app.name,
        "version": app.version,
        "digest": app.digest.hex(),
        "object": app.object,
    }
    if app.HasField("wheel"):
        values["wheel"] = {"digest": app.wheel.digest.hex(), "size": app.wheel.size}
        values["signatures"] = [
            {"key": one.key.hex(), "name": one.name, "signature": one.signature.hex()} for one in app.signatures
        ]
    return values


def app_of(values: Mapping[str, Any]) -> App:
    """The app that the store keeps; its wheel without content, to be read on its own."""
    app = App(
        name=str(values.get("name", "")),
        version=str(values.get("version", "")),
        digest=bytes.fromhex(str(values.get("digest", ""))),
        object=str(values.get("object", "")),
    )
    if wheel := values.get("wheel"):
        app.wheel.CopyFrom(Blob(digest=bytes.fromhex(wheel["digest"]), size=wheel["size"]))
        app.signatures.extend(
            Signature(key=bytes.fromhex(one["key"]), name=one["name"], signature=bytes.fromhex(one["signature"]))
            for one in values.get("signatures", ())
        )
    return app


__all__ = ["app_of", "values_of"]
