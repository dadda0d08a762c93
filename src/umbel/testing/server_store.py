"""What a `ServerStore` must do: keep what it has acknowledged, once, and nothing that is not needed any more."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umbel.digest import digest_of
from umbel.errors import NotThere, Rejected, UmbelError, Unauthenticated
from umbel.store.sql.values import INLINE, AnswerRow, Kept, NodeRow, OpenExchange, RunRow, Status, TicketRow, TokenRow
from umbel.testing.promise import Promise

if TYPE_CHECKING:
    from umbel.store.sql.store import ServerStore

Make = Callable[[], "ServerStore"]
Reopen = Callable[["ServerStore"], "ServerStore"]
_promise = Promise("a server's store")
_NEVER = 1e12  # seconds; about when nothing of this matters any more
_RUN = "0" * 32


def check_server_store(make: Make, *, reopen: Reopen | None = None) -> None:
    """Check a server's store, in whatever database it lives.

    Args:
        make: makes a new, empty store. It is called many times; the stores share nothing.
        reopen: gives the store that another process would find in the place of this one, which is not used any more.
            None: this is not checked.

    Raises:
        AssertionError: the store is wrong; says what it must do.
    """
    again = reopen or (lambda store: store)
    for check in (
        _check_new,
        _check_enrolling,
        _check_nodes,
        _check_tokens,
        _check_runs,
        _check_events,
        _check_exchange,
        _check_answers,
        _check_failures,
        _check_at_once,
        _check_alone,
        _check_record,
        _check_overlap,
        _check_resumed,
        _check_commit,
        _check_states,
        _check_blobs,
        _check_uploads,
        _check_retention,
        _check_removed,
    ):
        check(make(), again)


def _refused(kind: type[UmbelError], future: Callable[[], Future[Any]], words: str) -> str:
    """What it says when it refuses this."""
    try:
        future().result()
    except kind as error:
        _promise.require(bool(error.advice), f"say what to do when it must {words}")
        return str(error)
    raise AssertionError(f"a server's store must {words}")


def _node(name: str, key: bytes = b"") -> NodeRow:
    return NodeRow(name=name, public_key=key or hashlib.sha256(name.encode()).digest(), enrolled=5.0)


def _ticket(id: str, **changes: Any) -> TicketRow:
    values = {"secret": id.encode(), "uses": 2, "expires": _NEVER, "creator": "anna", **changes}
    return TicketRow(id=id, **values)


def _with_run(store: ServerStore) -> str:
    run = RunRow(id=_RUN, key="k", name="first", owner="anna", submitted=1.0, labels={"b": "2"}, nodes=("x", "y"))
    return store.submit(run).result().id


def _open(store: ServerStore, sequence: int = 1, digest: str = "d") -> OpenExchange:
    exchange = OpenExchange(sequence=sequence, digest=digest, opened=float(sequence), roster='["a"]')
    return store.open_exchange(_RUN, exchange).result()


def _answer(client: str, **changes: Any) -> AnswerRow:
    return AnswerRow(**{"client": client, "kind": "update", "content": f'"{client}"', **changes})


def _accept(store: ServerStore, client: str, sequence: int = 1, **changes: Any) -> str:
    return store.accept(_RUN, sequence, _answer(client, **changes)).result()


def _large(number: int) -> bytes:
    return number.to_bytes(4, "little") * (INLINE // 2)


def _digests(kept: Sequence[Kept]) -> tuple[str, ...]:
    return tuple(one.digest for one in kept)


# --- nodes and people ------------------------------------------------------------------------------


def _check_new(store: ServerStore, again: Reopen) -> None:
    me = store.federation
    _promise.require(len(me) == 32 and set(me) <= set("0123456789abcdef"), "have a federation of 32 hex digits")
    store = again(store)
    _promise.require(store.federation == me, "be of the same federation when it is opened again")
    found = store.nodes(), store.tickets(), store.tokens(), store.runs(), store.audited()
    _promise.require(not any(found), "be empty when it is new")


def _check_enrolling(store: ServerStore, again: Reopen) -> None:
    for ticket in (_ticket("t"), _ticket("old", expires=1.0), _ticket("back"), _ticket("t")):
        store.keep_ticket(ticket, "anna").result()
    store.revoke("ticket", "back", "anna").result()
    words = "refuse a ticket that is unknown, expired or revoked"
    said = [
        _refused(Unauthenticated, lambda s=secret: store.enrol(s, _node("x")), words)  # type: ignore[misc]
        for secret in (b"unknown", b"old", b"back")
    ]
    given = _node("berlin")
    _promise.require(store.enrol(b"t", given).result() == given, "take a node in that has a ticket")
    store = again(store)
    _promise.require(store.enrol(b"t", _node("berlin")).result() == given, "give the same when a node enrols again")
    _promise.require(store.tickets()[-1].used == 1, "use up a ticket once for each node")
    words = "refuse a name that belongs to another key"
    _refused(Rejected, lambda: store.enrol(b"t", _node("berlin", b"another key")), words)
    _refused(Rejected, lambda: store.enrol(b"t", _node("x", given.public_key)), "refuse one key for two nodes")
    store.enrol(b"t", _node("oslo")).result()
    said.append(_refused(Unauthenticated, lambda: store.enrol(b"t", _node("rome")), "refuse a ticket that is used up"))
    _promise.require(len(set(said)) == len(said), "say what is wrong with a ticket")
    _promise.require(store.enrol(b"t", _node("oslo")).result().name == "oslo", "know who came before")
    done = [(row.who, row.action, row.target) for row in again(store).audited()]
    expected = [
        ("anna", "ticket-made", "t"),
        ("anna", "ticket-made", "old"),
        ("anna", "ticket-made", "back"),
        ("anna", "ticket-revoked", "back"),
        ("node berlin", "node-enrolled", "berlin"),
        ("node oslo", "node-enrolled", "oslo"),
    ]
    _promise.require(done == expected, "write down who did what, in order, and only what was done")


def _check_nodes(store: ServerStore, again: Reopen) -> None:
    store.keep_ticket(_ticket("t", uses=5), "anna").result()
    for name in ("a", "b"):
        store.enrol(b"t", _node(name)).result()
    store.change_node("a", labels={"land": "de"}, seen=9.0, program="umbel 1\0", by="anna").result()
    changed = store.change_node("a", rename="c", revoked=True, by="anna").result()
    store = again(store)
    _promise.require([n.name for n in store.nodes()] == ["b", "c"], "list the nodes by name")
    found = store.nodes()[1]
    _promise.require(found == changed, "give back a node as it is kept")
    _promise.require(
        (dict(found.labels), found.seen, found.revoked, found.public_key)
        == ({"land": "de"}, 9.0, True, _node("a").public_key),
        "change what is to be changed of a node, and nothing else",
    )
    _refused(NotThere, lambda: store.change_node("a", seen=1.0), "refuse to change a node that is not there")
    _refused(Rejected, lambda: store.change_node("b", rename="c"), "refuse to give two nodes one name")
    _promise.require([r.target for r in store.audited()[-2:]] == ["a", "a"], "write down who changed a node")


def _check_tokens(store: ServerStore, again: Reopen) -> None:
    for name, expires in (("anna", 0.0), ("ben", 1.0), ("cleo", _NEVER)):
        store.keep_token(TokenRow(name=name, secret=name.encode(), role="viewer", expires=expires), "anna").result()
    store.revoke("token", "cleo", "anna").result()
    store = again(store)
    found = store.token(b"anna")
    _promise.require(found is not None and found.role == "viewer", "find a token by its secret")
    _promise.require(store.token(b"nobody") is None, "give nothing for a token that is unknown")
    for secret in (b"ben", b"cleo"):
        try:
            store.token(secret)
        except Unauthenticated:
            continue
        raise AssertionError("a server's store must refuse a token that has expired or was revoked")
    row = TokenRow(name="anna", secret=b"another", role="operator")
    _refused(Rejected, lambda: store.keep_token(row, "anna"), "refuse a second token of one name")
    for name in ("ben", "cleo"):
        store.keep_token(TokenRow(name=name, secret=name.encode() * 2, role="runner"), "anna").result()
        found = store.token(name.encode() * 2)
        _promise.require(found is not None and found.role == "runner", "give another token to who has no valid one")
        _promise.require(store.token(name.encode()) is None, "forget the token that another has replaced")
    _refused(NotThere, lambda: store.revoke("token", "dora", "anna"), "refuse to revoke what is not there")
    _promise.require([t.name for t in store.tokens()] == ["anna", "ben", "cleo"], "list the tokens by name")


# --- runs ------------------------------------------------------------------------------------------


def _check_runs(store: ServerStore, again: Reopen) -> None:
    run = RunRow(id=_RUN, key="k", name="first", owner="anna", submitted=1.0, app={"name": "myfed"}, nodes=("x",))
    _promise.require(store.submit(run).result() == run, "take a run in")
    store = again(store)
    twice = store.submit(RunRow(id="1" * 32, key="k", name="again", owner="anna")).result()
    _promise.require(twice == run, "give back the first run when its owner gives the same key again")
    other = store.submit(RunRow(id="2" * 32, key="k", name="b", owner="ben", submitted=2.0)).result()
    _promise.require([r.id for r in store.runs()] == [run.id, other.id], "list the runs in the order they came")
    store.set_status(_RUN, "running").result()
    store.set_status(_RUN, "failed", "no\0room", rounds=7, round=3, by="anna").result()
    found = again(store).runs()[0]
    _promise.require((found.status, found.rounds, found.round) == ("failed", 7, 3), "keep where a run stands")
    _promise.require(found.started > 0 and found.ended > 0, "keep when a run began and ended")


def _check_events(store: ServerStore, again: Reopen) -> None:
    _with_run(store)
    numbers = [store.event(_RUN, "log", {"text": "ä\0", "n": n}).result() for n in range(5)]
    store = again(store)
    _promise.require(numbers == sorted(set(numbers)), "number events in their order")
    found = store.events(_RUN)
    _promise.require(
        [e.number for e in found] == numbers and found[3].content == {"n": 3, "text": "ä\0"}, "keep events"
    )
    _promise.require(list(found[3].content) == ["text", "n"], "keep what an event says in its order")
    some = store.events(_RUN, since=numbers[1], limit=2)
    _promise.require([e.number for e in some] == numbers[2:4], "give the events after one, and no more than asked for")
    last = (1 << 64) - 1  # more than databases count to
    _promise.require(not store.events(_RUN, since=last) and not store.audited(last), "give nothing after any number")
    _refused(NotThere, lambda: store.event("5" * 32, "log", {}), "refuse an event of a run that is not there")


# --- exchanges -------------------------------------------------------------------------------------


def _check_exchange(store: ServerStore, again: Reopen) -> None:
    _with_run(store)
    _promise.require(not store.unclosed(_RUN), "have no open exchange at first")
    first = _open(store)
    _accept(store, "a")
    store = again(store)
    _promise.require(store.unclosed(_RUN)[:1] == [first], "find the open exchange")
    late = OpenExchange(sequence=1, digest="d", opened=99.0)
    _promise.require(store.open_exchange(_RUN, late).result() == first, "go on with an exchange that is open")
    _promise.require(len(store.answers(_RUN, 1)) == 1, "keep the answers of an exchange that goes on")
    other = _open(store, digest="e")
    store = again(store)
    _promise.require(store.unclosed(_RUN)[:1] == [other], "replace an exchange that asks something else")
    _promise.require(not store.answers(_RUN, 1), "drop the answers to another question")


def _check_answers(store: ServerStore, again: Reopen) -> None:
    _with_run(store)
    _promise.require(_accept(store, "a") == "late", "call an answer late that nobody has asked for")
    _open(store)
    given = [_answer(c, attempt=n, state=c == "b", arrived=n / 4) for n, c in enumerate("cab", 1)]
    for answer in given:
        _promise.require(store.accept(_RUN, 1, answer).result() == "accepted", "accept a client's first answer")
    store = again(store)
    for attempt in (1, 9):
        _promise.require(
            _accept(store, "a", attempt=attempt) == "repeated", "count a client once, whatever the attempt"
        )
    _promise.require(_accept(store, "a", sequence=2) == "late", "call an answer to another exchange late")
    _promise.require(store.answers(_RUN, 1) == given, "give back the answers as they came, in their order")


def _check_failures(store: ServerStore, again: Reopen) -> None:
    _with_run(store)
    _open(store)
    _accept(store, "a", kind="failure", attempt=2)
    _promise.require(_accept(store, "a", attempt=2) == "repeated", "keep a failure for the attempt that failed")
    _promise.require(_accept(store, "b") == "accepted", "accept another client's answer")
    store = again(store)
    _promise.require(_accept(store, "a", attempt=3) == "accepted", "let a later attempt replace a failure")
    _promise.require(_accept(store, "a", attempt=4) == "repeated", "let nothing replace an answer")
    found = [(row.client, row.kind, row.attempt) for row in store.answers(_RUN, 1)]
    _promise.require(found == [("b", "update", 1), ("a", "update", 3)], "keep one answer of each client")


def _check_at_once(store: ServerStore, again: Reopen) -> None:
    _with_run(store)
    _open(store)
    futures = [store.accept(_RUN, 1, _answer(str(n % 10), attempt=n // 10 + 1)) for n in range(50)]
    verdicts = [future.result() for future in futures]
    _promise.require(verdicts.count("accepted") == 10, "accept one answer of each client when many come at once")
    _promise.require(len(again(store).answers(_RUN, 1)) == 10, "keep one answer of each client when many come at once")


def _check_alone(store: ServerStore, again: Reopen) -> None:
    _with_run(store)
    _open(store)
    gone = Kept("ab" * 32, INLINE + 1, None)
    futures = [store.accept(_RUN, 1, _answer(str(n)), [gone] if n % 3 == 1 else []) for n in range(9)]
    for n, future in enumerate(futures):
        if n % 3 == 1:
            _refused(NotThere, lambda f=future: f, "refuse an answer whose blobs are not there")  # type: ignore[misc]
        else:
            _promise.require(future.result() == "accepted", "let nobody pay for what others did wrong")
    kept = {row.client for row in again(store).answers(_RUN, 1)}
    _promise.require(kept == set("023568"), "keep nothing of what it refused, and all else")


def _check_record(store: ServerStore, again: Reopen) -> None:
    _with_run(store)
    _open(store)
    for client in "abc":
        _accept(store, client, state=client != "c")
    for _ in range(2):
        store.record(_RUN, '"one"', round=1, call=1, sequence=1, states=["a", "c"]).result()
        store = again(store)
    _promise.require(not store.unclosed(_RUN) and not store.answers(_RUN, 1), "close a recorded exchange")
    _promise.require(dict(store.states(_RUN)) == {"a": 1}, "move on whose state counts, if it has a new one")
    commits, records = store.saved(_RUN)
    _promise.require(not commits and [r.content for r in records] == ['"one"'], "keep a record once")
    _promise.require(_accept(store, "d") == "late", "call an answer late that comes after the record")


def _check_overlap(store: ServerStore, again: Reopen) -> None:
    """The next exchange opens before the one before it is recorded."""
    _with_run(store)
    _open(store, 1)
    _accept(store, "a", 1, state=True)
    _open(store, 2)
    _promise.require(_accept(store, "b", 1) == "late", "call an answer late when the next exchange is open")
    _accept(store, "b", 2)
    store = again(store)
    first = next(iter(store.unclosed(_RUN)), None)
    _promise.require(first is not None and first.sequence == 1, "go on with the exchange that was not recorded")
    _open(store, 1)
    _promise.require(_accept(store, "c", 1) == "accepted", "take answers of an exchange that goes on")
    store.record(_RUN, "1", round=1, call=1, sequence=1, states=["a"]).result()
    _open(store, 2)
    store = again(store)
    _promise.require([r.client for r in store.answers(_RUN, 2)] == ["b"], "keep the answers of the exchange after it")
    _open(store, 3)
    _open(store, 2, "another")
    _promise.require(_accept(store, "b", 3) == "late", "drop what came after an exchange that is done anew")


def _check_resumed(store: ServerStore, again: Reopen) -> None:
    """A run goes on that has ended: after a failure with one cohort, after another with two, and after a stop."""
    _with_run(store)
    cases: list[tuple[Status, list[int], list[str]]] = [
        ("failed", [1], ["a"]),
        ("failed", [1, 2], []),
        ("stopped", [1, 2], ["a", "b"]),
    ]
    for status, opened, kept in cases:
        for sequence in opened:
            _open(store, sequence)
            _accept(store, "a", sequence)
            _accept(store, "b", sequence, kind="failure")
        store.set_status(_RUN, status).result()
        store.set_status(_RUN, "queued", by="anna").result()
        store = again(store)
        found = [row.client for row in store.answers(_RUN, opened[-1])]
        _promise.require(found == kept, f"keep the answers that count of a run that was {status}, and no others")
        _promise.require(all(row.opened > 1.0 for row in store.unclosed(_RUN)), "give what goes on its time again")


def _check_commit(store: ServerStore, again: Reopen) -> None:
    _with_run(store)
    for n in (1, 2, 3):
        _open(store, n)
        store.record(_RUN, str(n), round=n, call=1, sequence=n).result()
        _promise.require(len(store.saved(_RUN)[1]) == 1, "keep the records of the open round")
        clients = str(n) if n < 3 else None
        for _ in range(2):
            store.commit(_RUN, f'"{n}"', round=n, sequence=n, clients=clients, state=f"[{n}]").result()
        store = again(store)
    commits, records = store.saved(_RUN)
    _promise.require(not records, "forget the records when their round commits")
    _promise.require([c.content for c in commits] == ['"1"', '"2"', '"3"'], "keep each commit once, in order")
    _promise.require([c.state for c in commits][::2] == [None, "[3]"], "keep the states of the last two commits only")
    _promise.require([c.clients for c in commits] == [None, "2", None], "keep the last evaluation's metrics only")
    _promise.require(store.runs()[0].round == 3, "know the last round that was committed")


def _check_states(store: ServerStore, again: Reopen) -> None:
    _with_run(store)
    for n in (1, 2):
        _open(store, n)
        for client in "ab":
            _accept(store, client, n, state=True)
        counted = ["a", "b"] if n == 1 else ["a"]
        store.commit(_RUN, "0", round=n, sequence=n, states={n: counted}).result()
        store = again(store)
    _promise.require(dict(store.states(_RUN)) == {"a": 2, "b": 1}, "know each client's last state that counts")
    store.set_status(_RUN, "finished", rounds=2).result()
    _open(store, 3)
    _accept(store, "b", 3, state=True)
    store.record(_RUN, "0", round=3, call=1, sequence=3, states=["b"]).result()
    store.set_status(_RUN, "queued", rounds=5).result()
    _promise.require(dict(again(store).states(_RUN)) == {"a": 2, "b": 1}, "forget what was asked behind the last round")


# --- blobs -----------------------------------------------------------------------------------------


def _bytes(store: ServerStore, digest: str) -> bytes | None:
    found = store.blobs.read(digest)
    return found.read_bytes() if isinstance(found, Path) else found


def _check_blobs(store: ServerStore, again: Reopen) -> None:
    _with_run(store)
    _open(store)
    contents = [b"small", _large(1), b"x" * INLINE, b"x" * (INLINE + 1)]
    for n, content in enumerate(contents):
        for client in (f"a{n}", f"b{n}"):
            kept = [store.blobs.keep_bytes(content)]
            _promise.require((kept[0].content is None) == (len(content) > INLINE), "keep large blobs in files")
            store.accept(_RUN, 1, _answer(client, blobs=_digests(kept)), kept).result()
    store = again(store)
    for content in contents:
        digest = digest_of(content).hex()
        _promise.require(store.blobs.find(digest) == len(content), "find a blob that was named")
        _promise.require(_bytes(store, digest) == content, "give back a blob's bytes")
    _promise.require(
        store.blobs.find("0" * 64) is None and store.blobs.read("0" * 64) is None, "know what is not there"
    )
    _promise.require(store.blobs.free() > 0, "say how much room is left")


def _check_uploads(store: ServerStore, again: Reopen) -> None:
    content = _large(7)
    digest = digest_of(content).hex()
    upload = store.blobs.incoming(digest, len(content), "lyon")
    upload.write(content[:1000])
    upload.close()
    store = again(store)
    _promise.require(store.blobs.received(digest, "lyon") == 1000, "keep what has come of an upload")
    upload = store.blobs.incoming(digest, len(content), "lyon")
    _promise.require(upload.received == 1000, "go on with an upload where it broke off")
    upload.write(content[1000:])
    kept = upload.finish()
    _promise.require(_bytes(store, kept.digest) == content, "keep an upload that is whole")
    wrong = store.blobs.incoming("ab" * 32, 4, "lyon")
    wrong.write(b"four")
    try:
        wrong.finish()
    except Rejected:
        gone = store.blobs.received("ab" * 32, "lyon") == 0 and store.blobs.find("ab" * 32) is None
        _promise.require(gone, "drop an upload that has another digest")
    else:
        raise AssertionError("a server's store must reject an upload that has another digest")


def _check_retention(store: ServerStore, again: Reopen) -> None:
    _with_run(store)
    models = [_large(n) for n in range(4)]
    for n, model in enumerate(models):
        kept = [store.blobs.keep_bytes(model)]
        best = {"best": kept} if n == 0 else {}
        opening = {"opening": [store.blobs.keep_bytes(b"first")]} if n == 0 else {}
        blobs: dict[Any, Any] = {"commit": kept, **best, **opening}
        store.commit(_RUN, "0", round=n + 1, sequence=n + 1, state="0", blobs=blobs).result()
    stray = store.blobs.keep_bytes(_large(99))
    store.sweep().result()
    _promise.require(_bytes(store, stray.digest) is not None, "keep for a while what something is about to name")
    store = again(store)
    store.sweep(-1.0).result()
    there = [_bytes(store, digest_of(model).hex()) is not None for model in models]
    _promise.require(there == [True, False, True, True], "keep the last two commits' blobs and the best model's")
    _promise.require(_bytes(store, digest_of(b"first").hex()) == b"first", "keep what a run began with")
    _promise.require(_bytes(store, stray.digest) is None, "remove what nothing names")
    _promise.require(store.best(_RUN) == digest_of(models[0]).hex(), "know the best model")
    store.set_status(_RUN, "finished").result()
    store.sweep(-1.0).result()
    there = [_bytes(store, digest_of(model).hex()) is not None for model in models]
    _promise.require(there == [True, False, False, True], "keep the last commit's blobs of a run that has ended")


def _check_removed(store: ServerStore, again: Reopen) -> None:
    _with_run(store)
    kept = [store.blobs.keep_bytes(_large(1))]
    store.commit(_RUN, "0", round=1, sequence=1, state="1", blobs={"commit": kept}).result()
    _open(store, 2)
    _accept(store, "a", 2)
    store.event(_RUN, "log", {}).result()
    _refused(Rejected, lambda: store.remove_run(_RUN, "anna"), "refuse to remove a run that has not ended")
    store.set_status(_RUN, "stopped").result()
    store.remove_run(_RUN, "anna").result()
    store.sweep(-1.0).result()
    store = again(store)
    left = store.runs(), store.events(_RUN), store.answers(_RUN, 2), *store.saved(_RUN)
    _promise.require(not any(left), "forget all of a run that was removed")
    _promise.require(_bytes(store, kept[0].digest) is None, "remove the blobs of a run that was removed")
    _promise.require(store.audited()[-1].action == "run-removed", "write down who removed a run")
    _refused(NotThere, lambda: store.remove_run(_RUN, "anna"), "refuse to remove what is not there")


__all__ = ["check_server_store"]
