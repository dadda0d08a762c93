"""A server's database in a file."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import traceback
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy")

from sqlalchemy import Connection

from tests.unit.store.sql.stores import RUN, answer, opened, url_of, with_exchange
from umbel.errors import CorruptFile, DiskFull, InUse, StoreError, UsageError
from umbel.store.sql import Kept, ServerStore, TokenRow, sqlite
from umbel.store.sql.schema import Schema

HOLDER = """
import sys, time
from pathlib import Path
from umbel.store.sql import ServerStore
store = ServerStore(sys.argv[1], Path(sys.argv[2]), now=time.time)
print("held", flush=True)
sys.stdin.read()
"""


def test_it_belongs_to_one_process_however_that_ends(tmp_path: Path) -> None:
    program = [sys.executable, "-c", HOLDER, url_of(tmp_path), str(tmp_path)]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InUse, match="in use by another server"), opened(tmp_path):
            pass
        os.kill(other.pid, signal.SIGKILL)
    with opened(tmp_path) as store:
        assert store.runs() == []


def test_neither_the_file_nor_the_blobs_are_shared(tmp_path: Path) -> None:
    with opened(tmp_path / "one"):
        for directory, url in ((tmp_path / "two", url_of(tmp_path / "one")), (tmp_path / "one", url_of(tmp_path))):
            with pytest.raises(InUse), opened(directory, url):
                pass


def test_a_name_with_odd_characters(tmp_path: Path) -> None:
    directory = tmp_path / "a b%3f#ä"
    for _ in range(2):
        with opened(directory) as store:
            store.audit("anna", "looked", "x").result()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a b%3f#ä"]


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://host/name", "no address"])
def test_an_address_that_makes_no_sense(url: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r".") as refused, opened(tmp_path, url):
        pass
    assert "sqlite:///PATH" in refused.value.advice


@pytest.mark.parametrize("rest", ["se@cret@host/name", "se@cret:9/x@host/name", "p@s:secret@host:5432/name"])
def test_a_password_that_is_not_written_for_an_address_is_not_told(rest: str, tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match=r"the address of the database") as refused,
        opened(tmp_path, f"postgresql://me:{rest}"),
    ):
        pass
    assert "%40" in refused.value.advice
    assert "cret" not in "".join(traceback.format_exception(refused.value))


def test_a_file_that_another_program_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_PATIENCE", 0.01)
    with opened(tmp_path) as store, closing(sqlite3.connect(tmp_path / "umbel.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="is held by another program") as refused:
            store.audit("anna", "looked", "x").result()
        assert "umbel server backup" in refused.value.advice
        other.execute("ROLLBACK")
        store.audit("anna", "looked", "y").result()
        assert [row.target for row in store.audited()] == ["y"]


def test_a_directory_whose_database_is_another_begins_no_new_one(tmp_path: Path) -> None:
    """As where --database was forgotten: with a new one, every node and token would be unknown."""
    with opened(tmp_path / "server", url_of(tmp_path / "elsewhere")):
        pass
    for _ in range(2):
        with pytest.raises(StoreError, match="is a server's directory") as refused, opened(tmp_path / "server"):
            pass
        assert "--database" in refused.value.advice
    assert not (tmp_path / "server" / "umbel.sqlite").exists()


def test_a_database_does_not_go_on_without_its_directory(tmp_path: Path) -> None:
    """As where --dir is another: there is a new authority then, which no node trusts."""
    url = url_of(tmp_path / "elsewhere")
    for name in ("killed", "first"):  # until there is a token, as little as in a first start that was killed
        with opened(tmp_path / name, url) as store:
            pass
    with opened(tmp_path / "first", url) as store:
        store.keep_token(TokenRow(name="operator", secret=b"s" * 32, role="operator", created=1.0), "server").result()
    with pytest.raises(StoreError, match="whose models and keys are not in") as refused, opened(tmp_path / "new", url):
        pass
    assert f"make {tmp_path / 'new' / 'blobs'}" in refused.value.advice
    (tmp_path / "new" / "blobs").mkdir()
    with opened(tmp_path / "new", url) as store:
        assert [token.name for token in store.tokens()] == ["operator"]


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "umbel.sqlite").write_bytes(b"no database at all" * 1000)
    with pytest.raises(CorruptFile, match="is damaged, or is not a database"), opened(tmp_path):
        pass


def test_a_damaged_file_is_told_of(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        with_exchange(store)
        content = [store.blobs.keep_bytes(bytes([n]) * 60_000) for n in range(20)]
        store.accept(RUN, 1, answer("a"), content).result()
    file = tmp_path / "umbel.sqlite"
    data = bytearray(file.read_bytes())
    data[3 * 4096 :] = b"\xff" * (len(data) - 3 * 4096)
    file.write_bytes(bytes(data))
    with pytest.raises(CorruptFile, match="damaged"), opened(tmp_path) as store:
        read_all(store, content)


def read_all(store: ServerStore, content: list[Kept]) -> None:
    store.nodes()
    store.answers(RUN, 1)
    for one in content:
        store.blobs.read(one.digest)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError), opened(tmp_path / "file" / "x"):
        pass


def test_a_full_disk_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        with_exchange(store)
        limit(store, 80)
        kept = [store.blobs.keep_bytes(bytes([n]) * 60_000) for n in range(30)]
        futures = [store.accept(RUN, 1, answer(str(n)), [one]) for n, one in enumerate(kept)]
        errors = [future.exception() for future in futures]
        assert {type(error) for error in errors} <= {DiskFull, type(None)}
        assert any(errors)
        limit(store, 1 << 30)
        accepted = {str(n) for n, error in enumerate(errors) if error is None}
        assert {row.client for row in store.answers(RUN, 1)} == accepted
        assert store.accept(RUN, 1, answer("29"), [kept[29]]).result() == "accepted"


def test_a_disk_that_is_full_at_the_start_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(self: Schema, connection: Connection, found: str) -> None:
        connection.exec_driver_sql("ROLLBACK")  # SQLite does so by itself when it cannot write
        connection.exec_driver_sql("PRAGMA max_page_count=1")
        connection.exec_driver_sql("CREATE TABLE large (content TEXT)")

    monkeypatch.setattr(Schema, "upgrade", fill)
    with pytest.raises(DiskFull, match="no room left"), opened(tmp_path):
        pass


def limit(store: ServerStore, pages: int) -> None:
    """What the file may have, as if the disk were so small."""
    store._write(lambda c: c.exec_driver_sql(f"PRAGMA max_page_count={pages}").scalar()).result()


def test_what_is_written_after_it_was_closed_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        pass
    with pytest.raises(StoreError, match="is closed"):
        store.audit("anna", "looked", "x")
    store.close()


def test_what_waits_is_written_when_it_is_closed(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        futures = [store.audit("anna", "looked", str(n)) for n in range(2000)]
    assert all(future.done() for future in futures)
    with opened(tmp_path) as store:
        assert [row.target for row in store.audited(limit=5000)] == [str(n) for n in range(2000)]


def test_it_outlives_a_loss_of_power(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        found = [pragma(store, name) for name in ("journal_mode", "synchronous", "fullfsync", "foreign_keys")]
    assert found == ["wal", 2, 1, 1]


def pragma(store: ServerStore, name: str) -> object:
    return store._write(lambda c: c.exec_driver_sql(f"PRAGMA {name}").scalar()).result()
