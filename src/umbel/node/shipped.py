"""Apps that came through the server: checked once more when their bytes are there, and unpacked by digest."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import final

from umbel import wire
from umbel.apps.describe import App
from umbel.apps.wheel import Wheel, install
from umbel.errors import AppDiffers, AppError, AppMissing, UmbelError
from umbel.node.installed import InstalledApp


@final
class ShippedApps:
    """The apps that came, below one directory. What the owner permits was asked before; see `umbel.node.policy`.

    Args:
        directory: where each is unpacked, under its digest.
        node: the node's name, for people.
    """

    def __init__(self, directory: Path, node: str) -> None:
        self._directory, self._node = directory, node
        self._lock = threading.Lock()  # tasks of one run may come at the same time

    def take(self, asked: wire.App, path: Path, signers: Sequence[bytes] = ()) -> InstalledApp:
        """Unpack an app, if its wheel is what the run says.

        Args:
            asked: the app that the run is of.
            path: the wheel, whose bytes have the digest that the run says.
            signers: whose signatures of the app's digest were found to be right.

        Raises:
            AppDiffers: its files have another digest than the run says.
            AppMissing: it needs what is not installed here, or does not hold the app.
            FormatError: it is no wheel, or holds more than the app.
            AppError: it cannot be unpacked.
        """
        name = f"the wheel of the app {asked.name!r} that came to node {self._node}"
        wheel = Wheel.read(path, name)
        found = wheel.digest(asked.name)
        if found != asked.digest:
            raise AppDiffers(
                f"{name}: its files have the digest {found.hex()}, and the run says {asked.digest.hex()}",
                advice="submit the run again with the wheel that was signed; nothing of this one has run",
            )
        if missing := wheel.missing():
            needed = " ".join(repr(line) for line in missing)
            raise AppMissing(
                f"{name} needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed at "
                "this node",
                advice=f"ask its owner to install that there: pip install {needed}",
            )
        with self._lock:
            source = self._unpacked(wheel, asked.name)
        app = App(
            name=asked.name,
            version=asked.version,
            digest=asked.digest,
            object=asked.object,
            signers=tuple(sorted(set(signers))),
        )
        return InstalledApp(app=app, source=source)

    def _unpacked(self, wheel: Wheel, package: str) -> Path:
        try:
            return install(wheel, package, self._directory)
        except UmbelError as error:
            if str(self._directory) not in error.what:
                raise
            raise AppError(  # the server need not know how the owner's directories are called
                f"{wheel.name} cannot be unpacked", advice="ask its owner to look at the node's disk, and at its log"
            ) from error


__all__ = ["ShippedApps"]
