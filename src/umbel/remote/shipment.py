"""An app's wheel that travels with a run, to nodes that do not have the app and take code from the server."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

from umbel.digest import digest_of
from umbel.errors import AppDiffers, UsageError

if TYPE_CHECKING:
    from umbel import wire
    from umbel.apps.describe import App
    from umbel.apps.signature import Signature

_LARGEST = 1 << 30  # bytes of a wheel; more is not unpacked anywhere


@final
@dataclass(frozen=True, slots=True)
class Shipment:
    """A wheel, and who has signed it.

    Attributes:
        path: the file, for people.
        content: its bytes.
        package: the app's.
        app: the digest of the app in it, 32 bytes.
        signatures: of that digest; all are right.
    """

    path: Path
    content: bytes
    package: str
    app: bytes
    signatures: tuple[Signature, ...] = ()

    @classmethod
    def read(cls, where: str | os.PathLike[str]) -> Shipment:
        """Read a wheel, and the signatures that lie beside it.

        Raises:
            UsageError: it is no wheel, but perhaps what one could be built from.
            AppMissing: it is not there.
            FormatError: it is damaged, or holds more than the app.
            BadSignature: a signature beside it is wrong.
        """
        from umbel.apps.project import Project
        from umbel.apps.signature import SUFFIX, verify

        path = Path(where)
        if path.suffix != ".whl":
            raise UsageError(
                f"{path} is no wheel, and only wheels travel to nodes",
                advice=f"build one: pip wheel --no-deps -w dist {path.absolute()}; have it signed: "
                "umbel sign WHEEL --key KEY",
            )
        project = Project.find(path)
        assert project.wheel is not None
        project.wheel.check_alone(project.package)
        content = path.read_bytes()
        if len(content) > _LARGEST:
            raise UsageError(f"{path} has {len(content):,} bytes", advice=f"at most {_LARGEST:,} travel")
        signed = path.with_name(path.name + SUFFIX)
        signatures = verify(signed, project.digest) if signed.exists() else ()
        return cls(path, content, project.package, project.digest, signatures)

    def check_same(self, app: App) -> None:
        """Refuse a wheel of another app than the run is of.

        Raises:
            AppDiffers: names both digests.
        """
        if (self.package, self.app) != (app.name, app.digest):
            raise AppDiffers(
                f"{self.path} holds {self.package} with the digest {self.app.hex()}, and the run is of {app.name} with "
                f"the digest {app.digest.hex()}",
                advice="build the wheel again, or install it here, so that both are the same",
            )

    @property
    def digest(self) -> bytes:
        """Of the file, 32 bytes."""
        return digest_of(self.content)

    def add_to(self, app: wire.App) -> None:
        """Have an app, as it travels, name the wheel, and who has signed it."""
        from umbel import wire

        app.wheel.CopyFrom(wire.Blob(digest=self.digest, size=len(self.content)))
        app.signatures.extend(
            wire.Signature(key=one.key, name=one.name, signature=one.signature) for one in self.signatures
        )


__all__ = ["Shipment"]
