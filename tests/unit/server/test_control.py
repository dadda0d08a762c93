"""Every call of people, as it comes in: for each role, and for one's own run and another's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy")

from tests.simulation.hands import plain
from tests.simulation.network import Place
from tests.unit.node.scripted import on_a_loop
from tests.unit.server.test_people import ALLOWED, METHODS
from umbel import wire
from umbel.errors import NotAllowed, UmbelError
from umbel.link.dispatch import Dispatch
from umbel.link.memory import memory_person
from umbel.link.person import PersonLink
from umbel.link.sessions import Sessions
from umbel.server.control import ControlDesk
from umbel.server.people import ORDER, Person, permit
from umbel.wire.methods import CONTROL

OF_A_RUN = {"StopRun", "ResumeRun", "RemoveRun", "ReadRunBlob"}  # of the run's owner, and operators
DIGEST = b"\0" * 32


def link_of(place: Place, person: Person) -> PersonLink:
    assert place.store
    assert place.hub
    assert place.runs
    assert place.desk
    control = ControlDesk(place.store, place.hub, place.runs, place.uploads, nodes=place.desk)

    def authorize(token: str | None, method: str) -> Person:
        del token
        permit(person, method)
        return person

    return memory_person(Dispatch(place.desk, control, sessions=Sessions(), authorize=authorize), "token")


async def call(link: PersonLink, method: str, run: str) -> str:
    """Why a call is not allowed; "" if it is, whatever comes of it."""
    try:
        match method:
            case "WatchRun":
                async for _ in link.stream(method, wire.WatchRunRequest(run=run, now=True)):
                    pass
            case "ReadRunBlob":
                async for _ in link.read_blob(wire.ReadRunBlobRequest(run=run, digest=DIGEST)):
                    pass
            case "WriteRunBlob":
                await link.write_blob(wire.BlobHead(digest=DIGEST, size=1), _nothing())
            case _:
                request: Any = CONTROL[method].request()
                if "run" in request.DESCRIPTOR.fields_by_name and method != "SubmitRun":
                    request.run = run
                await link.call(method, request)
    except NotAllowed as error:
        return str(error)
    except UmbelError:
        return ""
    return ""


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


@pytest.mark.parametrize("owner", ["ada", "grace"])
@pytest.mark.parametrize("role", ORDER)
@on_a_loop
async def test_each_call_of_each_role_for_ones_own_run_and_anothers(tmp_path: Path, role: str, owner: str) -> None:
    place = Place(tmp_path)
    place.start()
    assert place.runs
    try:
        run = await place.submit(plain(), owner=owner)
        await place.runs.stop(place.runs.find(run), owner)
        link = link_of(place, Person("ada", role))
        for method in sorted(METHODS, key=lambda method: method == "RemoveRun"):
            said = await call(link, method, run)
            others = method in OF_A_RUN and role != "operator" and owner != "ada"
            assert (said == "") == (method in ALLOWED[role] and not others), method
            if said and method in ALLOWED[role]:
                assert f"run {run[:8]} belongs to 'grace', and 'ada' is a {role}" in said
    finally:
        await place.stop()


@pytest.mark.parametrize(
    ("role", "owner", "shown"),
    [("operator", "grace", True), ("runner", "ada", True), ("runner", "grace", False), ("viewer", "ada", False)],
)
@on_a_loop
async def test_what_was_submitted_is_shown_to_whose_it_is(tmp_path: Path, role: str, owner: str, shown: bool) -> None:
    place = Place(tmp_path)
    place.start()
    try:
        run = await place.submit(plain(), owner=owner)
        got = await link_of(place, Person("ada", role)).call("GetRun", wire.GetRunRequest(run=run))
        assert got.run.owner == owner
        assert (got.submission != "null") is shown
    finally:
        await place.stop()


@pytest.mark.parametrize("offset", [0, 1])
@on_a_loop
async def test_that_an_operator_reads_a_model_of_anothers_run_is_written_down(tmp_path: Path, offset: int) -> None:
    """Whatever part of it."""
    place = Place(tmp_path)
    place.start()
    try:
        assert place.store
        submission = plain()
        assert submission.initial is not None
        digest = bytes.fromhex(submission.initial.digest())
        for owner in ("grace", "ada"):
            run = await place.submit(submission, owner=owner, key=owner)
            request = wire.ReadRunBlobRequest(run=run, digest=digest, offset=offset)
            assert [piece async for piece in link_of(place, Person("ada", "operator")).read_blob(request)]
        entries = [(each.who, each.details["owner"]) for each in place.store.audited(0) if each.action == "model-read"]
        assert entries == [("ada", "grace")]
    finally:
        await place.stop()
