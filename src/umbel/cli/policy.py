"""``umbel policy``: what a node permits, and why it would refuse a run."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umbel.cli.node import Apps
from umbel.cli.printing import span
from umbel.cli.reach import Json, On

if TYPE_CHECKING:
    from umbel import wire
    from umbel.node.config import NodeConfig, Policy
    from umbel.node.policy import Refusal


def policy(
    run: str = "",
    *,
    config: Path | None = None,
    app: Apps = None,
    name: str = "",
    on: On = "",
    json: Json = False,
) -> int:
    """Show what a node.toml permits; with a run, whether the node would do it, and if not, why.

    The exit status is 1 if the run would be refused.

    Args:
        run: at the server: its id, the beginning of it, or its name.
        config: the node.toml; what holds without one if it is left out.
        app: an app that the node has; needed to judge a run; may be given more than once.
        name: of the node.
        on: the server that has the run; the default login if it is left out.
        json: print one JSON object.
    """
    from umbel.cli.node import node_config
    from umbel.cli.printing import give, line, table
    from umbel.cli.reach import reach
    from umbel.remote.follower import find_run

    settings = node_config(config, name=name)
    shown = rows_of(settings)
    if not run:
        give({row[0]: row[1] for row in shown}) if json else table(("what", "permitted"), shown)
        return 0
    with reach(on) as server:
        asked = find_run(server, run)
    refusals = judged(asked, settings, app or [])
    if json:
        found = [{"kind": kind, "code": refusal.code, "message": refusal.message} for kind, refusal in refusals]
        give({"run": asked.id, "permitted": not refusals, "refusals": found})
    elif not refusals:
        line(f"Run {asked.id[:8]}, {asked.name!r} by {asked.owner}, would be done here.")
    else:
        for kind, refusal in refusals:
            line(f"{kind}: refused, with the code {refusal.code}: {refusal}")
    return 1 if refusals else 0


def rows_of(settings: NodeConfig) -> list[tuple[str, str]]:
    """What is permitted, as rows of a table."""
    from umbel.apps.signature import show_key
    from umbel.node.config import Limits

    made = settings.policy
    rows = [
        ("apps", "all that the node is started with" if made.apps is None else ", ".join(made.apps)),
        ("signers", ", ".join(map(show_key, made.signers)) or "nobody in particular"),
        ("submitters", _names(made.submitters)),
        ("kinds", ", ".join(made.kinds)),
        ("max_model_bytes", _bytes(made.max_model_bytes)),
        ("max_update_bytes", _bytes(made.max_update_bytes)),
        ("code_from_server", _coming(made)),
        ("output", "the end of it may be seen by the server" if made.output else "stays here"),
    ]
    rows += [
        (f"data {data.name}", f"for {_names(data.allow)}, in runs called {_names(data.runs, 'anything')}")
        for data in settings.data.values()
    ]
    return rows + [(f"limit {f.name}", _limit(f.name, getattr(settings.limits, f.name))) for f in fields(Limits)]


def _limit(name: str, value: float) -> str:
    """A limit in the unit that it has."""
    if name == "warm":
        return f"{value} processes"
    if not value:
        return "none"
    return _bytes(int(value)) if name in ("max_memory", "cache", "journal") else span(value)


def _coming(policy: Policy) -> str:
    if not policy.code_from_server:
        return "no: only what the node is started with runs"
    return "wheels that one of the signers has signed, and those whose digest is among the apps"


def _names(names: Any, everything: str = "anyone") -> str:
    return everything if "*" in names else ", ".join(names) or "nobody"


def _bytes(count: int) -> str:
    from umbel.node.reading import in_words

    return in_words(count)


def judged(run: wire.Run, settings: NodeConfig, apps: list[str]) -> list[tuple[str, Refusal]]:
    """Why a node with these settings would refuse a run, for each kind of task that it would refuse.

    Args:
        run: as the server knows it.
        settings: what the owner says.
        apps: that the node has.
    """
    import tempfile

    from umbel import wire
    from umbel.cli.node import installed
    from umbel.node.policy import judge, pick_dataset

    with tempfile.TemporaryDirectory(prefix="umbel-policy-") as place:
        mine = {own.app.name: own.app for own in installed(apps, Path(place))} if apps else {}
    found = []
    dataset = pick_dataset(run.dataset, settings.data)
    for kind in ("train", "evaluate"):
        task = wire.Task(kind=kind, name=kind, run_name=run.name, submitter=run.owner, app=run.app, dataset=run.dataset)
        refusal = judge(task, mine.get(run.app.name), dataset, settings.policy, node=settings.name)
        if refusal is not None:
            found.append((kind, refusal))
    return found


__all__ = ["judged", "policy", "rows_of"]
