"""What the server says, as plain values: what ``--json`` prints, and tables are made from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umbel import wire


def run_record(run: wire.Run) -> dict[str, Any]:
    """A run. Times are seconds since 1970; 0: not yet. ``rounds`` is null where main decides."""
    return {
        "id": run.id,
        "name": run.name,
        "owner": run.owner,
        "status": run.status,
        "reason": run.reason,
        "round": run.round,
        "rounds": run.rounds or None,
        "submitted": run.submitted,
        "started": run.started,
        "ended": run.ended,
        "app": app_record(run.app),
        "dataset": run.dataset,
    }


def app_record(app: wire.App) -> dict[str, Any]:
    """An app; its digest in hex."""
    return {
        "name": app.name,
        "version": app.version,
        "digest": app.digest.hex(),
        "object": app.object,
        "handlers": list(app.handlers),
    }


def node_record(node: wire.Node) -> dict[str, Any]:
    """A node."""
    return {
        "name": node.name,
        "status": node.status,
        "labels": {label.name: label.value for label in node.labels},
        "enrolled": node.enrolled,
        "seen": node.seen,
        "program": node.program,
        "apps": [app_record(app) for app in node.apps],
        "datasets": list(node.datasets),
        "fingerprint": node.fingerprint,
        "clock": node.clock,
        "tasks": node.tasks,
    }


def ticket_record(ticket: wire.Ticket) -> dict[str, Any]:
    """A ticket, without its secret."""
    return {
        "id": ticket.id,
        "uses": ticket.uses,
        "used": ticket.used,
        "expires": ticket.expires,
        "creator": ticket.creator,
        "revoked": ticket.revoked,
    }


def token_record(token: wire.Token) -> dict[str, Any]:
    """A token, without its secret. ``expires`` is 0 for one that does not."""
    return {
        "name": token.name,
        "role": token.role,
        "created": token.created,
        "expires": token.expires,
        "revoked": token.revoked,
    }


def audit_record(entry: wire.AuditEntry) -> dict[str, Any]:
    """An entry of the audit trail."""
    return {
        "number": entry.number,
        "time": entry.time,
        "who": entry.who,
        "action": entry.action,
        "target": entry.target,
        "details": json.loads(entry.details or "{}"),
    }


__all__ = ["app_record", "audit_record", "node_record", "run_record", "ticket_record", "token_record"]
