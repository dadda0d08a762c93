"""Rows of the tables as values, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row

from umbel.store.sql.values import (
    AnswerRow,
    AuditRow,
    EventRow,
    NodeRow,
    OpenExchange,
    RunRow,
    TicketRow,
    TokenRow,
)


def dumped(value: Any) -> str:
    """A tree of values as JSON, the same for the same."""
    return json.dumps(value, sort_keys=True)


def plain(text: str) -> str:
    """Text that any database takes: PostgreSQL knows no NUL, and nothing has lone surrogates."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def node_of(row: Row[Any]) -> NodeRow:
    """A node."""
    return NodeRow(**{**_mapping(row), "labels": json.loads(row.labels), "public_key": bytes(row.public_key)})


def node_values(node: NodeRow) -> dict[str, Any]:
    """A node's columns."""
    return {
        "name": node.name,
        "public_key": node.public_key,
        "labels": dumped(dict(node.labels)),
        "enrolled": node.enrolled,
        "seen": node.seen,
        "revoked": node.revoked,
        "program": plain(node.program),
        "connected": node.connected,
    }


def ticket_of(row: Row[Any]) -> TicketRow:
    """A ticket."""
    return TicketRow(**{**_mapping(row), "secret": bytes(row.secret)})


def token_of(row: Row[Any]) -> TokenRow:
    """A token."""
    return TokenRow(**{**_mapping(row), "secret": bytes(row.secret)})


def audit_of(row: Row[Any]) -> AuditRow:
    """An entry of the audit trail."""
    return AuditRow(**{**_mapping(row), "details": json.loads(row.details)})


def run_of(row: Row[Any]) -> RunRow:
    """A run."""
    trees = {name: json.loads(getattr(row, name)) for name in ("labels", "app")}
    return RunRow(**{**_mapping(row), **trees, "nodes": tuple(json.loads(row.nodes))})


def run_values(run: RunRow) -> dict[str, Any]:
    """A run's columns."""
    return {
        "id": run.id,
        "key": run.key,
        "name": run.name,
        "owner": run.owner,
        "status": run.status,
        "reason": plain(run.reason),
        "rounds": run.rounds,
        "round": run.round,
        "submitted": run.submitted,
        "started": run.started,
        "ended": run.ended,
        "submission": run.submission,
        "nodes": dumped(list(run.nodes)),
        "labels": dumped(dict(run.labels)),
        "dataset": run.dataset,
        "app": dumped(dict(run.app)),
    }


def exchange_of(row: Row[Any]) -> OpenExchange:
    """An open exchange."""
    return OpenExchange(
        sequence=row.sequence, digest=row.digest, opened=row.opened, population=row.population, roster=row.roster
    )


def answer_of(row: Row[Any]) -> AnswerRow:
    """A client's answer."""
    return AnswerRow(
        client=row.client,
        attempt=row.attempt,
        kind=row.kind,
        content=row.content,
        blobs=tuple(json.loads(row.blobs)),
        state=row.state,
        arrived=row.arrived,
    )


def event_of(row: Row[Any]) -> EventRow:
    """An event of a run."""
    return EventRow(number=row.number, time=row.time, kind=row.kind, content=json.loads(row.content))


def _mapping(row: Row[Any]) -> Mapping[str, Any]:
    return {str(name): value for name, value in row._mapping.items()}


__all__ = [
    "answer_of",
    "audit_of",
    "dumped",
    "event_of",
    "exchange_of",
    "node_of",
    "node_values",
    "plain",
    "run_of",
    "run_values",
    "ticket_of",
    "token_of",
]
