"""A wheel that travels with a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.apps.projects import contents, write_project, write_wheel
from umbel import wire
from umbel.apps.describe import App
from umbel.apps.project import Project
from umbel.apps.signature import make_key, sign
from umbel.digest import digest_of
from umbel.errors import AppDiffers, BadSignature, FormatError, UsageError
from umbel.remote.shipment import Shipment

NAME = "myfed"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    return write_wheel(tmp_path, NAME, contents(NAME))


def test_the_signatures_beside_it_go_along(wheel: Path, tmp_path: Path) -> None:
    assert Shipment.read(wheel).signatures == ()
    public = make_key(tmp_path / "key.pem")
    sign(wheel, tmp_path / "key.pem", name="Ada")
    shipment, app = Shipment.read(wheel), wire.App(name=NAME, digest=Project.find(wheel).digest)
    shipment.add_to(app)
    wire.check_app(app)
    assert (app.wheel.digest, app.wheel.size) == (digest_of(wheel.read_bytes()), wheel.stat().st_size)
    assert not app.wheel.HasField("content")
    assert [(one.key, one.name) for one in app.signatures] == [(public, "Ada")]


def test_what_no_node_would_take_does_not_leave(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="only wheels travel") as caught:
        Shipment.read(write_project(tmp_path / "project", NAME))
    assert "pip wheel --no-deps" in caught.value.advice
    with pytest.raises(FormatError, match="holds other beside the package"):
        Shipment.read(write_wheel(tmp_path / "more", NAME, contents(NAME) | {"other/x.py": b""}))
    wheel.with_name(wheel.name + ".sig").write_text("{}")
    with pytest.raises(BadSignature, match="holds no signatures"):
        Shipment.read(wheel)


def test_it_is_the_app_of_the_run(wheel: Path) -> None:
    shipment = Shipment.read(wheel)
    mine = App(name=NAME, version="1.0", digest=shipment.app, object=f"{NAME}:client")
    shipment.check_same(mine)
    for other in (replace(mine, digest=bytes(32)), replace(mine, name="other")):
        with pytest.raises(AppDiffers, match=shipment.app.hex()) as caught:
            shipment.check_same(other)
        assert other.digest.hex() in caught.value.what
