"""Runs whose main, aggregator or evaluation is the user's own, in processes of their own: the bits of a simulation."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import umbel
from tests.simulation.coded import write_app
from tests.simulation.network import Place, federation
from umbel import wire
from umbel.apps.digest import digest_of_directory
from umbel.apps.load import load_client, load_server
from umbel.apps.project import Project
from umbel.engine.submission import Submission
from umbel.remote.outcome import Outcome
from umbel.server.installed import Installed
from umbel.server.results import pages_of

SITES = {"berlin": {"n": 3}, "lyon": {"n": 5}, "turin": {"n": 8}}


@dataclass(frozen=True)
class App:
    """The app, on the disk and imported here."""

    name: str
    source: Path

    @property
    def client(self) -> umbel.ClientApp:
        return load_client(f"{self.name}.app:client", path=self.source)

    def server(self, name: str) -> umbel.ServerApp:
        return load_server(f"{self.name}.app:{name}", path=self.source)

    @property
    def wire(self) -> wire.App:
        digest = digest_of_directory(self.source, self.name)
        return wire.App(name=self.name, version="1", digest=digest, object=f"{self.name}.app:client")

    @property
    def installed(self) -> Installed:
        name = self.name
        project = Project(
            package=name, name=name, version="1", client=f"{name}.app:client", server="", source=self.source
        )
        return Installed([project])

    def submission(self, name: str, seed: int = 7) -> Submission:
        server = self.server(name)
        return Submission(
            seed=seed,
            rounds=server.rounds,
            initial=server.initial_model(),
            handlers=("train", "evaluate"),
            main=f"{self.name}.app:{name}",
        )

    def simulated(self, name: str, seed: int = 7) -> umbel.Result:
        on = umbel.Simulation(clients=SITES, engine="inline")
        return umbel.run(self.server(name), self.client, on=on, seed=seed)

    def federation(self, directory: Path, **more: Any) -> Any:
        return federation(directory, self.client, SITES, app=self.wire, installed=self.installed, **more)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    name = f"coded{uuid.uuid4().hex[:8]}"  # each is imported once in a process
    return App(name, write_app(tmp_path_factory.mktemp("app"), name))


def outcome(place: Place, run: str) -> dict[str, Any]:
    assert place.store is not None
    assert place.runs is not None
    return dict(pages_of(place.store, place.runs.find(run), models=True)[0])


def rows_of(found: Mapping[str, Any]) -> list[Any]:
    return [row["fields"] for row in found["rows"]["$tuple"]]


def events(place: Place, run: str, kind: str) -> list[Mapping[str, Any]]:
    assert place.store is not None
    return [event.content for event in place.store.events(run, 0, 100_000) if event.kind == kind]


def model_digest(found: Mapping[str, Any]) -> str:
    return str(found["state"]["fields"]["model"]["$arrays"])


def check_same(found: Mapping[str, Any], expected: umbel.Result) -> None:
    assert expected.model is not None
    assert model_digest(found) == expected.model.digest()
    for row, wanted in zip(rows_of(found), expected.history, strict=True):
        for stage in row["stages"].values():
            for name, value in stage.items():
                assert value == wanted[name], name


def done(app: App, directory: Path, name: str) -> Any:
    """Do a run to its end: its row, what it has come to, and what was told of it."""

    async def story() -> Any:
        async with app.federation(directory) as (place, _):
            run = await place.submit(app.submission(name))
            row = await place.ended(run)
            told = {kind: events(place, run, kind) for kind in ("output", "failure", "end")}
            return row, outcome(place, run), told

    return asyncio.run(story())


@pytest.mark.parametrize("name", ["looped", "large"])
def test_a_main_gives_the_bits_of_a_simulation(app: App, tmp_path: Path, name: str) -> None:
    row, found, told = done(app, tmp_path, name)
    assert (row.status, row.reason) == ("finished", "")
    check_same(found, app.simulated(name))
    assert told["output"][0] == {"client": "server", "text": "round 1 is done"}
    assert not list((tmp_path / "runs").iterdir())


def test_a_strategy_with_an_aggregator_and_an_evaluation_of_its_own(app: App, tmp_path: Path) -> None:
    row, found, told = done(app, tmp_path, "evaluated")
    assert (row.status, row.reason) == ("finished", "")
    expected = app.simulated("evaluated")
    check_same(found, expected)
    assert "central" in rows_of(found)[1]["stages"]["central"]
    (failure,) = found["failures"]["$tuple"]
    assert failure["fields"]["message"] == expected.failures[0].message
    assert "it cannot be computed" in told["failure"][0]["message"]


def test_a_strategy_that_travels_takes_the_place_of_the_apps_own(app: App, tmp_path: Path) -> None:
    strategy = umbel.fed_avgm(rounds=umbel.rounds(min_nodes=3))

    async def story() -> Any:
        async with app.federation(tmp_path) as (place, _):
            run = await place.submit(replace(app.submission("evaluated"), strategy=strategy))
            await place.ended(run)
            return outcome(place, run)

    on = umbel.Simulation(clients=SITES, engine="inline")
    changed = app.server("evaluated").with_(strategy=strategy)
    check_same(asyncio.run(story()), umbel.run(changed, app.client, on=on, seed=7))


def test_a_main_learns_for_whom_it_has_waited(app: App, tmp_path: Path) -> None:
    row, _, told = done(app, tmp_path, "crowd")
    assert row.status == "failed"
    assert row.reason.startswith("the run has waited 0.01 seconds for 9 nodes; ")
    assert told["output"][0]["text"] == row.reason.partition("\n")[0]
    assert told["end"][0]["code"] == "empty-population"


@pytest.mark.parametrize("name", ["looped", "a strategy"])
def test_who_hears_of_a_round_finds_it(app: App, tmp_path: Path, name: str) -> None:
    strategy = umbel.fed_avg(rounds=umbel.rounds(min_nodes=3))
    asked = app.submission("looped")
    asked = asked if name == "looped" else replace(asked, main="", strategy=strategy)

    async def story() -> Any:
        async with app.federation(tmp_path) as (place, _):
            run = await place.submit(asked)
            assert place.runs is not None
            heard = []
            async for event in place.runs.news.watch(run, 0):
                if event.kind == "round":
                    heard.append(event.content["round"])
                    assert len(rows_of(outcome(place, run))) >= heard[-1]
            assert heard == [1, 2, 3, 4]

    asyncio.run(story())


def test_what_main_asks_behind_its_last_commit_stands_in_the_result(app: App, tmp_path: Path) -> None:
    row, found, _ = done(app, tmp_path, "behind")
    assert (row.status, row.reason) == ("finished", "")
    read = Outcome.read({**found, "state": None, "best": None}, lambda _: umbel.Arrays({}))
    expected = app.simulated("behind")
    assert [str(failure) for failure in read.failures] == [str(failure) for failure in expected.failures]
    assert read.clients == {name: expected.clients[name].metrics for name in ("berlin", "turin")}


@pytest.mark.parametrize("seed", range(3))
def test_a_server_that_ends_meanwhile_goes_on_to_the_same_bits(app: App, tmp_path: Path, seed: int) -> None:
    async def story() -> Any:
        async with app.federation(tmp_path, seed=seed, losses=0.05) as (place, _):
            run = await place.submit(app.submission("looped", seed))
            draw = np.random.default_rng(seed)
            for _ in range(2):
                assert place.runs is not None
                exchanges = int(draw.integers(0, 3))
                async for event in place.runs.news.watch(run, 0):
                    exchanges -= event.kind == "round"
                    if exchanges < 0:
                        break
                await place.stop()
                place.start()
            row = await place.ended(run)
            assert row.status == "finished", row.reason
            return outcome(place, run)

    check_same(asyncio.run(story()), app.simulated("looped", seed))


def test_a_main_that_raises_shows_its_own_lines_first(app: App, tmp_path: Path) -> None:
    row, _, told = done(app, tmp_path, "raises")
    assert row.status == "failed"
    assert row.round == 2
    first, second, third, *_ = row.reason.splitlines()
    assert (first, second) == ("main raised ZeroDivisionError: division by zero", "Traceback (most recent call last):")
    assert third.strip().startswith(f'File "{app.source}')
    assert told["end"][-1]["code"] == "run"


def test_a_mistake_in_asking_names_its_line(app: App, tmp_path: Path) -> None:
    row, _, told = done(app, tmp_path, "asks")
    assert row.status == "failed"
    assert row.reason.startswith("cohort is a str")
    assert any("fed.train(fed.initial, cohort=" in line["text"] for line in told["output"])
    assert told["end"][-1]["code"] == "usage"


def test_a_process_that_dies_fails_its_run_which_can_be_resumed(app: App, tmp_path: Path) -> None:
    async def story() -> Any:
        async with app.federation(tmp_path) as (place, _):
            run = await place.submit(app.submission("segfaults"))
            died = await place.ended(run)
            assert place.runs is not None
            await place.runs.resume(died, 0, "alice")
            return died, await place.ended(run)

    died, again = asyncio.run(story())
    assert died.status == "failed"
    assert "SIGSEGV" in died.reason
    assert "about to die" in died.reason
    assert "umbel resume" in died.reason
    assert died.round == 2
    assert (again.status, again.round) == ("finished", 4)


@pytest.mark.parametrize("name", ["exits", "forks"])
def test_a_process_that_ends_itself(app: App, tmp_path: Path, name: str) -> None:
    row, _, told = done(app, tmp_path, name)
    assert row.status == "failed"
    assert "exit status 7" in row.reason
    assert told["end"][-1]["code"] == "child-died"


@pytest.mark.parametrize(("name", "last"), [("endless", "heard it"), ("asleep", "does not care")])
def test_a_run_that_is_stopped_ends_where_it_stands(app: App, tmp_path: Path, name: str, last: str) -> None:
    async def story() -> Any:
        async with app.federation(tmp_path) as (place, _):
            run = await place.submit(app.submission(name))
            assert place.runs is not None
            async for event in place.runs.news.watch(run, 0):
                if event.kind == ("output" if name == "endless" else "status"):
                    break
            row = await place.runs.stop(place.runs.find(run), "alice")
            return row, [line["text"] for line in events(place, run, "output")]

    row, lines = asyncio.run(story())
    assert (row.status, row.reason) == ("stopped", "stopped by alice")
    if name == "endless":
        assert lines[-1] == last


def test_what_is_printed_is_bounded(app: App, tmp_path: Path) -> None:
    row, _, told = done(app, tmp_path, "floods")
    assert row.status == "finished"
    assert len(told["output"]) == 5001
    assert "more than is kept" in told["output"][-1]["text"]


@pytest.mark.parametrize(
    ("installed", "code", "words"),
    [("nothing", "app-missing", "code that runs at the server"), ("another", "app-differs", "with digest")],
)
def test_what_is_not_installed_is_not_run(app: App, tmp_path: Path, installed: str, code: str, words: str) -> None:
    asked = app.wire
    asked.digest = bytes(32)
    there = Installed() if installed == "nothing" else app.installed

    async def story() -> Any:
        async with federation(tmp_path, app.client, SITES, app=asked, installed=there) as (place, _):
            run = await place.submit(app.submission("looped"))
            return await place.ended(run), events(place, run, "end")

    row, ends = asyncio.run(story())
    assert row.status == "failed"
    assert words in row.reason
    assert ends[-1]["code"] == code
    if installed == "another":
        assert app.wire.digest.hex() in row.reason
        assert bytes(32).hex() in row.reason


def test_a_server_app_of_another_package_is_refused(app: App, tmp_path: Path) -> None:
    async def story() -> Any:
        async with app.federation(tmp_path) as (place, _):
            submission = replace(app.submission("looped"), main="elsewhere:server")
            return await place.ended(await place.submit(submission))

    row = asyncio.run(story())
    assert row.status == "failed"
    assert "not in the package" in row.reason
