"""What is done to nodes, tickets and tokens: each function is one transaction's worth, with its entry in the audit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy import Connection, delete, insert, select, update

from umbel.errors import NotAllowed, NotThere, Rejected, Unauthenticated
from umbel.store.sql import tables
from umbel.store.sql.rows import dumped, node_of, node_values, plain, ticket_of, token_of
from umbel.store.sql.values import NodeRow, TicketRow, TokenRow

_ANOTHER = "ask the operator of the server for a new one: umbel ticket create"


def note(connection: Connection, now: float, who: str, action: str, *, target: str, details: Mapping[str, Any]) -> None:
    """Write down who did what."""
    connection.execute(
        insert(tables.audit),
        {"time": now, "who": plain(who), "action": action, "target": plain(target), "details": dumped(dict(details))},
    )


def enrol(connection: Connection, now: float, secret: bytes, node: NodeRow) -> NodeRow:
    """Take a node in."""
    ticket = _ticket(connection, secret)
    there = _enrolled(connection, node)
    if there is not None:
        return there
    _check_ticket(ticket, now)
    connection.execute(
        update(tables.ticket).where(tables.ticket.c.id == ticket.id).values(used=tables.ticket.c.used + 1)
    )
    connection.execute(insert(tables.node), node_values(node))
    note(connection, now, f"node {node.name}", "node-enrolled", target=node.name, details={"ticket": ticket.id})
    return node


def _ticket(connection: Connection, secret: bytes) -> TicketRow:
    row = connection.execute(select(tables.ticket).where(tables.ticket.c.secret == secret)).first()
    if row is None:
        raise Unauthenticated(
            "this ticket is unknown here",
            advice=f"take the address behind `umbel node`, not the one behind `umbel login`; or {_ANOTHER}",
        )
    return ticket_of(row)


def check_ticket(connection: Connection, now: float, secret: bytes) -> None:
    """Refuse a ticket with which no node can join."""
    _check_ticket(_ticket(connection, secret), now)


def _enrolled(connection: Connection, node: NodeRow) -> NodeRow | None:
    """The node, if this is the second call, whose first answer was lost."""
    by_name = _node(connection, node.name)
    if by_name is not None:
        if by_name.public_key != node.public_key:
            raise Rejected(
                f"the name {node.name!r} belongs to a node with another key",
                advice="choose another --name; or, if that node lost its key, ask the operator to rename the old one",
            )
        if by_name.revoked:
            raise NotAllowed(f"node {node.name!r} was revoked", advice="ask the operator of the server")
        return by_name
    other = connection.execute(select(tables.node.c.name).where(tables.node.c.public_key == node.public_key)).scalar()
    if other is not None:
        raise Rejected(
            f"this key is that of node {other!r}, which cannot be {node.name!r} as well",
            advice=f"start it with --name {other}; or give this node a directory of its own",
        )
    return None


def _check_ticket(ticket: TicketRow, now: float) -> None:
    if ticket.revoked:
        raise Unauthenticated(f"ticket {ticket.id} was revoked", advice=_ANOTHER)
    if ticket.expires <= now:
        raise Unauthenticated(
            f"ticket {ticket.id} has expired {_ago(now - ticket.expires)} ago",
            advice=f"{_ANOTHER}; and check the clock of the server, if that cannot be",
        )
    if ticket.used >= ticket.uses:
        raise Unauthenticated(
            f"ticket {ticket.id} is used up: {ticket.uses} of {ticket.uses} nodes have joined with it", advice=_ANOTHER
        )


def _ago(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def _node(connection: Connection, name: str) -> NodeRow | None:
    row = connection.execute(select(tables.node).where(tables.node.c.name == name)).first()
    return None if row is None else node_of(row)


def change_node(
    connection: Connection,
    now: float,
    name: str,
    *,
    changes: Mapping[str, Any],
    details: Mapping[str, Any],
    by: str,
) -> NodeRow:
    """Change columns of a node; ``details`` are what people must be able to read later."""
    before = _node(connection, name)
    if before is None:
        raise NotThere(f"there is no node {name!r}", advice="umbel nodes ls lists them")
    new = changes.get("name", name)
    if new != name:
        if _node(connection, new) is not None:
            raise Rejected(f"there is a node {new!r} already", advice="choose another name")
        _move_states(connection, name, new)
    if changes:
        connection.execute(update(tables.node).where(tables.node.c.name == name).values(**changes))
    if details:
        note(connection, now, by or f"node {name}", "node-changed", target=name, details=details)
    after = _node(connection, new)
    assert after is not None
    return after


def _move_states(connection: Connection, old: str, new: str) -> None:
    """What a node has kept stays its own when it gets another name."""
    connection.execute(delete(tables.state).where(tables.state.c.client == new))  # of one that had it before
    connection.execute(update(tables.state).where(tables.state.c.client == old).values(client=new))


def keep_ticket(connection: Connection, now: float, ticket: TicketRow, by: str) -> None:
    """Make a ticket; the same one again changes nothing."""
    row = connection.execute(select(tables.ticket).where(tables.ticket.c.id == ticket.id)).first()
    if row is not None:
        if bytes(row.secret) != ticket.secret:
            raise Rejected(f"there is a ticket {ticket.id!r} already", advice="choose another id")
        return
    values = {name: getattr(ticket, name) for name in tables.ticket.c.keys()}  # noqa: SIM118  # of columns
    connection.execute(insert(tables.ticket), values)
    note(connection, now, by, "ticket-made", target=ticket.id, details={"uses": ticket.uses, "expires": ticket.expires})


def keep_token(connection: Connection, now: float, token: TokenRow, by: str) -> None:
    """Make a token, in the place of one that is not valid any more; the same one again changes nothing."""
    its = tables.token.c.name == token.name
    row = connection.execute(select(tables.token).where(its)).first()
    if row is not None and bytes(row.secret) == token.secret:
        return
    if row is not None and token_of(row).valid(now):
        raise Rejected(
            f"there is a token {token.name!r} already",
            advice=f"choose another name, or: umbel token revoke {token.name}",
        )
    values = {name: getattr(token, name) for name in tables.token.c.keys()}  # noqa: SIM118  # of columns
    connection.execute(insert(tables.token) if row is None else update(tables.token).where(its), values)
    note(connection, now, by, "token-made", target=token.name, details={"role": token.role, "expires": token.expires})


def revoke(connection: Connection, now: float, kind: Literal["ticket", "token"], id: str, by: str) -> None:
    """Take a ticket or a token back."""
    table = tables.ticket if kind == "ticket" else tables.token
    key = tables.ticket.c.id if kind == "ticket" else tables.token.c.name
    revoked = connection.execute(select(table.c.revoked).where(key == id)).scalar()
    if revoked is None:
        raise NotThere(f"there is no {kind} {id!r}", advice=f"umbel {kind} ls lists them")
    if not revoked:
        connection.execute(update(table).where(key == id).values(revoked=True))
        note(connection, now, by, f"{kind}-revoked", target=id, details={})


def token(connection: Connection, now: float, secret: bytes) -> TokenRow | None:
    """The token with this secret; None: there is none.

    Raises:
        Unauthenticated: it has expired, or was revoked.
    """
    row = connection.execute(select(tables.token).where(tables.token.c.secret == secret)).first()
    if row is None:
        return None
    found = token_of(row)
    if found.revoked:
        raise Unauthenticated(
            f"token {found.name!r} was revoked", advice="ask the operator for another: umbel token create"
        )
    if found.expires and found.expires <= now:
        raise Unauthenticated(
            f"token {found.name!r} has expired {_ago(now - found.expires)} ago",
            advice="ask the operator for another: umbel token create",
        )
    return found


__all__ = [
    "change_node",
    "check_ticket",
    "enrol",
    "keep_ticket",
    "keep_token",
    "note",
    "revoke",
    "token",
]
