"""Which version of the protocol two sides speak."""

from __future__ import annotations

from collections.abc import Iterable

from umbel.errors import Incompatible

VERSIONS = (1,)
"""What this program speaks, oldest first."""


def agree(
    theirs: Iterable[int],
    *,
    who: str = "the other side",
    program: str = "",
    me: str = "this side",
    mine: Iterable[int] = VERSIONS,
) -> int:
    """The highest version that both sides speak.

    Args:
        theirs: what the other side speaks.
        who: how to call it in errors: "node berlin", "the server".
        program: what it says of itself, such as "umbel 0.2.0".
        me: how to call this side; a server's errors are read at the other one.
        mine: what this side speaks.

    Raises:
        Incompatible: there is none; names the versions of both, and which side to update.
    """
    ours, its = set(mine), set(theirs)
    if ours & its:
        return max(ours & its)
    named = f"{who} ({program[:80]})" if program else who
    if not its:
        raise Incompatible(
            f"{named} names no version of the protocol; here it is {_list(ours)}", advice=f"update {who}"
        )
    older = who if max(its) < max(ours) else me
    raise Incompatible(
        f"{named} speaks version {_list(its)} of the protocol, {me} {_list(ours)}",
        advice=f"update {older}, which is the older one: pip install --upgrade umbel",
    )


def _list(versions: set[int]) -> str:
    return " and ".join(map(str, sorted(versions)[-8:]))


__all__ = ["VERSIONS", "agree"]
