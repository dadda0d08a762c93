"""A server's store in a process that is killed again and again; run by test_server_store_killed.py.

python storing.py SPEC    SPEC is JSON: {"url": ..., "directory": ..., "seed": 1, "lives": 10, "rounds": 4}

Each life does so many rounds of a run, writes down what was acknowledged, and is killed with SIGKILL: when the k-th
line of the store's code, or of one function of it, is about to run, or from outside after some milliseconds. Then what
is there is compared with what was acknowledged. The last life ends by itself. Processes are forks of this one, so that
a start costs milliseconds.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import FrameType
from typing import Any

from umbel.digest import digest_of
from umbel.store.sql import AnswerRow, Kept, NodeRow, OpenExchange, RunRow, ServerStore, TicketRow
from umbel.store.sql import store as loaded  # before the first fork

RUN = "a" * 32
CLIENTS = ("berlin", "lyon", "oslo", "rome")
NEVER = 1e12
FUNCTIONS = (
    *("open_exchange", "accept", "add_record", "add_commit", "_close", "forget_round", "enrol", "add_event"),
    *("name", "settle", "named", "sweep", "forget", "_take", "finish", "keep_bytes", "replace_file", "prepare"),
    *("_write", "_committed", "_all"),
)
SOURCES = str(Path(loaded.__file__).parents[1])  # umbel/store


class Life:
    """One process: goes on with the run where the one before was killed."""

    def __init__(self, store: ServerStore, acknowledged: int, number: int, rounds: int) -> None:
        self.store, self._file, self.number, self._rounds = store, acknowledged, number, rounds
        self._count = 0

    def note(self, *what: Any) -> None:
        """Write down that this was acknowledged."""
        os.write(self._file, (json.dumps(what) + "\n").encode())

    def all_of(self, futures: dict[str, Future[Any]], kind: str, *more: Any) -> None:
        for name, future in futures.items():
            result = future.result()
            if kind != "answer" or result == "accepted":
                self.note(kind, name, *more)

    def live(self) -> None:
        self.store.keep_ticket(TicketRow(id="t", secret=b"t", uses=10_000, expires=NEVER), "anna").result()
        self.store.submit(RunRow(id=RUN, key="k", name="run", owner="anna")).result()
        self.note("run", RUN)
        commits, records = self.store.saved(RUN)
        for number in range(len(commits) + 1, len(commits) + self._rounds + 1):
            if not any(record.sequence == number for record in records):
                self.exchange(number)
            self.commit(number)
            if number % 2 == 0:
                self.store.sweep(0.0).result()

    def exchange(self, number: int) -> None:
        sent = self.store.blobs.keep_bytes(content(number, "model"), sync=False)
        opened = OpenExchange(sequence=number, digest=f"d{number}", opened=1.0)
        self.store.open_exchange(RUN, opened, [sent]).result()
        there = {row.client for row in self.store.answers(RUN, number)}
        futures: dict[str, Future[Any]] = {}
        for client in CLIENTS:
            if client not in there:
                kept = [self.upload(content(number, client))]
                row = AnswerRow(client=client, kind="update", blobs=(kept[0].digest,), state=True)
                futures[client] = self.store.accept(RUN, number, row, kept)
        self.events(number)
        self.all_of(futures, "answer", number)
        self.enrol(number)
        self.record(number)

    def upload(self, data: bytes) -> Kept:
        digest = digest_of(data).hex()
        size = self.store.blobs.find(digest)
        if size is not None:
            return Kept(digest, size, data if size <= 1 << 16 else None)
        incoming = self.store.blobs.incoming(digest, len(data), "lyon")
        while incoming.received < len(data):
            incoming.write(data[incoming.received : incoming.received + 40_000])
        return incoming.finish()

    def events(self, number: int) -> None:
        names = [f"{self.number}/{number}/{n}" for n in range(3)]
        self.all_of({name: self.store.event(RUN, "log", {"name": name}) for name in names}, "event")

    def enrol(self, number: int) -> None:
        names = [f"n{number}-{n}" for n in range(2)]
        nodes = {name: NodeRow(name=name, public_key=hashlib.sha256(name.encode()).digest()) for name in names}
        self.all_of({name: self.store.enrol(b"t", node) for name, node in nodes.items()}, "node")

    def record(self, number: int) -> None:
        clients = sorted(row.client for row in self.store.answers(RUN, number))
        kept = [self.store.blobs.keep_bytes(content(number, "mean"))]
        text = json.dumps(clients)
        self.store.record(RUN, text, round=number, call=1, sequence=number, states=clients, blobs=kept).result()
        self.note("record", number)

    def commit(self, number: int) -> None:
        _, records = self.store.saved(RUN)
        kept = [self.store.blobs.keep_bytes(content(number + 1, "model"))]
        text = records[-1].content
        self.store.commit(
            RUN, text, round=number, sequence=number, state=json.dumps(kept[0].digest), blobs={"commit": kept}
        ).result()
        self.note("commit", number)


def content(number: int, name: str) -> bytes:
    """Bytes of a blob; every other is large."""
    size = 30_000 if (number + len(name)) % 2 else 90_000
    return (f"{number} {name} " * size)[:size].encode()


def check(store: ServerStore, noted: list[list[Any]]) -> None:
    """All that was acknowledged is there, once; and what is named is whole."""
    said: dict[str, set[Any]] = {}
    for kind, *what in noted:
        said.setdefault(kind, set()).add(tuple(what) if len(what) > 1 else what[0])
    events = Counter(event.content["name"] for event in store.events(RUN)) if "run" in said else Counter()
    assert set(events.values()) <= {1}, events
    assert said.get("event", set()) <= set(events)
    nodes = {node.name for node in store.nodes()}
    assert said.get("node", set()) <= nodes
    assert sum(ticket.used for ticket in store.tickets()) == len(nodes)
    audited = Counter(row.target for row in store.audited() if row.action == "node-enrolled")
    assert audited == Counter(nodes), audited
    if "run" in said:
        assert [run.id for run in store.runs()] == [RUN]
        check_run(store, said)


def check_run(store: ServerStore, said: dict[str, set[Any]]) -> None:
    commits, records = store.saved(RUN)
    assert [c.round for c in commits] == list(range(1, len(commits) + 1))
    assert said.get("commit", set()) <= {c.round for c in commits}
    assert said.get("record", set()) <= {c.round for c in commits} | {r.sequence for r in records}
    counted = {c.round: json.loads(c.content) for c in commits} | {r.sequence: json.loads(r.content) for r in records}
    opened = next(iter(store.unclosed(RUN)), None)
    if opened is not None:
        rows = store.answers(RUN, opened.sequence)
        counted.setdefault(opened.sequence, [row.client for row in rows])
        for row in rows:
            check_blob(store, row.blobs[0], content(opened.sequence, row.client))
    for client, number in said.get("answer", set()):
        assert counted[number].count(client) == 1, (client, number, counted)
    for commit in commits[-2:]:
        assert commit.state is not None
        check_blob(store, json.loads(commit.state), content(commit.round + 1, "model"))
    closed = max([c.round for c in commits] + [r.sequence for r in records], default=0)
    expected = dict.fromkeys(CLIENTS, closed) if closed else {}
    assert dict(store.states(RUN)) == expected


def check_blob(store: ServerStore, digest: str, expected: bytes) -> None:
    found = store.blobs.read(digest)
    assert found is not None, digest
    assert (found.read_bytes() if isinstance(found, Path) else found) == expected


def kill_at(line: int, function: str) -> None:
    """Die when the k-th line of the store's code, or of this function, is about to run, in any thread."""
    left = [line]

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        if not code.co_filename.startswith(SOURCES) or function not in ("", code.co_name):
            return None
        if event == "line":
            left[0] -= 1
            if left[0] <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    threading.settrace(trace)
    sys.settrace(trace)


def death(rng: random.Random) -> tuple[int, str, float]:
    """In which line, of which function, or after how many seconds."""
    kind = rng.random()
    if kind < 0.25:
        return int(10 ** rng.uniform(1.5, 3.8)), "", 0.0
    if kind < 0.85:
        return int(10 ** rng.uniform(0, 2.2)), rng.choice(FUNCTIONS), 0.0
    return 0, "", rng.uniform(0.01, 0.3)


def forked(work: Callable[[], None], kill_after: float = 0.0) -> int:
    """Do it in a process of its own; gives how that ended."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:  # noqa: BLE001  # the process ends here
            traceback.print_exc()
        finally:
            os._exit(code)
    if kill_after:
        time.sleep(kill_after)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(spec: dict[str, Any]) -> None:
    directory, rng = Path(spec["directory"]), random.Random(spec["seed"])
    path = directory.with_name(directory.name + ".acknowledged")
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def live(number: int, line: int, function: str) -> None:
        if line:
            kill_at(line, function)
        store = ServerStore(spec["url"], directory, now=time.time)
        Life(store, file, number, spec["rounds"]).live()
        store.close()

    def look() -> None:
        noted = [json.loads(line) for line in path.read_text().splitlines()]
        store = ServerStore(spec["url"], directory, now=time.time)
        check(store, noted)
        store.close()

    killed = 0
    for number in range(spec["lives"]):
        line, function, after = death(rng)
        code = forked(lambda n=number, k=line, f=function: live(n, k, f), after)  # type: ignore[misc]
        assert code in (0, -signal.SIGKILL), code
        killed += code != 0
        assert forked(look) == 0, f"life {number}, killed at line {line} of {function or 'all'}"
    assert forked(lambda: live(spec["lives"], 0, "")) == 0
    assert forked(look) == 0
    print(json.dumps({"killed": killed, "acknowledged": len(path.read_text().splitlines())}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
