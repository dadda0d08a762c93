"""Everything that Umbel raises, as one tree.

    UmbelError
    ├── UsageError            the program asks for something that makes no sense (also a ValueError)
    │   ├── ChainError        a chain of transforms that cannot work
    │   ├── EntryError        two sets of arrays that should match do not; names the entry
    │   └── HandlerMissing    the app has no handler for what is asked of it
    ├── BadUpdate             what a client returned was refused
    ├── ClientFailed          a client's own code raised
    ├── RunError              a run cannot go on; its last committed round is kept
    │   ├── EmptyPopulation   there is no client to ask
    │   ├── QuorumMissed      too few clients answered
    │   ├── RecipeChanged     the directory holds another run
    │   └── NotReproducible   a resumed program asked for something else than before
    ├── StoreError            durable state could not be read or written
    │   ├── FormatError       bytes that are not what they should be
    │   ├── CorruptFile       a file of a run directory was damaged
    │   ├── DiskFull          there is no room left
    │   ├── InUse             another process holds the directory, or the database
    │   └── NewerSchema       another version of Umbel has written it
    ├── LinkError             node, person and server do not come to terms
    │   ├── Unreachable       nobody answers at this address
    │   ├── Unauthenticated   a ticket, token or signature is not accepted
    │   ├── NotAllowed        the role, or the list of nodes, does not permit it
    │   ├── NotThere          there is no run, node, ticket or blob of this name
    │   ├── Rejected          the other side has refused what it was sent
    │   └── Incompatible      the two sides have no version in common
    ├── Refused               the data's owner does not permit this task
    └── AppError              an app cannot be run
        ├── AppMissing        it is not installed
        ├── AppDiffers        it is installed in another version
        └── BadSignature      its signature is missing or wrong

Each leaf has a stable ``code`` and says whether the same call may succeed later (``retryable``).
The message tells what happened and which one; ``advice`` tells what to do now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, final


class UmbelError(Exception):
    """Something went wrong in Umbel.

    Attributes:
        what: what happened, and to which client, round, entry or file.
        advice: what to do now; may be empty.
    """

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, what: str = "", *, advice: str = "") -> None:
        self.what = what or (type(self).__doc__ or "").partition("\n")[0]
        self.advice = advice
        super().__init__(self.what)

    def __str__(self) -> str:
        return f"{self.what}\n  What to do: {self.advice}" if self.advice else self.what


class UsageError(UmbelError, ValueError):
    """The program asks for something that makes no sense."""

    code = "usage"


@final
class ChainError(UsageError):
    """This chain of transforms cannot work."""

    code = "chain"


@final
class EntryError(UsageError):
    """Two sets of arrays do not match.

    Attributes:
        entry: the name of the first entry that differs.
    """

    code = "entry"

    def __init__(self, what: str = "", *, entry: str = "", advice: str = "") -> None:
        super().__init__(what, advice=advice)
        self.entry = entry


@final
class HandlerMissing(UsageError):
    """The app has no handler for what is asked of it."""

    code = "handler-missing"


@final
class BadUpdate(UmbelError):
    """A client's update was refused.

    Attributes:
        entry: the entry that is wrong, or "" when it is not about an entry.
    """

    code = "bad-update"

    def __init__(self, what: str = "", *, entry: str = "", advice: str = "") -> None:
        super().__init__(what, advice=advice)
        self.entry = entry


@final
class ClientFailed(UmbelError):
    """A client's own code raised an exception."""

    code = "client-failed"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One client that did not answer, as a value.

    Attributes:
        client: the client's name.
        round: the round it was asked in.
        kind: what it was asked: "train", "evaluate" or "query NAME".
        code: the ``code`` of the error, e.g. "client-failed" or "bad-update".
        message: one line for people: what happened, and what to do.
        traceback: the client's traceback, or "".
    """

    client: str
    round: int
    kind: str
    code: str
    message: str
    traceback: str = field(default="", repr=False)  # as long as a screen; print it to read it

    def __str__(self) -> str:
        return f"round {self.round}, client {self.client!r}, {self.kind}: {self.message}"

    @property
    def refused(self) -> bool:
        """Does the data's owner not permit it? Whoever is asked again says the same."""
        return self.code in REFUSALS


class RunError(UmbelError):
    """A run cannot go on; its last committed round is kept.

    Attributes:
        failures: the clients that failed in the round that could not be closed.
    """

    code = "run"

    def __init__(self, what: str = "", *, failures: Sequence[Failure] = (), advice: str = "") -> None:
        super().__init__(what, advice=advice)
        self.failures = tuple(failures)


@final
class EmptyPopulation(RunError):
    """There is no client to ask."""

    code = "empty-population"


@final
class QuorumMissed(RunError):
    """Too few clients answered."""

    code = "quorum-missed"
    retryable = True


@final
class RecipeChanged(RunError):
    """The directory holds a run made from another recipe.

    Attributes:
        differences: one line per difference: what, before, now.
    """

    code = "recipe-changed"

    def __init__(self, what: str = "", *, differences: Sequence[str] = (), advice: str = "") -> None:
        super().__init__(what, advice=advice)
        self.differences = tuple(differences)


@final
class NotReproducible(RunError):
    """A resumed program asked for something else than before."""

    code = "not-reproducible"


class StoreError(UmbelError):
    """Durable state could not be read or written."""

    code = "store"


@final
class FormatError(StoreError):
    """These bytes are not what they should be."""

    code = "format"


@final
class CorruptFile(StoreError):
    """A file of a run directory was damaged."""

    code = "corrupt-file"


@final
class DiskFull(StoreError):
    """There is no room left on the disk."""

    code = "disk-full"
    retryable = True


@final
class InUse(StoreError):
    """Another process holds the directory, or the database."""

    code = "in-use"
    retryable = True


@final
class NewerSchema(StoreError):
    """A newer version of Umbel has written this database."""

    code = "newer-schema"


class LinkError(UmbelError):
    """Node, person and server do not come to terms."""

    code = "link"


@final
class Unreachable(LinkError):
    """Nobody answers at this address."""

    code = "unreachable"
    retryable = True


@final
class Unauthenticated(LinkError):
    """A ticket, a token or a signature is not accepted."""

    code = "unauthenticated"


@final
class NotAllowed(LinkError):
    """The role of the token, or the server's list of nodes, does not permit this."""

    code = "not-allowed"


@final
class NotThere(LinkError):
    """There is no run, node, ticket or blob of this name."""

    code = "not-there"


@final
class Rejected(LinkError):
    """The other side has refused what it was sent."""

    code = "rejected"


@final
class Incompatible(LinkError):
    """The two sides have no version of the protocol in common."""

    code = "incompatible"


@final
class Refused(UmbelError):
    """The data's owner does not permit this task."""

    code = "refused"


class AppError(UmbelError):
    """An app cannot be run."""

    code = "app"


@final
class AppMissing(AppError):
    """The app is not installed."""

    code = "app-missing"


@final
class AppDiffers(AppError):
    """The app is installed in another version."""

    code = "app-differs"


@final
class BadSignature(AppError):
    """The app's signature is missing or wrong."""

    code = "bad-signature"


REFUSALS = frozenset({Refused.code, AppMissing.code, AppDiffers.code, BadSignature.code})
"""Codes of what the data's owner does not permit."""

__all__ = [
    "AppDiffers",
    "AppError",
    "AppMissing",
    "BadSignature",
    "BadUpdate",
    "ChainError",
    "ClientFailed",
    "CorruptFile",
    "DiskFull",
    "EmptyPopulation",
    "EntryError",
    "Failure",
    "FormatError",
    "HandlerMissing",
    "InUse",
    "Incompatible",
    "LinkError",
    "NewerSchema",
    "NotAllowed",
    "NotReproducible",
    "NotThere",
    "QuorumMissed",
    "RecipeChanged",
    "Refused",
    "Rejected",
    "RunError",
    "StoreError",
    "UmbelError",
    "Unauthenticated",
    "Unreachable",
    "UsageError",
]
