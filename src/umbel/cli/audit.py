"""``umbel audit``: who did what."""

from __future__ import annotations

from typing import Any

from umbel.cli.reach import Count, Json, On


def audit(*, since: Count = 0, on: On = "", json: Json = False) -> None:
    """Print the server's audit trail, oldest first.

    Args:
        since: leave out entries up to this number.
        on: the server; the default login if it is left out.
        json: print a JSON object a line.
    """
    from umbel import wire
    from umbel.cli.printing import clock, give, line
    from umbel.cli.reach import reach
    from umbel.cli.records import audit_record

    with reach(on) as server:
        while entries := server.call("ReadAudit", wire.ReadAuditRequest(since=since)).entries:
            for entry in map(audit_record, entries):
                since = entry["number"]
                if json:
                    give(entry)
                else:
                    details = ", ".join(detail(name, value) for name, value in entry["details"].items())
                    said = f"{clock(entry['time'])}  {entry['who']}  {entry['action']}  {entry['target']}  {details}"
                    line(said.rstrip())


def detail(name: str, value: Any) -> str:
    """A detail for people."""
    from umbel.cli.printing import clock

    match name, value:
        case "expires", float() | int():
            return f"expires={clock(value) if value else 'never'}"
        case "labels", dict():
            return f"labels={','.join(f'{label}={of}' for label, of in value.items()) or 'none'}"
        case _:
            return f"{name}={value}"


__all__ = ["audit", "detail"]
