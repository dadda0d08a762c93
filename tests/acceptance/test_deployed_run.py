"""A run on a server gives what a simulation of the same named clients gives, whatever happens meanwhile."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import umbel
from tests.acceptance.deployed import Federation, federation
from tests.acceptance.processes import until
from umbel.apps.load import load_client, load_server
from umbel.errors import NotAllowed, RecipeChanged

NAMES = ["berlin", "lyon"]


@pytest.fixture(scope="module")
def fed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    made = federation(tmp_path_factory.mktemp("deployed"))
    try:
        for name in NAMES:
            made.node(name)
        yield made
    finally:
        made.close()


@pytest.fixture
def apps(fed: Federation, monkeypatch: pytest.MonkeyPatch) -> tuple[umbel.ServerApp, umbel.ClientApp]:
    monkeypatch.setenv("HOME", str(fed.home))
    module = f"{fed.package}.app"
    return load_server(f"{module}:server", path=fed.app), load_client(f"{module}:client", path=fed.app)


def same(result: Any, other: Any) -> None:
    assert result.model.digest() == other.model.digest()
    assert result.history == other.history
    assert dict(result.clients) == dict(other.clients)
    assert (result.failures, result.seed, result.status) == (other.failures, other.seed, other.status)


def test_the_command_and_the_call_give_what_a_simulation_gives(fed: Federation, apps: Any, tmp_path: Path) -> None:
    simulated = umbel.run(*apps, on=umbel.Simulation(NAMES), seed=5, rounds=3)
    same(umbel.run(*apps, on=umbel.connect(fed.token), seed=5, rounds=3), simulated)
    *_, last = fed.records("run", str(fed.app), "--on", "localhost", "--seed", "5", "--rounds", "3")
    assert simulated.model is not None
    assert (last["status"], last["model"]) == ("finished", simulated.model.digest())
    fetched = fed.records("fetch", last["run"][:8], str(tmp_path / "fetched"))[0]
    assert fetched["round"] == 3
    assert umbel.Arrays.load(tmp_path / "fetched" / "model.safetensors").digest() == last["model"]
    assert "finished" in fed("show", last["run"]).stdout
    assert "round 3" in fed("logs", last["run"]).stdout
    assert fed.records("ls")[0]["id"] == last["run"]


def test_an_evaluation_is_the_same(fed: Federation, apps: Any) -> None:
    server, client = apps
    model = server.initial_model()
    there = umbel.evaluate(model, client, on=umbel.connect(fed.token), config={"lr": 0.1})
    here = umbel.evaluate(model, client, on=umbel.Simulation(NAMES), config={"lr": 0.1})
    assert (there.metrics, there.clients, there.failures) == (here.metrics, here.clients, here.failures)


def test_the_same_call_with_a_directory_finds_the_same_run(fed: Federation, apps: Any, tmp_path: Path) -> None:
    server, client = apps
    place, where = umbel.connect(fed.token), tmp_path / "run"
    first = umbel.run(server, client, on=place, dir=where, rounds=2)
    assert umbel.run(server, client, on=place, dir=where, rounds=2).model == first.model
    more = umbel.run(server, client, on=place, dir=where, rounds=3)
    same(more, umbel.run(server, client, on=umbel.Simulation(NAMES), seed=first.seed, rounds=3))
    assert sum(run["name"] == "run" for run in fed.records("ls")) == 1
    assert umbel.Arrays.load(where / "model.safetensors") == more.model
    with pytest.raises(RecipeChanged, match="rounds: 3 are done, 2 are asked for now"):
        umbel.run(server, client, on=place, dir=where, rounds=2)
    other = server.with_(strategy=umbel.fed_avgm())
    with pytest.raises(RecipeChanged, match="strategy"):
        umbel.run(other, client, on=place, dir=where, rounds=3)
    anna = umbel.connect(fed.records("token", "create", "anna")[0]["address"])
    with pytest.raises(NotAllowed, match="holds a run of 'operator', and you are 'anna'"):
        umbel.run(server, client, on=anna, dir=where, rounds=4)
    assert len(umbel.run(server, client, on=place, dir=where, rounds=4).history) == 4


def test_a_metric_that_no_round_has_is_pointed_out(
    fed: Federation, apps: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server, client = apps
    server = server.with_(strategy=server.strategy.with_(metrics={"los": umbel.metrics.mean()}), rounds=1)
    rules = [umbel.EarlyStopping("lss"), umbel.Checkpoint(best_on="acuracy")]
    said = []
    for on in (umbel.Simulation(NAMES), umbel.connect(fed.token)):
        umbel.run(server, client, on=on, seed=1, callbacks=rules)
        said.append([record.getMessage() for record in caplog.records])
        caplog.clear()
    assert said[0] == said[1]
    assert len(said[0]) == 3


def test_a_callback_is_called_here_and_ends_the_run(fed: Federation, apps: Any) -> None:
    seen: list[int] = []

    def enough(result: Any) -> str:
        seen.append(len(result.history))
        return "enough" if result.history[-1]["round"] >= 2 else ""

    result = umbel.run(*apps, on=umbel.connect(fed.token), rounds=1000, callbacks=[enough])
    assert result.status == "stopped early: enough"
    assert 2 <= len(result.history) < 1000
    assert seen == sorted(set(seen))


def test_a_callback_may_end_the_run_after_its_last_round(fed: Federation, apps: Any) -> None:
    def enough(result: Any) -> str:
        return "enough" if len(result.history) == 2 else ""

    for on in (umbel.Simulation(NAMES), umbel.connect(fed.token)):
        result = umbel.run(*apps, on=on, seed=1, rounds=2, callbacks=[enough])
        assert (result.status, len(result.history)) == ("stopped early: enough", 2)


def test_the_server_may_be_killed_meanwhile(fed: Federation, apps: Any) -> None:
    killed: list[int] = []

    def kill_once(result: Any) -> None:
        if not killed and len(result.history) >= 2:
            killed.append(len(result.history))
            assert fed.server.close(signal.SIGKILL) == -signal.SIGKILL
            fed.start()

    rounds = 60
    result = umbel.run(*apps, on=umbel.connect(fed.token), seed=9, rounds=rounds, callbacks=[kill_once])
    assert 2 <= killed[0] < rounds
    same(result, umbel.run(*apps, on=umbel.Simulation(NAMES), seed=9, rounds=rounds))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_lets_the_run_go_on_and_it_says_for_whom_it_waits(
    fed: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: int
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with fed.program("run", str(fed.app), "--on", "localhost", "--nodes", "ghost") as program:
        waits = program.wait_for(r"run-waits: .*")[0]
        assert "never seen: ghost" in waits
        assert "until" in waits
        run = program.wait_for(r"Run ([0-9a-f]{8})")[1]
        program.process.send_signal(number)
        assert program.ended() == status
        program.wait_for(f"goes on at the server as {run}")
        assert f"umbel stop {run}" in program.text
        assert list(tmp_path.iterdir()) == []
    shown = next(record for record in fed.records("ls") if record["id"].startswith(run))
    assert shown["status"] == "waiting"
    fed("stop", run)
    until(lambda: "stopped by operator" in fed("show", run).stdout)


def test_who_has_submitted_a_run_learns_that_somebody_has_stopped_it(fed: Federation) -> None:
    with fed.program("run", str(fed.app), "--on", "localhost", "--nodes", "ghost") as program:
        program.wait_for("run-waits")
        fed("stop", program.wait_for(r"Run ([0-9a-f]{8})")[1])
        assert program.ended() == 1
        assert "stopped by operator after 0 rounds" in program.text


def test_a_run_without_its_program(fed: Federation) -> None:
    run = fed("run", str(fed.app), "--on", "localhost", "--rounds", "2", "--detach").stdout.strip()
    assert "finished" in fed("logs", "-f", run).stdout
    assert "only a run that has not ended can be stopped" in fed("stop", run, status=1).stderr
    assert fed.records("resume", run, "--rounds", "3")[0]["rounds"] == 3
    actions = [record["action"] for record in fed.records("audit") if record["target"] == run]
    assert actions == ["run-submitted", "run-resumed"]
    fed("logs", "-f", run)
    assert fed.records("show", run)[0]["round"] == 3
    assert fed.records("remove", run)[0]["removed"]
    assert "there is no run" in fed("show", run, status=1).stderr


def test_a_copy_that_is_made_meanwhile_is_a_server(fed: Federation, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    assert fed.records("server", "backup", str(copy), "--dir", str(fed.root / "server"))[0]["bytes"] > 0
    with fed.program("server", "--dir", str(copy), "--port", "0", "--pages", "", "--json") as server:
        assert '"ticket": ""' in server.wait_for(r'\{"event": "ready".*')[0]
    for directory in (fed.root / "server", copy):
        assert not [path for path in directory.rglob("*") if path.stat().st_mode & 0o077], "others may read it"


def test_people_and_tickets(fed: Federation, tmp_path: Path) -> None:
    made = fed.records("token", "create", "vera", "--role", "viewer", "--expires", "1h")[0]
    run = fed("run", str(fed.app), "--on", "localhost", "--rounds", "1", "--detach").stdout.strip()
    fed("logs", "-f", run)
    given = fed("fetch", run, str(tmp_path / "seen"), "--on", made["address"])
    assert [path.name for path in (tmp_path / "seen").iterdir()] == ["history.csv"]
    assert "is given to 'operator', whose run it is, and to operators alone" in given.stderr
    refused = fed("run", str(fed.app), "--on", made["address"], status=1)
    assert "needs the role runner" in refused.stderr
    assert {"operator", "vera"} <= {record["name"] for record in fed.records("token", "ls")}
    fed("token", "revoke", "vera")
    assert "What to do: " in fed("ls", "--on", made["address"], status=1).stderr
    assert "--again" in fed("token", "create", "vera", status=1).stderr
    again = fed.records("token", "create", "vera", "--again")[0]
    assert fed.records("ls", "--on", again["address"])
    assert "token revoke vera" in fed("token", "create", "vera", "--again", status=1).stderr
    others = fed("run", str(fed.app), "--on", again["address"], "--rounds", "1", "--detach").stdout.strip()
    fed("logs", "-f", others)
    for run_of_whom in (others, run):
        fed("fetch", run_of_whom, str(tmp_path / run_of_whom))
    read = [record for record in fed.records("audit") if record["action"] == "model-read"]
    assert {(record["who"], record["target"], record["details"]["owner"]) for record in read} == {
        ("operator", others, "vera")
    }
    ticket = fed.records("ticket", "create", "--uses", "3")[0]
    assert ticket["id"] in fed("ticket", "ls").stdout
    fed("ticket", "revoke", ticket["id"])
    assert "revoke" in " ".join(record["action"] for record in fed.records("audit"))
    assert "lyon has these labels: country=fr" in fed("nodes", "label", "lyon", "country=fr").stdout
    labels = {record["name"]: record["labels"] for record in fed.records("nodes", "ls")}
    assert labels["lyon"] == {"country": "fr"}
