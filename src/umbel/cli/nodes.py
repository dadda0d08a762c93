"""``umbel nodes``: who is enrolled."""

from __future__ import annotations

from typing import Any

from cyclopts import App

from umbel.cli.reach import Json, On

nodes_app = App(name="nodes", help="See, label, rename and revoke nodes.")


@nodes_app.command
def ls(*, on: On = "", json: Json = False) -> None:
    """List the nodes: who is there, with which apps and data sets.

    Args:
        on: the server; the default login if it is left out.
        json: print a JSON object a line.
    """
    from umbel.cli.printing import ago, give, line, table
    from umbel.cli.reach import reach
    from umbel.cli.records import node_record

    with reach(on) as server:
        nodes = [node_record(node) for node in server.listed("ListNodes", "nodes")]
    if json:
        for node in nodes:
            give(node)
    elif nodes:
        columns = ("node", "status", "seen", "apps", "data sets", "labels", "notes")
        table(columns, [_row(node, ago) for node in nodes])
    else:
        line("No node is enrolled. `umbel ticket create` makes a ticket; a node joins with it: umbel node ADDRESS.")


def _row(node: dict[str, Any], ago: Any) -> tuple[str, ...]:
    apps = ", ".join(f"{app['name']} {app['version']}".rstrip() + f" ({app['digest'][:8]})" for app in node["apps"])
    labels = ", ".join(f"{name}={value}" for name, value in node["labels"].items())
    notes = [f"{node['tasks']} tasks"] if node["tasks"] else []
    if node["status"] == "connected" and abs(node["clock"]) > 300:
        notes.append(f"its clock is off by {node['clock']:+.0f} s")
    seen = "" if node["status"] == "connected" else ago(node["seen"]) or "never"
    return node["name"], node["status"], seen, apps, ", ".join(node["datasets"]), labels, "; ".join(notes)


@nodes_app.command
def label(node: str, *labels: str, on: On = "", json: Json = False) -> None:
    """Set the labels of a node; they replace those that the server knew.

    Args:
        node: its name.
        labels: each as NAME=VALUE; none removes all.
        on: the server; the default login if it is left out.
        json: print the node as one JSON object.
    """
    from umbel import wire
    from umbel.cli.run import labels_of

    pairs = [wire.Label(name=name, value=value) for name, value in labels_of(labels).items()]
    has = ", ".join(f"{pair.name}={pair.value}" for pair in pairs)
    said = f"{node} has these labels: {has}" if has else f"{node} has no labels any more"
    _change(wire.ChangeNodeRequest(node=node, labels=wire.Labels(labels=pairs)), on, json, said)


@nodes_app.command
def rename(node: str, name: str, *, on: On = "", json: Json = False) -> None:
    """Give a node another name; start it with that name, and with the directory that it has, from now on.

    Args:
        node: its name.
        name: the new one.
        on: the server; the default login if it is left out.
        json: print the node as one JSON object.
    """
    from umbel import wire

    said = f"{node} is {name} now. To start it: umbel node --name {name} --dir DIRECTORY, the one that it has"
    _change(wire.ChangeNodeRequest(node=node, rename=name), on, json, said)


@nodes_app.command
def revoke(node: str, *, undo: bool = False, on: On = "", json: Json = False) -> None:
    """Shut a node out: it stops what it does, and cannot come back.

    Args:
        node: its name.
        undo: let it in again.
        on: the server; the default login if it is left out.
        json: print the node as one JSON object.
    """
    from umbel import wire

    said = f"{node} may come back" if undo else f"{node} is revoked"
    _change(wire.ChangeNodeRequest(node=node, revoked=not undo), on, json, said)


def _change(request: Any, on: str, json: bool, said: str) -> None:
    from umbel.cli.printing import give, line
    from umbel.cli.reach import reach
    from umbel.cli.records import node_record

    with reach(on) as server:
        changed = server.call("ChangeNode", request).node
    if json:
        give(node_record(changed))
    else:
        line(said)


__all__ = ["nodes_app"]
