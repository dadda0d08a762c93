"""The whole server in this process: what its pages say when something has changed since the start."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

pytest.importorskip("starlette")
pytest.importorskip("sqlalchemy")

from prometheus_client.parser import text_string_to_metric_families

from tests.postgres import Cluster
from umbel.errors import InUse
from umbel.link.address import Address
from umbel.server.certificates import DAY, RENEW, Authority
from umbel.server.people import hashed, new_ticket
from umbel.server.program import Server, ServerSettings
from umbel.store.sql import NodeRow, ServerStore

pytest_plugins = ("tests.postgres",)


@asynccontextmanager
async def started(directory: Path, *shown: Authority, **settings: Any) -> AsyncIterator[Server]:
    """A server that shows these, one after the other."""
    left = [*shown]
    made = ServerSettings(directory=directory, host="127.0.0.1", port=0, pages=("127.0.0.1", 0), **settings)
    server = await Server.start(made, lambda: left.pop(0) if len(left) > 1 else left[0])
    try:
        yield server
    finally:
        await server.close()


async def page(server: Server, path: str) -> tuple[int, str]:
    """The status and the text of one of its pages."""

    def get() -> tuple[int, str]:
        try:
            with urlopen(f"http://127.0.0.1:{server.pages_port}/{path}", timeout=60) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as refused:
            with refused:
                return refused.code, refused.read().decode()

    return await asyncio.to_thread(get)


async def metric(server: Server, name: str) -> list[float]:
    _, text = await page(server, "metrics")
    return [one.value for family in text_string_to_metric_families(text) for one in family.samples if one.name == name]


def test_a_server_whose_database_another_took_is_not_ready(
    postgres_url: str, postgres: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        authority = Authority.open(tmp_path, ["localhost"], time.time())
        async with started(tmp_path, authority, database=postgres_url) as server:
            assert await page(server, "readyz") == (200, '{"status":"ready"}')
            with closing(postgres.connect(postgres_url.partition("@/")[2].partition("?")[0])) as connection:
                connection.execute("UPDATE federation SET opened = opened + 1")  # as one that came and went
            postgres.cut()
            with pytest.raises(InUse):
                await asyncio.wrap_future(server.store.audit("anna", "anything", "", {}))
            status, text = await page(server, "readyz")
            assert status == 503
            assert "was opened by another server" in json.loads(text)["status"]
            assert await page(server, "healthz") == (200, '{"status":"ok"}')

    with caplog.at_level(logging.ERROR, "umbel"):
        asyncio.run(main())
    assert "database-taken: nothing can be written any more" in caplog.text


def test_all_metrics_are_there_from_the_start_and_documented(tmp_path: Path) -> None:
    async def main() -> str:
        async with started(tmp_path, Authority.open(tmp_path, ["localhost"], time.time())) as server:
            return (await page(server, "metrics"))[1]

    guide = (Path(__file__).parents[3] / "docs" / "guide" / "deployment.md").read_text(encoding="utf-8")
    found = [one for family in text_string_to_metric_families(asyncio.run(main())) for one in family.samples]
    assert [one.name for one in found if f"| `{one.name}` |" not in guide] == []
    grown = {(one.name, *one.labels.values()): one.value for one in found if one.name.endswith("_total")}
    verdicts = {("umbel_answers_total", verdict): 0.0 for verdict in ("accepted", "repeated", "late")}
    assert grown == verdicts | {("umbel_blob_bytes_total", way): 0.0 for way in ("in", "out")}


def test_when_the_certificate_ends_is_said_of_the_one_that_is_shown(tmp_path: Path) -> None:
    async def main() -> None:
        authority = Authority.open(tmp_path, ["localhost"], time.time())
        later = replace(authority, expires=3e9)
        old = replace(authority, expires=2e9, renewed=time.time() - RENEW)
        async with started(tmp_path, old, later) as server:
            while server.authority is old:
                await asyncio.sleep(0)
            assert await metric(server, "umbel_authority_expires_seconds") == [3e9]

    asyncio.run(main())


def test_a_certificate_that_nobody_has_replaced_was_not_renewed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        authority = Authority.open(tmp_path, ["localhost"], time.time())
        old = replace(authority, renewed=time.time() - RENEW)
        again = replace(old)
        async with started(tmp_path, old, again) as server:
            while server.authority is old:
                await asyncio.sleep(0)
            await asyncio.wrap_future(server.store.sweep())

    with caplog.at_level(logging.INFO, "umbel"):
        asyncio.run(main())
    assert "certificate-renewed" not in caplog.text


def test_what_nobody_foresaw_does_not_end_the_housekeeping(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a server that lives for months would show its certificate until that has expired, and fill its disk."""
    monkeypatch.setattr("umbel.server.program._SWEPT_EVERY", 0.0)

    async def main() -> None:
        old = replace(Authority.open(tmp_path, ["localhost"], time.time()), renewed=0.0)
        tried, enough = 0, asyncio.Event()

        def show() -> Authority:
            nonlocal tried
            tried += 1
            if tried > 1:
                raise ZeroDivisionError("a certificate")
            return old

        def sweep() -> NoReturn:
            if tried > 3:
                enough.set()
            raise ZeroDivisionError("a sweep")

        server = await Server.start(ServerSettings(directory=tmp_path, host="127.0.0.1", port=0, pages=None), show)
        try:
            monkeypatch.setattr(server.store, "sweep", sweep)
            async with asyncio.timeout(60.0):
                await enough.wait()
        finally:
            await server.close()

    with caplog.at_level(logging.WARNING, "umbel"):
        asyncio.run(main())
    said = {record.getMessage() for record in caplog.records}
    assert said == {"not-swept: a sweep", "certificate-expires: the certificate was not renewed: a certificate"}
    assert all(record.exc_info for record in caplog.records)


def test_that_the_authority_ends_is_said_once_a_day(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        authority, now = Authority.open(tmp_path, ["localhost"], time.time()), time.time()
        async with started(tmp_path, replace(authority, expires=now + 10.4 * DAY)) as server:
            for hours in (1, 25, 26, 50):
                server.warn(now + 3600 * hours)

    with caplog.at_level(logging.WARNING, "umbel"):
        asyncio.run(main())
    said = [record.getMessage() for record in caplog.records if "certificate-expires" in record.getMessage()]
    assert [words.partition(", in ")[2].partition(";")[0] for words in said] == ["10 days", "9 days", "8 days"]


def test_a_server_that_no_operator_can_enter_makes_another_token(tmp_path: Path) -> None:
    async def start(revoke: str = "") -> tuple[bool, bool, list[str]]:
        authority = Authority.open(tmp_path, ["localhost"], time.time())
        async with started(tmp_path, authority) as server:
            if revoke:
                await asyncio.wrap_future(server.store.revoke("token", revoke, "operator"))
            server.introduced()
            return bool(server.ticket), bool(server.token), [token.name for token in server.store.tokens()]

    assert asyncio.run(start(revoke="operator")) == (True, True, ["operator"])
    assert asyncio.run(start()) == (False, True, ["operator", "operator-2"])
    assert asyncio.run(start()) == (False, False, ["operator", "operator-2"])


def test_an_operator_who_has_lost_the_token_gets_another_at_the_machine(tmp_path: Path) -> None:
    async def start(*, lost: bool) -> tuple[str, dict[str, bool]]:
        authority = Authority.open(tmp_path, ["localhost"], time.time())
        async with started(tmp_path, authority, new_operator=lost) as server:
            server.introduced()
            return server.token, {token.name: token.revoked for token in server.store.tokens()}

    first, _ = asyncio.run(start(lost=False))
    second, tokens = asyncio.run(start(lost=True))
    assert "" not in (first, second)
    assert first != second
    assert tokens == {"operator": True, "operator-2": False}
    assert asyncio.run(start(lost=False)) == ("", tokens)


def test_what_lets_people_in_is_shown_until_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process may end between any two steps of the first start."""

    async def start(*, shows: bool = False) -> list[str]:
        authority = Authority.open(tmp_path, ["localhost"], time.time())
        async with started(tmp_path, authority) as server:
            if shows:
                server.introduced()
            secrets = [Address.parse(text).secret_text for text in (server.token, server.ticket) if text]
            kept = [t.secret for t in server.store.tokens()] + [t.secret for t in server.store.tickets()]
            assert not secrets or kept == [*map(hashed, secrets)]
            return secrets

    for step in ("keep_token", "keep_ticket"):
        with monkeypatch.context() as patch:
            patch.setattr(ServerStore, step, ends)
            with pytest.raises(KeyboardInterrupt):
                asyncio.run(start())
    first = asyncio.run(start())
    assert len(first) == 2
    assert (tmp_path / "welcome.json").stat().st_mode & 0o077 == 0
    assert asyncio.run(start(shows=True)) == first
    assert asyncio.run(start()) == []
    assert not (tmp_path / "welcome.json").exists()


def ends(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_server_that_is_refused_changes_no_certificate(tmp_path: Path) -> None:
    async def main() -> None:
        authority = Authority.open(tmp_path, ["localhost"], time.time())
        before = {path: path.read_bytes() for path in tmp_path.glob("*.pem")}
        async with started(tmp_path, authority):
            settings = ServerSettings(directory=tmp_path, host="127.0.0.1", port=0, pages=None)
            with pytest.raises(InUse):
                await Server.start(settings, lambda: Authority.open(tmp_path, ["elsewhere"], time.time()))
        assert {path: path.read_bytes() for path in tmp_path.glob("*.pem")} == before

    asyncio.run(main())


def test_an_authority_that_no_node_trusts_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As where a backup has come back without its keys."""

    async def start() -> None:
        authority = Authority.open(tmp_path, ["localhost"], time.time())
        async with started(tmp_path, authority) as server:
            if not server.store.nodes():
                secret, ticket = new_ticket(uses=1, seconds=60.0, creator="test", now=time.time())
                await asyncio.wrap_future(server.store.keep_ticket(ticket, "test"))
                berlin = NodeRow(name="berlin", public_key=b"k" * 32, enrolled=0.0)
                await asyncio.wrap_future(server.store.enrol(hashed(secret), berlin))

    for _ in range(2):
        asyncio.run(start())
    assert "authority-new" not in caplog.text
    (tmp_path / "authority.pem").unlink()
    asyncio.run(start())
    assert "authority-new: it was made now, and a node has joined with another" in caplog.text
