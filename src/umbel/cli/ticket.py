"""``umbel ticket``: what nodes join with."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from umbel.cli.reach import Json, On

Uses = Annotated[int, Parameter(validator=Number(gte=1, lt=1 << 32))]

ticket_app = App(name="ticket", help="Make, see and revoke tickets, with which nodes join.")


@ticket_app.command
def create(*, uses: Uses = 1, expires: str = "1d", on: On = "", json: Json = False) -> None:
    """Make a ticket, and print the address that nodes join with; it is shown once.

    Args:
        uses: how many nodes may join with it.
        expires: how long it lasts: 30m, 12h, 7d.
        on: the server; the default login if it is left out.
        json: print one JSON object.
    """
    from umbel import wire
    from umbel.cli.printing import ago, give, line, seconds_of
    from umbel.cli.reach import reach
    from umbel.cli.records import ticket_record

    with reach(on) as server:
        made = server.call("CreateTicket", wire.CreateTicketRequest(uses=uses, seconds=seconds_of(expires)))
    if json:
        give({**ticket_record(made.ticket), "address": made.address})
        return
    uses = made.ticket.uses
    line(made.address)
    line(f"Ticket {made.ticket.id}, for {uses} node{'s' if uses != 1 else ''}; it expires {ago(made.ticket.expires)}.")
    line("A node joins with: umbel node ADDRESS --name NAME --app APP")


@ticket_app.command
def ls(*, on: On = "", json: Json = False) -> None:
    """List the tickets, without their secrets.

    Args:
        on: the server; the default login if it is left out.
        json: print a JSON object a line.
    """
    from umbel.cli.printing import ago, give, line, table
    from umbel.cli.reach import reach
    from umbel.cli.records import ticket_record

    with reach(on) as server:
        tickets = [ticket_record(t) for t in server.listed("ListTickets", "tickets")]
    if json:
        for ticket in tickets:
            give(ticket)
        return
    rows = [
        (t["id"], f"{t['used']} of {t['uses']}", "revoked" if t["revoked"] else ago(t["expires"]), t["creator"])
        for t in tickets
    ]
    table(("ticket", "used", "expires", "made by"), rows) if rows else line("There is no ticket.")


@ticket_app.command
def revoke(ticket: str, *, on: On = "", json: Json = False) -> None:
    """Take a ticket back: no node can join with it any more.

    Args:
        ticket: its name, as in `umbel ticket ls`.
        on: the server; the default login if it is left out.
        json: print one JSON object.
    """
    from umbel import wire
    from umbel.cli.printing import give, line
    from umbel.cli.reach import reach

    with reach(on) as server:
        server.call("RevokeTicket", wire.RevokeTicketRequest(id=ticket))
    give({"id": ticket, "revoked": True}) if json else line(f"Ticket {ticket} is revoked.")


__all__ = ["ticket_app"]
