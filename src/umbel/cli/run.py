"""``umbel run``: run an app, in a simulation or on a server."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from umbel.cli.reach import Json

if TYPE_CHECKING:
    from umbel.apps.project import Project
    from umbel.apps.settings import Settings
    from umbel.errors import UsageError
    from umbel.remote.remote import Remote
    from umbel.result import Result

Labels = Annotated[list[str] | None, Parameter(name=["--label", "--labels"])]
SIMULATION = "simulation"
_OF_A_SERVER = ("nodes", "labels", "dataset")
_OF_A_SIMULATION = ("simulation.clients", "simulation.engine", "simulation.workers")


def run(
    app: str = ".",
    *,
    on: str | None = None,
    seed: int | None = None,
    rounds: int | None = None,
    name: str | None = None,
    dir: Path | None = None,
    detach: bool = False,
    nodes: str | None = None,
    label: Labels = None,
    dataset: str | None = None,
    initial: Path | None = None,
    ship: bool = False,
    simulation_clients: str | None = None,
    simulation_engine: str | None = None,
    simulation_workers: int | None = None,
    simulation_threads: int | None = None,
    json: Json = False,
) -> int:
    """Run an app: on a server, or, if nothing says which, in a simulation here. Ctrl-C leaves a server's run alone.

    Args:
        app: its directory, its wheel, or the name of an installed one.
        on: the server: the name of a login or an address; or "simulation".
        seed: of all randomness; drawn, and shown, if it is left out.
        rounds: how many; as many as the app says if it is left out.
        name: of the run, for people.
        dir: a directory that makes a simulation durable; of a run on a server it gets the model and the history.
        detach: submit the run, print its id, and leave.
        nodes: which nodes may be asked: berlin,paris.
        label: a label that nodes must have: country=de; may be given more than once.
        dataset: which of the nodes' data sets.
        initial: a .safetensors file with the model to start from.
        ship: send the app along, which is a wheel, with its signatures, to nodes whose owners let code come.
        simulation_clients: how many clients are simulated, or their names.
        simulation_engine: how: auto, inline or processes.
        simulation_workers: how many processes simulate.
        simulation_threads: how many threads each handler may compute with, here and at nodes.
        json: print a JSON object for each round, and a last one for the result.
    """
    from umbel.apps.project import Project

    project = Project.find(app)
    flags = {
        "on": on,
        "seed": seed,
        "rounds": rounds,
        "name": name,
        "dir": str(dir) if dir is not None else None,
        "nodes": nodes,
        "labels": ",".join(label) if label else None,
        "dataset": dataset,
        "simulation.clients": simulation_clients,
        "simulation.engine": simulation_engine,
        "simulation.workers": simulation_workers,
        "simulation.threads": simulation_threads,
    }
    settings = settings_of(project, flags)
    return _run(project, settings, initial, app if ship else None, json=json, detach=detach)


def _run(
    project: Project, settings: Settings, initial: Path | None, ship: str | None, *, json: bool, detach: bool
) -> int:
    """Run a project where its settings say; a wheel is unpacked for the moment."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="umbel-app-") as place:
        ready = project.unpacked(Path(place))
        if settings["on"] != SIMULATION:
            return _submit(ready, settings, initial, ship, json=json, detach=detach)
        if ship is not None:
            raise nobody_to_send_to()
        return _simulate(ready, settings, initial, json=json, detach=detach)


def nobody_to_send_to() -> UsageError:
    """An app was to be sent along with a simulation."""
    from umbel.errors import UsageError

    return UsageError("a simulation runs here: there is nobody to send the app to", advice="leave out --ship")


def settings_of(project: Project, flags: Mapping[str, Any]) -> Settings:
    """The settings of a project's runs, from all places that may say something of them.

    Raises:
        UsageError: one makes no sense, or a flag would do nothing.
    """
    from umbel.apps.settings import resolve
    from umbel.cli.printing import note

    variables = {name: value for name, value in os.environ.items() if name not in _SIDES}
    settings = resolve(project.table, variables, flags, file=project.file or "pyproject.toml")
    for text in settings.notes:
        note(f"umbel: {text}")
    for name in sorted(_SIDES.keys() & os.environ.keys()):
        note(f"umbel: {name} in the environment does nothing: what its sides are the app alone says")
    _check_flags(settings, flags)
    return _with_sides(settings, project)


_SIDES = {"UMBEL_CLIENT": "client", "UMBEL_SERVER": "server"}
"""Variables that are called like settings which the app alone says: nodes go by what is in it."""


def _with_sides(settings: Settings, project: Project) -> Settings:
    """The settings with both sides as the app says them: in its entry points, or in its table."""
    from umbel.apps.settings import Chosen, Settings

    points = project.file or (str(project.wheel.path) if project.wheel is not None else f"the installed {project.name}")
    said = {
        side: Chosen(getattr(project, side), f"the entry points of {points}")
        for side in _SIDES.values()
        if side not in project.table and getattr(project, side)
    }
    return Settings({**settings.chosen, **said}, settings.notes)


def _check_flags(settings: Settings, flags: Mapping[str, Any]) -> None:
    """Refuse a flag that would do nothing where the settings say; in a file it may wait for its day.

    Raises:
        UsageError: there is one.
    """
    from umbel.errors import UsageError

    simulated = settings["on"] == SIMULATION
    what, instead = (
        ("chooses among a server's nodes, and a simulation runs this", "give --on and a server")
        if simulated
        else ("is about a simulation, and a server runs this", "give --on simulation")
    )
    for name in _OF_A_SERVER if simulated else _OF_A_SIMULATION:
        if flags.get(name) is not None:
            flag = settings.chosen[name].source
            raise UsageError(f"{flag} {what}", advice=f"leave it out, or {instead}")


def labels_of(labels: Sequence[str]) -> dict[str, str]:
    """Labels from texts, each NAME=VALUE.

    Raises:
        UsageError: one is not.
    """
    from umbel.errors import UsageError

    pairs = [label.partition("=") for label in labels]
    for text, (name, equals, value) in zip(labels, pairs, strict=True):
        if not (name and equals and value):
            raise UsageError(f"{text!r} is no label", advice="write NAME=VALUE, as in country=de")
    return {name: value for name, _, value in pairs}


def remote_of(settings: Settings, ship: str | None = None) -> Remote:
    """The server of these settings, and which of its nodes; with a wheel that travels with its runs, if one does."""
    from umbel.remote.remote import connect

    return connect(
        settings["on"],
        nodes=settings["nodes"],
        labels=settings["labels"],
        dataset=settings["dataset"] or "",
        threads=settings["simulation.threads"],
        ship=ship,
    )


def simulation_of(settings: Settings) -> Any:
    """The simulation of these settings.

    Raises:
        UsageError: nothing says who is simulated.
    """
    from umbel.errors import UsageError
    from umbel.simulation.simulation import Simulation

    clients = settings["simulation.sites"] or settings["simulation.clients"]
    if clients is None:
        raise UsageError(
            "nothing says how many clients are simulated",
            advice="write clients = 10 in [tool.umbel.simulation] of pyproject.toml, or give --simulation-clients 10; "
            "or run on a server: --on ADDRESS",
        )
    return Simulation(
        clients if not isinstance(clients, tuple) else list(clients),
        engine=settings["simulation.engine"],
        workers=settings["simulation.workers"] or "auto",
        threads=settings["simulation.threads"],
    )


def _simulate(project: Project, settings: Settings, initial: Path | None, *, json: bool, detach: bool) -> int:
    from umbel.api import run as run_here
    from umbel.apps.load import load_client, load_server
    from umbel.cli.progress import RoundLines
    from umbel.errors import UsageError

    if detach:
        raise UsageError("a simulation ends with its program", advice="leave out --detach, or give --on")
    place = simulation_of(settings)
    lines = RoundLines(json=json, rounds=settings["rounds"])
    result = run_here(
        load_server(project.object("server"), path=project.source),
        load_client(project.object("client"), path=project.source),
        on=place,
        seed=settings["seed"],
        dir=settings["dir"],
        rounds=settings["rounds"],
        initial=initial,
        callbacks=[lines.after_round] if lines.wanted else [],
        name=settings["name"] or project.package,
    )
    _tell(result, json=json)
    return 0


def _submit(
    project: Project, settings: Settings, initial: Path | None, ship: str | None, *, json: bool, detach: bool
) -> int:
    from umbel.apps.describe import describe
    from umbel.apps.load import load_client, load_server
    from umbel.cli.printing import give, line, note
    from umbel.cli.progress import RoundLines
    from umbel.cli.records import run_record
    from umbel.progress import display

    server = load_server(project.object("server"), path=project.source)
    client = load_client(project.object("client"), path=project.source)
    remote = remote_of(settings, ship)
    lines = RoundLines(json=json, rounds=settings["rounds"] or server.rounds)
    with remote.line() as reached:
        session = remote.session(
            reached,
            server,
            client,
            seed=settings["seed"],
            dir=settings["dir"],
            rounds=settings["rounds"],
            initial=initial,
            name=settings["name"],
            app=describe(project, handlers=sorted(client.names())),
            heard=lines.heard if lines.wanted else lambda _: None,
        )
        submitted = session.submit()
        if json:
            give({"event": "submitted", "run": run_record(submitted)})
        if detach:
            if not json:
                line(submitted.id)
                short = submitted.id[:8]
                note(f"To follow it: umbel logs -f {short}. To get what it has come to: umbel fetch {short} DIRECTORY.")
            return 0
        if not json:
            note(f"Run {submitted.id[:8]}, {submitted.name!r}, at {remote.address.without_secret()}")
        shown = display(submitted.name, submitted.rounds or None)
        result = session.follow(shown)
        _tell(result, json=json, run=submitted.id)
        return 1 if result.status.startswith("stopped by ") else 0  # by somebody else, which scripts must not overlook


def _tell(result: Result, *, json: bool, run: str = "") -> None:
    """Say what a run has come to."""
    from umbel.cli.printing import give, line, number
    from umbel.engine.history import COUNTS

    last = dict(result.history[-1]) if len(result.history) else {}
    metrics = {name: value for name, value in last.items() if name not in COUNTS}
    if json:
        give(
            {
                "event": "result",
                "run": run or None,
                "name": result.name,
                "status": result.status,
                "rounds": len(result.history),
                "seed": result.seed,
                "metrics": metrics,
                "failures": len(result.failures),
                "seconds": result.timing["total"],
                "dir": str(result.dir) if result.dir is not None else None,
                "model": result.model.digest() if result.model is not None else None,
            }
        )
        return
    shown = "  ".join(f"{name} {number(value)}" for name, value in metrics.items())
    failed = f", {len(result.failures)} failures" if result.failures else ""
    line(f"{result.status} after {len(result.history)} rounds, seed {result.seed}{failed}  {shown}".rstrip())
    if result.dir is not None:
        line(f"The model is {result.dir / 'model.safetensors'}")
    elif run:
        line(f"To get the model: umbel fetch {run[:8]} DIRECTORY")
    elif sys.stdout.isatty():
        line("To keep the model, give --dir DIRECTORY.")


__all__ = ["Labels", "labels_of", "nobody_to_send_to", "remote_of", "run", "settings_of", "simulation_of"]
