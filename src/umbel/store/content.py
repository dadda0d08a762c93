"""What a commit or a record holds, on its way to the disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import final

from umbel.arrays import Arrays
from umbel.codec import Json, Place, encode
from umbel.engine.checksum import Checksum
from umbel.engine.ports import Commit, Record
from umbel.store.blobs import Blobs
from umbel.store.writer import GoOn


@final
class Content:
    """The fields of a commit or a record, as they are now: main may go on to change its own while they are written.

    Arrays are shared, for they do not change. Should somebody write into them behind NumPy's back, that is noticed.

    Args:
        json: the fields as JSON in which `Arrays` stand for themselves, or their digests for them.
        arrays: all these `Arrays`, by field.
        name: how to call it in errors.
        watched: may code of a user's run meanwhile, which could write into them?

    Attributes:
        json, arrays: the same.
    """

    def __init__(
        self, json: Mapping[str, Json], arrays: Mapping[str, Sequence[Arrays]], name: str, *, watched: bool = True
    ) -> None:
        self.json, self.arrays = json, arrays
        self._who = f"while the {name} was being written, somebody"
        self._sums = Checksum(*(each for found in arrays.values() for each in found if watched))

    @classmethod
    def of(cls, what: Commit | Record, name: str, *, watched: bool = True) -> Content:
        """The content of a commit or a record, as it is now."""
        json: dict[str, Json] = {}
        arrays: dict[str, list[Arrays]] = {}
        for f in fields(what):
            found = arrays[f.name] = []
            json[f.name] = encode(getattr(what, f.name), _collector(found), where=f"the {name}'s {f.name}")
        return cls(json, arrays, name, watched=watched)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(a.nbytes for found in self.arrays.values() for a in found)

    def keep(self, blobs: Blobs, *, sync: bool, go_on: GoOn = lambda: None) -> list[str]:
        """Write the arrays down; gives their digests.

        Args:
            blobs: where to.
            sync: outlive a loss of power, after the next ``settle``.
            go_on: called now and then; may raise, to break off.

        Raises:
            RunError: they were written to in the meantime, so that what lies there may be anything.
        """
        kept = {blobs.keep(a, sync=sync, go_on=go_on) for found in self.arrays.values() for a in found}
        self._sums.check(self._who)
        return sorted(kept)

    def digests(self, field: str) -> list[str]:
        """Of the arrays of one field, which were kept."""
        return [arrays.digest() for arrays in self.arrays[field]]


def _collector(found: list[Arrays]) -> Place:
    def place(arrays: Arrays) -> Arrays:
        found.append(arrays)
        return arrays

    return place


__all__ = ["Content"]
