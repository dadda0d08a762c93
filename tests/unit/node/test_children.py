"""Real processes: how they end, what they may take, and what they print."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from pathlib import Path

import pytest

from tests.unit.node.scripted import APP, PATIENCE, Script, make_app, on_a_loop, running
from umbel import wire
from umbel.errors import AppError
from umbel.node.config import Dataset, Limits, NodeConfig, Policy
from umbel.node.installed import InstalledApp
from umbel.node.journal import read_journal


@pytest.fixture
def app(tmp_path: Path) -> InstalledApp:
    return make_app(tmp_path / "app")


async def failure(script: Script, task: wire.Task) -> wire.Failure:
    report = await script.answer(script.ask(task))
    assert report.WhichOneof("outcome") == "failure"
    return report.failure


@on_a_loop
async def test_the_app_is_imported_once(app: InstalledApp, tmp_path: Path) -> None:
    async with running(NodeConfig(), app, tmp_path / "node") as script:
        said = set()
        for i in range(1, 4):
            task = script.task(app, exchange=i, config={"do": "print(os.getpid())"})
            said.add((await script.answer(script.ask(task))).output)
        assert len(said) == 1


@pytest.mark.parametrize(
    ("do", "words", "again"),
    [
        ("os._exit(3)", "exit status 3", False),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV", False),
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL", True),
        ("os.kill(os.getpid(), signal.SIGTERM)", "SIGTERM", True),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV", False),
    ],
)
@on_a_loop
async def test_a_process_that_dies_is_a_failure_and_the_next_task_has_another(
    app: InstalledApp, tmp_path: Path, do: str, words: str, again: bool
) -> None:
    """It is done again if it was killed from outside, as in a simulation."""
    async with running(NodeConfig(), app, tmp_path / "node") as script:
        failed = await failure(script, script.task(app, config={"do": f"print('so far', flush=True); {do}"}))
        assert (failed.code, failed.retryable) == ("child-died", again)
        assert words in failed.message
        assert "What to do: " in failed.message
        assert failed.traceback.startswith("so far\n")
        assert (" in train" in failed.traceback) == ("SIGSEGV" in words)
        report = await script.answer(script.ask(script.task(app, exchange=2)))
        assert report.HasField("update")


@on_a_loop
async def test_a_process_that_dies_while_the_app_is_loaded_ends_the_node_in_words(tmp_path: Path) -> None:
    app = make_app(tmp_path / "app", "import os\nprint('so far', flush=True)\nos._exit(3)\n")

    async def until_it_ends() -> None:
        async with running(NodeConfig(), app, tmp_path / "node") as script, asyncio.timeout(PATIENCE):
            assert script.work is not None
            await asyncio.wait([script.work])

    with pytest.raises(AppError, match=r"'myfed' cannot be loaded: .* exit status 3.*\nso far\n  What to do: let the"):
        await until_it_ends()


@pytest.mark.skipif(sys.platform != "linux", reason="memory is watched on Linux")
@pytest.mark.parametrize(
    ("does", "says"),
    [
        (
            "import numpy, time\nkept = numpy.ones(50_000_000)\ntime.sleep(600)\n",
            "loading the app took more than 210 MB of memory",
        ),
        (
            "import time\ntime.sleep(600)\n",
            "loading the app took more than 5 seconds and was stopped\n  What to do: let its modules",
        ),
    ],
)
@on_a_loop
async def test_loading_an_app_has_limits_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, says: str
) -> None:
    monkeypatch.setattr("umbel.node.children._TO_START", 60.0 if "numpy" in does else 5.0)
    app = make_app(tmp_path / "app", does)
    with pytest.raises(AppError) as caught:
        async with running(NodeConfig(limits=Limits(max_memory=200 << 20)), app, tmp_path / "node") as script:
            await script.until(lambda: False)
    assert f"the app 'myfed' cannot be loaded: {says}" in str(caught.value)


@on_a_loop
async def test_a_process_that_is_killed_while_the_app_is_loaded_is_started_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As by a system that is short of memory when it starts: the node need not leave for that."""
    once = tmp_path / "once"
    once.touch()
    begin = f"import os, pathlib\nif os.path.exists({str(once)!r}):\n"
    begin += f"    pathlib.Path({str(once)!r}).unlink()\n    os.kill(os.getpid(), 9)\n"
    app = make_app(tmp_path / "app", begin + APP)
    async with running(NodeConfig(), app, tmp_path / "node") as script:
        assert (await script.answer(script.ask(script.task(app)))).HasField("update")
    said = [record.getMessage() for record in caplog.records]
    begins = "app-killed: 'myfed' cannot be loaded on node berlin, and is tried again in 1 s: "
    assert any(words.startswith(begins) for words in said)
    assert any("SIGKILL" in words for words in said)


@on_a_loop
async def test_an_exception_comes_with_its_traceback(app: InstalledApp, tmp_path: Path) -> None:
    async with running(NodeConfig(), app, tmp_path / "node") as script:
        failed = await failure(script, script.task(app, config={"do": "print('before'); 1/0"}))
        assert failed.code == "client-failed"
        assert "ZeroDivisionError" in failed.message
        assert "1/0" in failed.traceback or "exec(do)" in failed.traceback
        assert script.reports[0].output == "before\n"


@on_a_loop
async def test_an_owner_may_keep_output_and_tracebacks_here(
    app: InstalledApp, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The text of an exception too, which quotes data: the owner's log has them all."""
    caplog.set_level("INFO", "umbel")
    config = NodeConfig(policy=Policy(output=False))
    async with running(config, app, tmp_path / "node") as script:
        failed = await failure(script, script.task(app, config={"do": "print('begins'); float('Jane Doe')"}))
        assert failed.message.startswith("its train handler raised ValueError; its owner lets nothing leave")
        assert "Jane Doe" not in str(script.reports)
        assert failed.traceback == ""
        assert script.reports[0].output == ""
    for words in ("begins", "raised ValueError: could not convert", "Jane Doe", "Traceback (most recent call last)"):
        assert words in caplog.text


# what a process may write where the node expects frames
NOISE = "s=[f for f in sorted(map(int, os.listdir('/proc/self/fd'))) if os.path.exists(f'/proc/self/fd/{f}') and "
NOISE += "os.readlink(f'/proc/self/fd/{f}').startswith('socket')]; os.write(s[0], %s)"


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the socket in /proc")
@on_a_loop
async def test_a_process_that_closes_its_connection_is_not_said_to_be_killed(app: InstalledApp, tmp_path: Path) -> None:
    """The node ends it then, and the same would happen again."""
    async with running(NodeConfig(), app, tmp_path / "node") as script:
        do = NOISE.replace("os.write(s[0], %s)", "os.close(s[0]); time.sleep(600)")
        failed = await failure(script, script.task(app, config={"do": do}))
        assert (failed.code, failed.retryable) == ("child-died", False)
        assert "closed its connection to the node" in failed.message
        assert (await script.answer(script.ask(script.task(app, exchange=2)))).HasField("update")


@on_a_loop
async def test_a_process_that_dies_is_noticed_while_one_of_its_own_lives(app: InstalledApp, tmp_path: Path) -> None:
    """That one has left the group, and holds the connection's other end, as programs that go into the background do."""
    lives = tmp_path / "lives"
    lives.touch()
    do = f"if not os.fork():\n os.setsid()\n while os.path.exists({str(lives)!r}): time.sleep(0.01)\n os._exit(0)\n"
    try:
        async with running(NodeConfig(), app, tmp_path / "node") as script:
            failed = await failure(script, script.task(app, config={"do": f"{do}os._exit(3)"}))
            assert "exit status 3" in failed.message
            assert (await script.answer(script.ask(script.task(app, exchange=2)))).HasField("update")
    finally:
        lives.unlink()


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the socket in /proc")
@pytest.mark.parametrize(
    "data",
    [b"\xff" * 64, b"\x04\x00\x00\x00none", b"\x02\x00\x00\x00[]\x00\x00\x00\x00", b"\x02\x00\x00\x00{}" + bytes(4)],
)
@on_a_loop
async def test_garbage_from_the_process_is_a_failure(app: InstalledApp, tmp_path: Path, data: bytes) -> None:
    async with running(NodeConfig(), app, tmp_path / "node") as script:
        report = await script.answer(script.ask(script.task(app, config={"do": NOISE % repr(data)})))
        assert report.failure.code == "child-died"  # and not what the code raises that looks for the socket
        report = await script.answer(script.ask(script.task(app, exchange=2)))
        assert report.HasField("update")


@on_a_loop
async def test_a_flood_of_output_blocks_nothing(
    app: InstalledApp, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "umbel")
    do = "print('first'); [print('x' * 99) for _ in range(100_000)]; print('y' * 100_000); print('last')"
    async with running(NodeConfig(), app, tmp_path / "node") as script:
        report = await script.answer(script.ask(script.task(app, config={"do": do})))
        assert report.output.endswith("last\n")
        assert len(report.output) <= 16 << 10
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("app-output:")]
    assert "app-output: run trial, round 1: first" in lines
    assert len(lines) < 1000


@on_a_loop
async def test_a_task_that_takes_too_long_is_stopped(app: InstalledApp, tmp_path: Path) -> None:
    async with running(NodeConfig(limits=Limits(max_seconds=0.3)), app, tmp_path / "node") as script:
        failed = await failure(script, script.task(app, config={"do": "time.sleep(600)"}))
        assert failed.code == "over-limit"
        assert "more than 0.3 seconds" in failed.message
        assert "raise max_seconds" in failed.message


@pytest.mark.skipif(sys.platform != "linux", reason="memory is watched on Linux")
@on_a_loop
async def test_a_task_that_takes_too_much_memory_is_stopped(app: InstalledApp, tmp_path: Path) -> None:
    async with running(NodeConfig(limits=Limits(max_memory=200 << 20)), app, tmp_path / "node") as script:
        do = "a = np.ones(100 << 20, np.uint8); time.sleep(600)"
        inner = "import numpy as np, time; b = np.ones(400 << 20, np.uint8); time.sleep(600)"
        in_a_fork = f"import subprocess; subprocess.run([sys.executable, '-c', {inner!r}])"
        for i, code in enumerate((do.replace("100", "400"), in_a_fork), 1):
            failed = await failure(script, script.task(app, exchange=i, config={"do": code}))
            assert failed.code == "over-limit"
            assert "more than 210 MB of memory" in failed.message
            assert "raise max_memory" in failed.message


@pytest.mark.parametrize("stubborn", [False, True])
@on_a_loop
async def test_a_revoked_task_is_stopped(app: InstalledApp, tmp_path: Path, stubborn: bool) -> None:
    ready = tmp_path / "ready"
    do = f"open({str(ready)!r}, 'w').close()\n"
    do += "while True:\n try:\n  time.sleep(600)\n except KeyboardInterrupt:\n  " + ("pass" if stubborn else "raise")
    async with running(NodeConfig(), app, tmp_path / "node") as script:
        task = script.ask(script.task(app, config={"do": do}))
        async with asyncio.timeout(PATIENCE):
            while not ready.exists():
                await asyncio.sleep(0.01)
        script.say(wire.SubscribeResponse(revoke=wire.Revoke(tasks=[task.id], reason="the deadline has passed")))
        report = await script.answer(script.ask(script.task(app, exchange=2)))
        assert report.HasField("update")
        assert [r.id.exchange for r in script.reports] == [2]


@on_a_loop
async def test_secrets_are_resolved_in_the_process_and_nowhere_else(app: InstalledApp, tmp_path: Path) -> None:
    secret = "".join(reversed("terces-yrev-a"))
    (tmp_path / "secret").write_text(secret + "\n")
    settings = {"password": f"file:{tmp_path / 'secret'}", "user": "env:DB_USER", "deep": {"list": ["env:DB_USER", 1]}}
    config = NodeConfig(data={"heart": Dataset(name="heart", settings=settings)})
    environment = {"DB_USER": "umbel-" + "reader"}
    async with running(config, app, tmp_path / "node", environment=environment) as script:
        task = script.task(app, kind="query", name="site")
        report = await script.answer(script.ask(task))
        text = script.arrays(report.update.arrays)["text"].decode()
        assert text == repr({"password": secret, "user": "umbel-reader", "deep": {"list": ["umbel-reader", 1]}})
    found = [p for p in (tmp_path / "node").rglob("*") if p.is_file() and p.name.startswith("journal")]
    assert found
    assert not any(secret.encode() in p.read_bytes() for p in found)


@on_a_loop
async def test_secrets_are_not_read_in_what_is_printed_nor_in_errors(
    app: InstalledApp, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As where a library quotes the address of a database in its error, with the password."""
    caplog.set_level("INFO", "umbel")
    environment = {"DB_PASSWORD": "tiger/" + "eyes"}
    config = NodeConfig(data={"heart": Dataset(name="heart", settings={"deep": {"list": ["env:DB_PASSWORD", "1"]}})})
    begin = "import urllib.parse; p = ctx.site['deep']['list'][0]; print('with', p); print(p, file=sys.stderr)\n"
    ends = {
        "raise ValueError(f'no way in with {p!r}')": "no way in with '(a secret)'",
        "raise ValueError('db://me:' + urllib.parse.quote(p, safe='') + '@host')": "db://me:(a secret)@host",
        "os._exit(3)": "exit status 3",
    }
    async with running(config, app, tmp_path / "node", environment=environment) as script:
        for exchange, (end, said) in enumerate(ends.items(), 1):
            failed = await failure(script, script.task(app, exchange=exchange, config={"do": begin + end}))
            assert said in failed.message
            printed = script.reports[-1].output or failed.traceback  # which that of a dead process ends with
            assert printed == "with (a secret)\n(a secret)\n"
    told = "".join(map(str, script.reports)) + caplog.text
    told += "".join(map(str, read_journal(tmp_path / "node" / "journal")))
    assert "tiger" not in told


@on_a_loop
async def test_a_secret_that_is_missing_is_named(app: InstalledApp, tmp_path: Path) -> None:
    config = NodeConfig(data={"heart": Dataset(name="heart", settings={"password": "env:NOT_THERE"})})
    with pytest.raises(Exception, match="'password' refers to the variable NOT_THERE"):
        async with running(config, app, tmp_path / "node") as script:
            await script.until(lambda: False)


@on_a_loop
async def test_the_server_does_not_learn_where_secrets_are_kept(
    app: InstalledApp, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "umbel")
    lung = Dataset(name="lung", settings={"password": f"file:{tmp_path / 'none'}"})
    config = NodeConfig(data={"heart": Dataset(name="heart"), "lung": lung})
    async with running(config, app, tmp_path / "node") as script:
        failed = await failure(script, script.task(app, dataset="lung"))
    assert failed.message.startswith("node berlin cannot read a setting of its data set\n  What to do: ask its owner")
    assert "none" not in str(script.reports)
    assert f"'password' refers to the file {tmp_path / 'none'}" in caplog.text  # the owner does


@on_a_loop
async def test_an_app_that_changes_while_the_node_runs_is_refused(tmp_path: Path) -> None:
    app = make_app(tmp_path / "app")
    async with running(NodeConfig(), app, tmp_path / "node") as script:
        await script.answer(script.ask(script.task(app)))
        with (tmp_path / "app" / "myfed" / "__init__.py").open("a") as file:
            file.write("\n# changed\n")
        failed = await failure(script, script.task(app, exchange=2, seed=8))
        assert failed.code == "app-differs"


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="needs root: becomes another user")
@on_a_loop
async def test_the_app_runs_as_another_user(tmp_path: Path) -> None:
    import pwd
    import shutil
    import tempfile

    try:
        other = pwd.getpwnam("nobody")
    except KeyError:
        pytest.skip("needs the user nobody")
    directory = Path(tempfile.mkdtemp(prefix="umbel-run-as-"))
    try:
        directory.chmod(0o755)
        app = make_app(directory / "app")
        config = NodeConfig(run_as="nobody")
        (directory / "node").mkdir(mode=0o711)
        async with running(config, app, directory / "node") as script:
            do = f"print(os.getuid(), os.access({str(directory / 'node' / 'own')!r}, os.R_OK))"
            report = await script.answer(script.ask(script.task(app, config={"do": do})))
            assert report.output == f"{other.pw_uid} False\n"
            assert report.HasField("update")
    finally:
        shutil.rmtree(directory)


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="needs root: becomes another user")
@on_a_loop
async def test_a_directory_that_the_apps_user_cannot_pass_is_named(tmp_path: Path) -> None:
    """As one that systemd has made with StateDirectoryMode=0700."""
    app = make_app(tmp_path / "app")
    (tmp_path / "node").mkdir(mode=0o700)
    closed = next(path for path in [*reversed((tmp_path / "node").parents), tmp_path / "node"] if not _is_open(path))
    with pytest.raises(
        AppError, match=f"'nobody', who may not reach .* because of {closed}\n  What to do: .*chmod o.rx"
    ):
        async with running(NodeConfig(run_as="nobody"), app, tmp_path / "node") as script:
            await script.until(lambda: False)


def _is_open(directory: Path) -> bool:
    return bool(directory.stat().st_mode & 0o001)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@on_a_loop
async def test_processes_end_with_the_node(app: InstalledApp, tmp_path: Path) -> None:
    async with running(NodeConfig(), app, tmp_path / "node") as script:
        report = await script.answer(script.ask(script.task(app, config={"do": "print(os.getpid())"})))
        pid = int(report.output)
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("seed", range(3))
@on_a_loop
async def test_killed_at_drawn_moments_a_task_fails_or_has_the_same_bits(
    app: InstalledApp, tmp_path: Path, seed: int
) -> None:
    draw = random.Random(seed)
    async with running(NodeConfig(), app, tmp_path / "node") as script:
        reference = await script.answer(script.ask(script.task(app)))
        loop = asyncio.get_running_loop()
        for i in range(2, 7):
            pid = await _pid(script, app, 100 + i)
            late = loop.call_later(draw.uniform(0, 0.004), _kill, pid)
            task = script.task(app, exchange=200 + i, run="e" * 32, config={"do": "time.sleep(0.001)"})
            report = await script.answer(script.ask(task))
            late.cancel()
            if report.HasField("failure"):
                assert report.failure.code == "child-died"
                task = script.task(app, exchange=200 + i, run="e" * 32, attempt=2, config={"do": "time.sleep(0.001)"})
                report = await script.answer(script.ask(task), 2)
            assert report.HasField("update")
        redone = await script.answer(script.ask(script.task(app, config={"do": "pass"})), 2)
        if redone.HasField("failure"):  # killed when it had answered: nobody had noticed yet
            assert redone.failure.code == "child-died"
            redone = await script.answer(script.ask(script.task(app, attempt=2, config={"do": "pass"})), 3)
        assert redone.update.arrays.digest == reference.update.arrays.digest


async def _pid(script: Script, app: InstalledApp, exchange: int) -> int:
    """The number of the process; the one before may be about to end."""
    for attempt in (1, 2, 3):
        task = script.task(app, exchange=exchange, run="d" * 32, attempt=attempt, config={"do": "print(os.getpid())"})
        report = await script.answer(script.ask(task), attempt)
        if report.HasField("update"):
            break
    return int(report.output)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
