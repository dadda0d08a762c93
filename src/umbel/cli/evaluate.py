"""``umbel evaluate``: have clients evaluate a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from umbel.cli.reach import Json
from umbel.cli.run import Labels

if TYPE_CHECKING:
    from umbel.api import Evaluation


def evaluate(
    model: Path,
    app: str = ".",
    *,
    on: str | None = None,
    seed: int | None = None,
    nodes: str | None = None,
    label: Labels = None,
    dataset: str | None = None,
    ship: bool = False,
    simulation_clients: str | None = None,
    json: Json = False,
) -> int:
    """Have clients evaluate a model: on a server, or, if nothing says which, in a simulation here.

    The exit status is 1 if all of them fail.

    Args:
        model: a .safetensors file.
        app: its directory, its wheel, or the name of an installed one.
        on: the server: the name of a login or an address; or "simulation".
        seed: of all randomness.
        nodes: which nodes may be asked: berlin,paris.
        label: a label that nodes must have: country=de; may be given more than once.
        dataset: which of the nodes' data sets.
        ship: send the app along, which is a wheel, with its signatures, to nodes whose owners let code come.
        simulation_clients: how many clients are simulated, or their names.
        json: print one JSON object.
    """
    import tempfile

    from umbel.api import evaluate as evaluate_there
    from umbel.apps.load import load_client
    from umbel.apps.project import Project
    from umbel.cli.run import SIMULATION, nobody_to_send_to, remote_of, settings_of, simulation_of

    project = Project.find(app)
    flags = {
        "on": on,
        "seed": seed,
        "nodes": nodes,
        "labels": ",".join(label) if label else None,
        "dataset": dataset,
        "simulation.clients": simulation_clients,
    }
    settings = settings_of(project, flags)
    if ship and settings["on"] == SIMULATION:
        raise nobody_to_send_to()
    place = simulation_of(settings) if settings["on"] == SIMULATION else remote_of(settings, app if ship else None)
    with tempfile.TemporaryDirectory(prefix="umbel-app-") as unpacked:
        ready = project.unpacked(Path(unpacked))
        client = load_client(ready.object("client"), path=ready.source)
        found = evaluate_there(model, client, on=place, seed=settings["seed"] or 0)
    return _tell(found, json=json)


def _tell(found: Evaluation, *, json: bool) -> int:
    """Say what each client found; gives the exit status."""
    from umbel.cli.printing import give, line, number, table

    if json:
        failures = [str(failure) for failure in found.failures]
        give({"metrics": found.metrics, "clients": found.clients, "failures": failures})
        return _status(found)
    columns = list(dict.fromkeys((*found.metrics, *(name for own in found.clients.values() for name in own))))
    rows = [(name, *(number(own.get(column)) for column in columns)) for name, own in found.clients.items()]
    everyone = ("all", *(number(found.metrics.get(column)) for column in columns))
    table(("client", *columns), [*rows, everyone], right=columns)
    for failure in found.failures:
        line(str(failure))
    return _status(found)


def _status(found: Evaluation) -> int:
    """1 if all have failed."""
    return 1 if found.failures and not found.clients else 0


__all__ = ["evaluate"]
