"""Where one is logged in: addresses with tokens, in a file that only its owner may read.

~/.config/umbel/logins.json    {"default": "fed.example.org", "logins": {"fed.example.org": "umbel://..."}}
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from umbel.errors import CorruptFile, UsageError
from umbel.link.address import Address
from umbel.store.durable import readable_errors, replace_file

_LOG_IN = "umbel login ADDRESS, with the address that the server, or its operator's `umbel token create`, printed"


def usual_file() -> Path:
    """Where logins are kept: below the home directory of who runs this."""
    return Path.home() / ".config" / "umbel" / "logins.json"


@final
@dataclass(frozen=True, slots=True)
class Logins:
    """Where somebody is logged in.

    Attributes:
        addresses: by name, each with its token.
        default: the name that is meant where none is given; "" if there is none.
    """

    addresses: Mapping[str, Address] = field(default_factory=dict)
    default: str = ""

    @classmethod
    def read(cls, file: Path | None = None) -> Logins:
        """The logins in a file; none if it does not exist.

        Raises:
            CorruptFile: it is not what `write` wrote.
        """
        path = file or usual_file()
        if not path.exists():
            return cls()
        with readable_errors(path):
            text = path.read_text(encoding="utf-8")
        try:
            content: Any = json.loads(text)
            addresses = {str(name): Address.parse(line) for name, line in content["logins"].items()}
            default = str(content["default"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptFile(f"{path} cannot be read: {error}", advice="remove it, and log in again") from error
        return cls(addresses, default if default in addresses else "")

    def write(self, file: Path | None = None) -> None:
        """Keep the logins in a file that nobody else may read."""
        path = file or usual_file()
        with readable_errors(path):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = {"default": self.default, "logins": {name: str(address) for name, address in self.addresses.items()}}
        before = os.umask(0o077)  # from its first byte on
        try:
            replace_file(path, json.dumps(content, indent=1).encode())
        finally:
            os.umask(before)
        with suppress(OSError):  # it may have been there before, for others to read
            path.chmod(0o600)

    def with_(self, name: str, address: Address) -> Logins:
        """With one more; it is the default from now on."""
        return Logins({**self.addresses, name: address}, name)

    def without(self, name: str) -> Logins:
        """With one less."""
        kept = {other: address for other, address in self.addresses.items() if other != name}
        return Logins(kept, self.default if self.default in kept else next(iter(kept), ""))

    def find(self, where: str = "") -> Address:
        """The address, with its token, of a login's name or of a server's address; "": of the default.

        An address without a token gets that of the login to the same host and port.

        Raises:
            UsageError: nobody is logged in there, or it is no address.
        """
        name = where or self.default
        if not name:
            raise UsageError("nobody says which server, and nobody is logged in anywhere", advice=_LOG_IN)
        if (host := name.strip("[]")) in self.addresses:
            return self.addresses[host]
        if "://" not in name and ":" not in name and self.addresses:
            known = ", ".join(self.addresses)
            raise UsageError(f"there is no login {name!r}; there is {known}", advice=_LOG_IN)
        address = Address.parse(name)
        if address.secret:
            return address
        for known_address in self.addresses.values():
            if (known_address.host, known_address.port) == (address.host, address.port):
                return known_address
        raise UsageError(f"nobody is logged in at {address.without_secret()}", advice=_LOG_IN)


__all__ = ["Logins", "usual_file"]
