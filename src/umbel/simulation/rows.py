"""Tiny updates of one kind, side by side in a message: no answer, and no piece of memory, is made for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from umbel.arrays import Array, Arrays
from umbel.spec import Spec
from umbel.update import Kind, Update

TINY = 1 << 12  # bytes of an update


@final
@dataclass(frozen=True, slots=True)
class Rows:
    """Updates that differ in their values, weights and metrics alone.

    Attributes:
        kind: what kind of updates they are.
        spec: what they consist of; by the number that the worker gave it.
        tasks, weights, metrics: of each.
        data: the values of each without the header.
    """

    kind: Kind
    spec: int
    tasks: list[int]
    weights: list[float]
    metrics: list[Mapping[str, Any]]
    data: list[bytes]

    def add(self, task: int, update: Update) -> None:
        """One more."""
        self.tasks.append(task)
        self.weights.append(update.weight)
        self.metrics.append(update.metrics)
        self.data.append(bytes(update.arrays.to_bytes()[len(update.arrays.spec.header) :]))

    def updates(self, spec: Spec) -> list[Update]:
        """The updates, in the order in which they were added."""
        files: Array = np.empty((len(self.tasks), spec.size), np.uint8)
        begin = len(spec.header)
        files[:, :begin] = spec.head
        files[:, begin:] = np.frombuffer(b"".join(self.data), np.uint8).reshape(len(self.tasks), spec.nbytes)
        files.flags.writeable = False
        return [
            Update.made(self.kind, Arrays.over(spec, file), weight=weight, metrics=metrics, extra={})
            for file, weight, metrics in zip(files, self.weights, self.metrics, strict=True)
        ]


__all__ = ["TINY", "Rows"]
