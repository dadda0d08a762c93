"""A run's app in the store, and which nodes can be asked when it brought its wheel."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from umbel import wire
from umbel.server.apps import app_of, values_of
from umbel.server.wanted import Offer, Wanted

DIGEST = bytes(range(32))
PLAIN = wire.App(name="myfed", version="1.0", digest=DIGEST, object="myfed:client")
OPEN = Offer(name="berlin", datasets=("default",), takes_code=True)


def bringing() -> wire.App:
    app = wire.App()
    app.CopyFrom(PLAIN)
    app.wheel.CopyFrom(wire.Blob(digest=DIGEST[::-1], size=70_000))
    return app


@given(st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.text(), st.binary(min_size=64, max_size=64))))
def test_an_app_is_the_same_behind_the_store(signed: list[tuple[bytes, str, bytes]]) -> None:
    assert app_of(values_of(PLAIN)) == PLAIN
    app = bringing()
    app.signatures.extend(wire.Signature(key=key, name=name, signature=made) for key, name, made in signed)
    assert app_of(values_of(app)) == app
    app.wheel.content = b"x"
    assert not app_of(values_of(app)).wheel.HasField("content")


def test_rows_of_before_have_no_wheel() -> None:
    assert app_of({}) == wire.App()
    assert not Wanted(app=app_of({"name": "myfed", "digest": ""})).brings


def test_who_takes_code_is_asked_when_the_run_brings_it() -> None:
    assert Wanted(app=bringing()).refusal(OPEN) == ""
    assert "does not have the app 'myfed'" in Wanted(app=PLAIN).refusal(OPEN)
    closed = Wanted(app=bringing()).refusal(replace(OPEN, takes_code=False))
    assert closed.endswith("it has none; and its owner does not let code come from the server")
    older = wire.App(name="myfed", version="0.9", digest=bytes(32))
    assert Wanted(app=bringing()).refusal(replace(OPEN, apps=(older,))) == ""
    assert "version 0.9" in Wanted(app=bringing()).refusal(replace(OPEN, apps=(older,), takes_code=False))
    assert "has no data set 'heart'" in Wanted(app=bringing(), dataset="heart").refusal(OPEN)
