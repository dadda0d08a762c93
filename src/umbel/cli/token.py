"""``umbel token``: what people log in with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cyclopts import App

from umbel.cli.reach import Json, On

if TYPE_CHECKING:
    from umbel.remote.line import Line

token_app = App(name="token", help="Make, see and revoke tokens, with which people log in.")


@token_app.command
def create(
    name: str, *, role: str = "runner", expires: str = "", again: bool = False, on: On = "", json: Json = False
) -> None:
    """Make a token, and print the address that a person logs in with; it is shown once.

    Args:
        name: of the person, who owns what is submitted with it.
        role: operator (everything), runner (submits runs, and has its own) or viewer (sees, and no more).
        expires: how long it lasts: 12h, 90d; if it is left out, until it is revoked.
        again: for the person whose token of this name has expired or was revoked; the runs stay theirs.
        on: the server; the default login if it is left out.
        json: print one JSON object.
    """
    from umbel import wire
    from umbel.cli.printing import give, line, seconds_of
    from umbel.cli.reach import reach
    from umbel.cli.records import token_record

    seconds = seconds_of(expires) if expires else 0.0
    with reach(on) as server:
        if not again:
            _check_new(server, name)
        made = server.call("CreateToken", wire.CreateTokenRequest(name=name, role=role, seconds=seconds))
    if json:
        give({**token_record(made.token), "address": made.address})
        return
    line(made.address)
    line(f"The token of {made.token.name}, a {made.token.role}. To log in with it: umbel login ADDRESS")


def _check_new(server: Line, name: str) -> None:
    """Refuse a name that somebody has had: who gets it owns their runs, and may do what nodes permit to it.

    Raises:
        UsageError: there was one.
    """
    from umbel.errors import UsageError

    if any(token.name == name for token in server.listed("ListTokens", "tokens")):
        raise UsageError(
            f"there is a token {name!r} already, or was one",
            advice="choose another name; or, if it has expired or was revoked, and this is the same person: "
            f"umbel token create {name} --again",
        )


@token_app.command
def ls(*, on: On = "", json: Json = False) -> None:
    """List the tokens, without their secrets.

    Args:
        on: the server; the default login if it is left out.
        json: print a JSON object a line.
    """
    from umbel.cli.printing import ago, give, line, table
    from umbel.cli.reach import reach
    from umbel.cli.records import token_record

    with reach(on) as server:
        tokens = [token_record(t) for t in server.listed("ListTokens", "tokens")]
    if json:
        for token in tokens:
            give(token)
        return
    rows = [
        (t["name"], t["role"], ago(t["created"]), "revoked" if t["revoked"] else ago(t["expires"]) or "never")
        for t in tokens
    ]
    table(("token", "role", "made", "expires"), rows) if rows else line("There is no token.")


@token_app.command
def revoke(name: str, *, on: On = "", json: Json = False) -> None:
    """Take a token back: nobody can use it any more.

    Args:
        name: of the token, as in `umbel token ls`.
        on: the server; the default login if it is left out.
        json: print one JSON object.
    """
    from umbel import wire
    from umbel.cli.printing import give, line
    from umbel.cli.reach import reach

    with reach(on) as server:
        server.call("RevokeToken", wire.RevokeTokenRequest(name=name))
    give({"name": name, "revoked": True}) if json else line(f"The token of {name} is revoked.")


__all__ = ["token_app"]
