"""A node whose disk is full: it says so, lives on, and works again when there is room."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.node.scripted import make_app, on_a_loop, running
from umbel.node.config import NodeConfig
from umbel.node.journal import read_journal


@pytest.fixture
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of four megabytes."""
    path = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={4 << 20}", "tmpfs", str(path)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs tmpfs: only root can mount one")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


@on_a_loop
async def test_a_full_disk_is_said_and_survived(disk: Path, tmp_path: Path) -> None:
    app = make_app(tmp_path / "app")
    async with running(NodeConfig(), app, disk / "node") as script:
        assert (await script.answer(script.ask(script.task(app)))).HasField("update")
        do = "ctx.state['big'] = np.zeros(1 << 19)"  # 4 MB
        report = await script.answer(script.ask(script.task(app, exchange=2, state=1, config={"do": do})))
        assert report.failure.code == "disk-full"
        assert report.failure.retryable
        report = await script.answer(script.ask(script.task(app, exchange=3, state=1)))
        assert report.HasField("update")
        (disk / "filler").write_bytes(b"x" * (shutil.disk_usage(disk).free - 8192))
        script.ask(script.task(app, exchange=4, state=3, config={"do": "ctx.state['big'] = np.zeros(1 << 15)"}))
        await script.until(lambda: True)
        (disk / "filler").unlink()
        assert (await script.answer(script.ask(script.task(app, exchange=5, state=3)))).HasField("update")
    assert next(iter(read_journal(disk / "node" / "journal")))["number"] == 1


@on_a_loop
async def test_without_room_for_its_journal_a_node_says_so_too(
    disk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(tmp_path / "app")
    filler = disk / "filler"
    async with running(NodeConfig(), app, disk / "node") as script:
        assert (await script.answer(script.ask(script.task(app)))).HasField("update")
        filler.write_bytes(b"x" * shutil.disk_usage(disk).free)
        for exchange in range(2, 30):  # the journal has a little room left in its last block
            report = await script.answer(script.ask(script.task(app, exchange=exchange, state=1)))
            if report.HasField("failure") and "journal-000001" in caplog.text:
                break
        assert report.failure.code == "disk-full"
        assert "free some space; the node then goes on" in caplog.text
        assert len(script.opened) == 1  # that is no reason to leave
        filler.unlink()
        again = script.task(app, exchange=exchange, state=1, attempt=2)
        assert (await script.answer(script.ask(again), 2)).HasField("update")
    numbers = [line["number"] for line in read_journal(disk / "node" / "journal")]
    assert numbers == list(range(1, len(numbers) + 1))
