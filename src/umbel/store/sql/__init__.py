"""The server's durable state in SQLite or PostgreSQL: nodes, people, runs and their exchanges, and blobs.

What is written is written by one thread, in groups that are committed together. A part is imported when it is first
asked for: the values need nothing, the store needs the extra ``server``, or ``postgres``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umbel.store.sql.blobs import ServerBlobs
    from umbel.store.sql.incoming import Incoming
    from umbel.store.sql.run import RunStore
    from umbel.store.sql.store import ServerStore
    from umbel.store.sql.values import (
        AnswerRow,
        AuditRow,
        CommitRow,
        EventRow,
        Kept,
        NodeRow,
        OpenExchange,
        RecordRow,
        RunRow,
        Swept,
        TicketRow,
        TokenRow,
    )

_HOMES = {"Incoming": "incoming", "RunStore": "run", "ServerBlobs": "blobs", "ServerStore": "store"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'values')}"), name)
    globals()[name] = value
    return value


__all__ = [
    "AnswerRow",
    "AuditRow",
    "CommitRow",
    "EventRow",
    "Incoming",
    "Kept",
    "NodeRow",
    "OpenExchange",
    "RecordRow",
    "RunRow",
    "RunStore",
    "ServerBlobs",
    "ServerStore",
    "Swept",
    "TicketRow",
    "TokenRow",
]
