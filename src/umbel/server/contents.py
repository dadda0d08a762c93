"""What a client gave, as JSON with its arrays by digest: as the store keeps it, and a run's own process gets it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from umbel.arrays import Arrays
from umbel.update import Metrics, Update

Fetch = Callable[[str], Arrays]


def content_of(done: Update | Metrics, place: Callable[[Arrays], Any] = Arrays.digest) -> dict[str, Any]:
    """An update, or the metrics of an evaluation, as JSON.

    Args:
        done: what it is.
        place: gives what stands for arrays: by default their digest.
    """
    if isinstance(done, Metrics):
        return {"weight": done.weight, "metrics": _plain(done.values)}
    return {
        "kind": done.kind,
        "arrays": place(done.arrays),
        "extra": {name: place(arrays) for name, arrays in done.extra.items()},
        "weight": done.weight,
        "metrics": _plain(done.metrics),
    }


def _plain(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value if isinstance(value, float) else value.tolist() for name, value in metrics.items()}


def done_of(content: Mapping[str, Any], fetch: Fetch) -> Update | Metrics:
    """What `content_of` wrote.

    Args:
        content: the JSON.
        fetch: gives arrays by their digest.
    """
    if "kind" not in content:
        return Metrics(content["metrics"], content["weight"])
    extra = {name: fetch(digest) for name, digest in content["extra"].items()}
    found: dict[str, Any] = {content["kind"]: fetch(content["arrays"])}
    return Update(**found, weight=content["weight"], metrics=content["metrics"], extra=extra)


__all__ = ["Fetch", "content_of", "done_of"]
