"""``umbel login``: keep the address of a server, with a token, for all other commands."""

from __future__ import annotations

from umbel.cli.reach import Json


def login(address: str = "", *, name: str = "", forget: str = "", json: Json = False) -> None:
    """Log in at a server: its address and token are kept where only you can read them, and are the default from now on.

    Without an address, list the logins.

    Args:
        address: as the server, or `umbel token create`, printed it.
        name: what to call it; the server's name if it is left out.
        forget: remove the login of this name instead.
        json: print a JSON object a line.
    """
    from umbel.cli.printing import give, line
    from umbel.errors import UsageError
    from umbel.remote.logins import Logins, usual_file

    known = Logins.read()
    if forget:
        if forget not in known.addresses:
            raise UsageError(f"there is no login {forget!r}", advice="umbel login lists them")
        known.without(forget).write()
        give({"name": forget, "forgotten": True}) if json else line(f"The login {forget} is forgotten.")
        return
    if not address:
        for login_name, kept in known.addresses.items():
            default = login_name == known.default
            if json:
                give({"name": login_name, "server": kept.without_secret(), "default": default})
            else:
                line(f"{'*' if default else ' '} {login_name}  {kept.without_secret()}")
        if not known.addresses and not json:
            line("There is no login. To log in: umbel login ADDRESS")
        return
    answer, made = _tried(address)
    called = name or made.host
    known.with_(called, made).write()
    record = {
        "name": called,
        "server": made.without_secret(),
        "person": answer.person,
        "role": answer.role,
        "federation": answer.federation,
        "program": answer.program,
    }
    if json:
        give(record)
    else:
        line(
            f"Logged in at {made.without_secret()} as {answer.person}, {_article(answer.role)}; it is the default now."
        )
        line(f"Kept as {called} in {usual_file()}.")


def _tried(text: str):  # type: ignore[no-untyped-def]
    """What the server says to who comes with this address, and the address."""
    from umbel.errors import UsageError
    from umbel.link.address import Address
    from umbel.remote.line import Line
    from umbel.remote.session import greeting

    address = Address.parse(text)
    if not address.secret:
        raise UsageError(
            f"{address.without_secret()} has no token behind its last slash",
            advice="copy the whole address that the server printed, or ask its operator: umbel token create NAME",
        )
    with Line(address) as server:
        return server.call("GetServer", greeting()), address


def _article(role: str) -> str:
    return f"an {role}" if role.startswith(("a", "e", "i", "o", "u")) else f"a {role}"


__all__ = ["login"]
