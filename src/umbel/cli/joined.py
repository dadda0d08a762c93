"""A node's directory as the command line keeps it: its key, and which server it has joined.

node.key     the node's own key
node.json    the server's address, without a secret, and whom to trust
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import final

from umbel.errors import CorruptFile
from umbel.link.address import Address
from umbel.link.identity import Identity
from umbel.store.durable import readable_errors, replace_file, sync_directory

FILE, KEY = "node.json", "node.key"


def usual_directory(name: str) -> Path:
    """Where a node keeps its files if nobody says: below the home directory of who runs it."""
    return Path.home() / ".local" / "state" / "umbel" / "nodes" / name


def own_identity(directory: Path) -> Identity:
    """The key of a node; it is made, with the directory, if there is none.

    Raises:
        StoreError: the directory cannot be made, read or written.
    """
    with readable_errors(directory):
        return Identity.at(directory / KEY)


@final
@dataclass(frozen=True, slots=True)
class Joined:
    """Which server a node has joined.

    Attributes:
        name: of the node.
        server: its address, without a secret.
        authority: the certificate that is trusted (DER, base64); "": those that the system knows.
        federation: 32 hex digits.
        labels: that it has joined with.
        ca: the certificate that `--ca` named (PEM), which is trusted instead; "": none did.
    """

    name: str
    server: str
    authority: str
    federation: str
    labels: Mapping[str, str] = field(default_factory=dict)
    ca: str = ""

    @classmethod
    def read(cls, directory: Path) -> Joined | None:
        """What a directory says; None if no node has joined there.

        Raises:
            CorruptFile: it cannot be read.
        """
        file = directory / FILE
        if not file.exists():
            return None
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            made = cls(**content)
            made.address, made.pem  # noqa: B018  # they can be read
        except (OSError, ValueError, TypeError) as error:
            raise CorruptFile(f"{file} cannot be read: {error}", advice="remove it, and join with a ticket") from error
        return made

    def write(self, directory: Path) -> None:
        """Keep it."""
        with readable_errors(directory):
            directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        replace_file(directory / FILE, json.dumps(asdict(self), indent=1).encode())
        sync_directory(directory)

    @property
    def address(self) -> Address:
        """Where the server is."""
        return Address.parse(self.server)

    @property
    def pem(self) -> bytes | None:
        """The certificate that is trusted; None: those that the system knows."""
        if self.ca:
            return self.ca.encode()
        if not self.authority:
            return None
        return Address("localhost", secret=bytes(16), authority=base64.b64decode(self.authority)).pem


def joined(name: str, address: Address, federation: str, labels: Mapping[str, str]) -> Joined:
    """What is kept of an address that a node has joined with, and of its labels."""
    authority = base64.b64encode(address.authority).decode() if address.authority else ""
    return Joined(name, address.without_secret(), authority, federation, dict(labels))


__all__ = ["FILE", "KEY", "Joined", "joined", "own_identity", "usual_directory"]
