"""The secrets that a start makes for an operator and for nodes, kept until they have been shown.

Of tokens and tickets the store has hashes alone. If the process ended after it stored these and before it printed them,
nobody could ever come in. So they stand in a file first, which goes when both were shown; until then each start shows
them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

from umbel.errors import CorruptFile
from umbel.server.people import new_secret
from umbel.store.durable import readable_errors, replace_secret

FILE = "welcome.json"


@final
@dataclass(frozen=True, slots=True)
class Welcome:
    """How to come in.

    Attributes:
        token: the secret of the operator's token.
        ticket: the secret of a ticket for nodes; "": it is not the first start.
    """

    token: str
    ticket: str

    @classmethod
    def make(cls, directory: Path, *, ticket: bool) -> Welcome:
        """New ones; on the disk when this returns."""
        made = cls(new_secret(), new_secret() if ticket else "")
        replace_secret(directory / FILE, json.dumps(asdict(made)).encode())
        return made

    @classmethod
    def read(cls, directory: Path) -> Welcome | None:
        """Those that have not been shown; None: there are none.

        Raises:
            CorruptFile: they cannot be read.
        """
        file = directory / FILE
        try:
            with readable_errors(file):
                content = file.read_text(encoding="utf-8") if file.exists() else ""
            return cls(**json.loads(content)) if content else None
        except (ValueError, TypeError) as error:
            raise CorruptFile(
                f"{file} cannot be read: {error}",
                advice="remove it",
            ) from error

    @staticmethod
    def forget(directory: Path) -> None:
        """They have been shown."""
        with readable_errors(directory / FILE):
            (directory / FILE).unlink(missing_ok=True)


__all__ = ["Welcome"]
