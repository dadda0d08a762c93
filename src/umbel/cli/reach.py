"""Which server a command speaks with, and other parameters that several commands have."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

if TYPE_CHECKING:
    from umbel.link.address import Address
    from umbel.remote.line import Line

On = Annotated[str, Parameter(name="--on")]
"""The server: the name of a login, or an address; else $UMBEL_ON, else the default login."""
Json = Annotated[bool, Parameter(name="--json")]
"""Print JSON."""
Count = Annotated[int, Parameter(validator=Number(gte=0, lt=1 << 32))]
"""A number that a message has room for."""


def server_address(on: str) -> Address:
    """The address, with its token, of the server that is meant.

    Raises:
        UsageError: nobody is logged in there, or it is no address.
    """
    from umbel.remote.logins import Logins

    return Logins.read().find(on or os.environ.get("UMBEL_ON", ""))


def knows_server(on: str) -> bool:
    """Is there a server that is meant?"""
    from umbel.remote.logins import Logins

    return bool(on or os.environ.get("UMBEL_ON") or Logins.read().default)


def reach(on: str) -> Line:
    """A line to the server that is meant; a context manager. As `server_address`."""
    from umbel.remote.line import Line

    return Line(server_address(on))


__all__ = ["Count", "Json", "On", "knows_server", "reach", "server_address"]
