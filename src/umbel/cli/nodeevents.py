"""What a node says, in lines for people or as JSON."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, final

from umbel import wire
from umbel.cli.joined import Joined
from umbel.cli.lines import say
from umbel.cli.printing import clock, number, span
from umbel.node.check import Checked
from umbel.node.installed import InstalledApp
from umbel.node.observer import Observer
from umbel.node.reading import in_words

CLOCK = 300.0  # seconds that two clocks may differ before somebody is told
_TWICE = 60.0  # seconds after which the same trouble is told again


@final
class NodeLines(Observer):
    """Says what a node does.

    Args:
        json: as JSON.
    """

    def __init__(self, *, json: bool) -> None:
        self._json = json
        self._away, self._told = "", 0.0

    def _say(self, text: str, level: str = "info", **fields: Any) -> None:
        with suppress(OSError, ValueError):  # nobody reads any more; the node works on
            say(text, json=self._json, level=level, **fields)

    def starts(self, member: Joined, apps: Sequence[InstalledApp], directory: Path) -> None:
        """The node begins."""
        names = ", ".join(str(app.app) for app in apps) or "no app but what comes from the server"
        self._say(f"node-starts: {member.name}, with {names}; its files are in {directory}", name=member.name)

    def has_labels(self, member: Joined, labels: Mapping[str, str]) -> None:
        """The owner names other labels than the node has joined with."""
        wanted = " ".join(f"{name}={value}" for name, value in sorted(labels.items()))
        self._say(
            f"labels-not-sent: labels are told when a node joins; later the operator changes them: umbel nodes label "
            f"{member.name} {wanted}".rstrip(),
            "warning",
        )

    def ends(self) -> None:
        """The node was asked to end."""
        self._say("node-ends: what is finished is kept, and delivered after the next start")

    def joined(self, member: Joined, fingerprint: str) -> None:
        """The node has become one of the federation."""
        self._say(f"node-joined: {member.name} has joined {member.server}; its key is {fingerprint[:16]}")

    def connected(self, opened: wire.OpenSessionResponse) -> None:
        """A session is open."""
        self._away = ""
        self._say(f"connected: to the server, {opened.program}")
        off = time.time() - opened.time if opened.time else 0.0
        if abs(off) > CLOCK:
            self._say(
                f"clock-off: the clock of this machine is {span(abs(off))} {'ahead of' if off > 0 else 'behind'} that "
                "of the server; set the one that is wrong, for example with NTP",
                "warning",
            )

    def disconnected(self, reason: str, wait: float) -> None:
        """The connection is gone."""
        now = time.monotonic()
        if reason == self._away and now - self._told < _TWICE:
            return
        self._away, self._told = reason, now
        self._say(f"disconnected: tried again in {wait:.1f} s: {reason}", "warning")

    def began(self, task: wire.Task) -> None:
        """Work on a task begins."""
        self._say(f"task-begins: {_task(task)}", **_fields(task))

    def finished(self, task: wire.Task, report: wire.ReportRequest) -> None:
        """A task is done, failed or was refused."""
        if report.WhichOneof("outcome") == "failure":
            failure = report.failure
            word = "task-refused" if failure.code == "refused" else "task-failed"
            more = _fields(task) | ({"traceback": failure.traceback} if failure.traceback else {})
            self._say(f"{word}: {_task(task)}: {failure.message}", "warning", code=failure.code, **more)
            if failure.traceback and not self._json:
                for text in failure.traceback.rstrip().splitlines():
                    self._say(f"    {text}")
        else:
            self._say(f"task-done: {_task(task)} in {report.seconds:.2f} s", seconds=report.seconds, **_fields(task))

    def delivered(self, id: wire.TaskId, verdict: str) -> None:  # the field's word
        """The server has an answer."""
        if verdict != "accepted":
            self._say(f"answer-{verdict}: exchange {id.exchange} of run {id.run[:8]}")

    def revoked(self, id: wire.TaskId, reason: str) -> None:  # the field's word
        """The server wants a task no more."""
        self._say(f"task-revoked: exchange {id.exchange} of run {id.run[:8]}: {reason}")


def _task(task: wire.Task) -> str:
    what = task.name if task.kind == "query" else task.kind
    return f"{what} in round {task.round} of {task.run_name!r} by {task.submitter}"


def _fields(task: wire.Task) -> dict[str, Any]:
    return {"run": task.id.run, "round": task.round, "kind": task.kind, "submitter": task.submitter}


def journal_line(entry: Mapping[str, Any]) -> str:
    """A line of the owner's journal, for people."""
    rest = {name: value for name, value in entry.items() if name not in ("number", "time", "event")}
    said = "  ".join(f"{name}={_short(value)}" for name, value in rest.items() if value not in ("", [], {}, None))
    return f"{entry['number']:>6}  {clock(float(entry.get('time', 0.0)))}  {entry['event']:<9}  {said}".rstrip()


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_short, value))
    if isinstance(value, dict):
        return ",".join(f"{name}:{_short(inner)}" for name, inner in value.items())
    text = " ".join(str(value).split())
    return text[:12] if len(text) in (32, 64) and all(c in "0123456789abcdef" for c in text) else text


def checked_lines(found: Checked) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a check has found: a line for people, and a record, of the app and of each task."""
    app = found.app
    digest = app.digest.hex()
    yield (
        f"{app.name} {app.version}".rstrip()
        + f", digest {digest}, loaded in {found.seconds:.1f} s; data {found.dataset}",
        {"app": app.name, "version": app.version, "digest": digest, "dataset": found.dataset, "seconds": found.seconds},
    )
    for step in found.steps:
        record = {name: getattr(step, name) for name in type(step).__slots__}
        if step.code:
            yield f"{step.kind} failed: {step.message}\n{step.traceback}{step.output}".rstrip(), record
            continue
        metrics = "  ".join(f"{name} {number(value)}" for name, value in step.metrics.items())
        memory = f", {in_words(step.memory)} of memory" if step.memory else ""
        yield (
            f"{step.kind} took {step.seconds:.2f} s{memory}; weight {step.weight:g}; {in_words(step.size)} would leave "
            f"the node; {metrics}",
            record,
        )


__all__ = ["CLOCK", "NodeLines", "checked_lines", "journal_line"]
