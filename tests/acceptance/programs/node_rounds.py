"""A node and a server side in one process, which a test kills: goes on with the round that was not acknowledged.

Arguments: the directory, how many rounds, and "deaf" if the server side is never to acknowledge.
What was acknowledged stands in the file "acknowledged", a line each: the exchange, and the update's digest.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.unit.node.scripted import Script, make_app, running
from umbel import wire
from umbel.apps.project import Project
from umbel.errors import Unreachable
from umbel.link.identity import Identity
from umbel.node.config import NodeConfig
from umbel.node.installed import InstalledApp


class Deaf(Script):
    """Hears answers, and never says so."""

    async def report(self, session: bytes, request: wire.ReportRequest) -> wire.ReportResponse:
        await super().report(session, request)
        raise Unreachable("the connection broke")


def acknowledged(directory: Path) -> list[tuple[int, str]]:
    file = directory / "acknowledged"
    lines = file.read_text().splitlines() if file.exists() else []
    return [(int(line.split()[0]), line.split()[1]) for line in lines]


async def main(directory: Path, rounds: int, *, deaf: bool = False) -> None:
    root = directory / "app"
    app = InstalledApp.of(Project.find(root)) if root.exists() else make_app(root)
    kind = Deaf if deaf else Script
    script = kind(Identity.at(directory / "node" / "key").public)
    do = f"open({str(directory / 'trained')!r}, 'a').write(f'{{ctx.round}}\\n')"
    async with running(NodeConfig(), app, directory / "node", script=script):
        last = max([0, *(exchange for exchange, _ in acknowledged(directory))])
        for exchange in range(last + 1, rounds + 1):
            task = script.task(app, exchange=exchange, state=exchange - 1, config={"do": do})
            report = await script.answer(script.ask(task))
            print("heard", exchange, flush=True)
            if not report.HasField("update"):
                raise SystemExit(f"failed: {report.failure}")
            if not deaf:
                with (directory / "acknowledged").open("a") as file:
                    file.write(f"{exchange} {report.update.arrays.digest.hex()}\n")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), deaf=sys.argv[3:] == ["deaf"]))
