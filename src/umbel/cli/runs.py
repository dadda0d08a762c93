"""What is done with runs: ``umbel ls, show, logs, stop, resume, fetch, remove``."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from umbel.cli.reach import Count, Json, On

if TYPE_CHECKING:
    from umbel import wire
    from umbel.remote.line import Line
    from umbel.remote.outcome import Outcome


def ls(*, on: On = "", json: Json = False) -> None:
    """List the runs of a server, the latest first.

    Args:
        on: the server; the default login if it is left out.
        json: print a JSON object a line.
    """
    from umbel.cli.printing import ago, give, line, table
    from umbel.cli.reach import reach
    from umbel.cli.records import run_record

    with reach(on) as server:
        runs = [run_record(run) for run in server.listed("ListRuns", "runs")]
    if json:
        for run in runs:
            give(run)
        return
    if not runs:
        line("There is no run. To submit one: umbel run . --on ADDRESS")
        return
    rows = [
        (r["id"][:8], r["name"], r["owner"], r["status"], _rounds(r), ago(r["submitted"]), _short(r["reason"]))
        for r in runs
    ]
    table(("run", "name", "owner", "status", "rounds", "submitted", "why"), rows, right=("rounds",))


def _rounds(run: dict[str, Any]) -> str:
    return f"{run['round']}/{run['rounds']}" if run["rounds"] else str(run["round"])


def _short(reason: str) -> str:
    first = reason.partition("\n")[0]
    return first if len(first) <= 80 else f"{first[:77]}..."


def show(run: str, *, on: On = "", json: Json = False) -> None:
    """Show a run: how it stands, and its history.

    Args:
        run: its directory, as given to umbel.run(dir=...); or its id, the beginning of it, or its name at a server.
        on: the server; the default login if it is left out.
        json: print one JSON object.
    """
    from umbel import show as directories
    from umbel.cli.printing import give
    from umbel.cli.reach import reach

    name, on = _named(run, on)
    if not name:
        give(directories.look(Path(run)).record()) if json else directories.show_run(Path(run))
        return
    with reach(on) as server:
        _show(*look(server, name), json=json)


def _named(run: str, on: str) -> tuple[str, str]:
    """A run at a server, and which server; "" for a run in a directory here.

    Raises:
        CorruptFile: the directory is that of a run at a server, but does not say of which.
    """
    from umbel.remote.directory import FILE, RunDirectory

    path = Path(run)
    try:
        there, is_directory = (path / FILE).is_file(), path.is_dir()
    except OSError:  # it is too long for a path, or holds what paths do not
        return run, on
    if there:
        content = RunDirectory.open(path).content
        return content["run"] or content["key"], on or content["server"]
    if "/" in run or not run.strip("."):
        return "", on
    return ("", on) if is_directory and not _may_be_a_name(path, on) else (run, on)


def _may_be_a_name(directory: Path, on: str) -> bool:
    """May a run at a server be meant? It is often called like its app, whose directory lies here."""
    from umbel.cli.reach import knows_server

    return not (directory / "run.json").exists() and knows_server(on)


def look(server: Line, run: str) -> tuple[wire.Run, Outcome]:
    """A run at a server, and what it holds but for its models.

    Raises:
        NotThere: there is none, or there are several.
    """
    from umbel.remote.outcome import Outcome

    found, result = server.run(run)
    return found, Outcome.read({**result, "state": None, "best": None}, _no_arrays)


def _no_arrays(digest: str) -> Any:
    raise AssertionError(f"there are no arrays {digest} here")


def _show(run: wire.Run, outcome: Outcome, *, json: bool) -> None:
    from umbel.cli.printing import ago, clock, give, line, number, span, table
    from umbel.cli.records import run_record
    from umbel.engine.history import History

    history, record = History(outcome.rows), run_record(run)
    if json:
        failures = [
            {"client": f.client, "round": f.round, "code": f.code, "message": f.message, "traceback": f.traceback}
            for f in outcome.failures
        ]
        give({**record, "history": [dict(row) for row in history], "failures": failures})
        return
    app = record["app"]
    line(f"{run.id}  {run.name}  by {run.owner}")
    line(f"{run.status}: {run.reason}" if run.reason else run.status)
    line(f"app {app['name']} {app['version']} ({app['digest'][:12]}), {_rounds(record)} rounds")
    took = f", took {span(run.ended - run.started)}" if run.ended and run.started else ""
    line(f"submitted {clock(run.submitted)} ({ago(run.submitted)}){took}")
    if len(history):
        line("")
        rows = [[number(row.get(column)) for column in history.columns] for row in history]
        table(history.columns, rows, right=history.columns)
    if outcome.failures:
        line("")
        for failure in outcome.failures[-10:]:
            line(str(failure))


def logs(
    run: str,
    *,
    follow: Annotated[bool, Parameter(name=["-f", "--follow"])] = False,
    on: On = "",
    json: Json = False,
) -> None:
    """Print what has happened in a run, oldest first.

    Args:
        run: its id, the beginning of it, or its name.
        follow: go on until the run ends; Ctrl-C stops looking, and nothing else.
        on: the server; the default login if it is left out.
        json: print a JSON object a line.
    """
    from umbel.cli.printing import below, clock, give, line
    from umbel.cli.reach import reach
    from umbel.remote.follower import Event, Follower, find_run

    told: dict[Any, Any] = {}  # the last traceback of each client, which people need to see but once

    def heard(event: Event) -> None:
        content = dict(event.content)
        if json:
            give({"number": event.number, "event": event.kind, "time": event.time, **content})
            return
        client, trace = content.get("client"), content.pop("traceback", "")
        if trace and told.get(client) != trace:
            told[client] = content["traceback"] = trace
        if said := event_line(event.kind, content):
            line(f"{clock(event.time)}  {below(said)}")

    name, on = _named(run, on)
    with reach(on) as server:
        follower = Follower(server, find_run(server, name or run).id, heard=heard, quiet=True)
        if follow:
            follower.to_the_end()
        else:
            follower.until_now()


def event_line(kind: str, content: dict[str, Any]) -> str:
    """An event for people; "" for one that says nothing new."""
    from umbel.cli.progress import round_line
    from umbel.codec import decode

    match kind:
        case "status":
            return f"{content['status']}: {content['reason']}" if content.get("reason") else str(content["status"])
        case "round":
            return round_line(decode(content, _no_arrays), None)
        case "exchange":
            return f"round {content['round']} asks {content['cohort']} clients"
        case "failure":
            again = ", and is asked again" if content.get("again") else ""
            where = f" in round {content['round']}" if content.get("round") else ""
            said = f"{content['client']} failed{where}{again}: {content['message']}"
            return f"{said}\n{indent(str(content.get('traceback', '')), '    ')}".rstrip()
        case "output":
            where = f" printed in round {content['round']}" if content.get("round") else ""
            text = str(content.get("text", "")).rstrip()
            below_it = f"\n{indent(text, '    ')}" if "\n" in text else f" {text}".rstrip()
            return f"{content.get('client', '')}{where}:{below_it}"
        case "log":
            return str(content.get("message", ""))
    return ""


def stop(run: str, *, on: On = "", json: Json = False) -> None:
    """Stop a run where it stands; what it has committed is kept.

    Args:
        run: its id, the beginning of it, or its name.
        on: the server; the default login if it is left out.
        json: print the run as one JSON object.
    """
    from umbel import wire

    _act("StopRun", wire.StopRunRequest(run=run), on, json, "is stopped; umbel resume goes on with it")


def resume(run: str, *, rounds: Count = 0, on: On = "", json: Json = False) -> None:
    """Go on with a run that has ended.

    Args:
        run: its id, the beginning of it, or its name.
        rounds: how many in all from now on; as many as before if it is left out.
        on: the server; the default login if it is left out.
        json: print the run as one JSON object.
    """
    from umbel import wire

    _act("ResumeRun", wire.ResumeRunRequest(run=run, rounds=rounds), on, json, "goes on; umbel logs -f follows it")


def _act(call: str, request: Any, on: str, json: bool, said: str) -> None:
    from umbel.cli.printing import give, line
    from umbel.cli.reach import reach
    from umbel.cli.records import run_record

    request.run, on = _named(request.run, on)[0] or request.run, _named(request.run, on)[1]
    with reach(on) as server:
        run = server.call(call, request).run
    give(run_record(run)) if json else line(f"Run {run.id[:8]} {said}")


def remove(run: str, *, on: On = "", json: Json = False) -> None:
    """Remove a run that has ended, with its models and its history.

    Args:
        run: its id, the beginning of it, or its name.
        on: the server; the default login if it is left out.
        json: print one JSON object.
    """
    from umbel import wire
    from umbel.cli.printing import give, line
    from umbel.cli.reach import reach
    from umbel.remote.follower import find_run

    with reach(on) as server:
        id = find_run(server, run).id
        server.call("RemoveRun", wire.RemoveRunRequest(run=id))
    give({"id": id, "removed": True}) if json else line(f"Run {id[:8]} is removed.")


def fetch(run: str, directory: Path, *, on: On = "", json: Json = False) -> None:
    """Get what a run has come to so far: model.safetensors, best.safetensors if it keeps one, history.csv.

    Args:
        run: its id, the beginning of it, or its name.
        directory: where to; it is made if it does not exist.
        on: the server; the default login if it is left out.
        json: print one JSON object.
    """
    from umbel.cli.printing import give, line, note
    from umbel.cli.reach import reach
    from umbel.remote.directory import write_result
    from umbel.remote.outcome import Outcome
    from umbel.store.durable import readable_errors

    with reach(on) as server:
        got, found = server.run(run)
        outcome = Outcome.read(found, lambda digest: server.read(got.id, digest))
    result = outcome.result(status=got.status, seed=0, name=got.name, seconds=0.0)
    with readable_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    files = write_result(directory, result)
    if json:
        give({"id": got.id, "status": got.status, "round": got.round, "files": list(map(str, files))})
        return
    line(f"Run {got.id[:8]}, {got.status} after {len(outcome.rows)} rounds:")
    for file in files:
        line(f"  {file}")
    if result.model is None:
        note(_no_model(got.owner, len(outcome.rows)))


def _no_model(owner: str, rounds: int) -> str:
    """Why the server gave no model."""
    if not rounds:
        return "There is no model yet: no round is done."
    return f"The model is not among them: it is given to {owner!r}, whose run it is, and to operators alone."


__all__ = ["event_line", "fetch", "logs", "look", "ls", "remove", "resume", "show", "stop"]
