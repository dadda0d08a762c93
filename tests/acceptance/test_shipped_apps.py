"""An app that comes through the server runs where its owner trusts who signed it, and nowhere else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import umbel
from tests.acceptance.deployed import Federation, environment, federation
from umbel.apps.load import load_client, load_server
from umbel.apps.project import Project
from umbel.errors import RunError
from umbel.remote.remote import Remote
from umbel.remote.shipment import Shipment

OTHER = "somebody-else.pem"


class Shipping:
    """A federation whose node "open" has no app and takes what one signer has signed; and a wheel."""

    def __init__(self, fed: Federation) -> None:
        self.fed = fed
        self.key = fed.root / "signer.pem"
        public = fed.records("sign", "key", str(self.key))[0]["key"]
        fed.records("sign", "key", str(fed.root / OTHER))
        config = fed.root / "open.toml"
        config.write_text(f'[policy]\ncode_from_server = true\nsigners = ["{public}"]\n', encoding="utf-8")
        self.directory = fed.root / "open"
        node = ("node", fed.ticket, "--name", "open", "--config", str(config), "--dir", str(self.directory))
        self.node = node
        self.wheel = built(fed.app, fed.root / "dist", fed.home)

    def run(self, wheel: Path, *more: str, node: str = "open", status: int = 0) -> Any:
        command = ("run", str(wheel), "--on", "localhost", "--ship", "--nodes", node, "--seed", "7", "--rounds", "2")
        return self.fed(*command, *more, status=status)


def built(app: Path, directory: Path, home: Path) -> Path:
    """The wheel of an app."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    subprocess.run(command, cwd=app, check=True, capture_output=True, env=environment(home), stdin=subprocess.DEVNULL)
    (wheel,) = directory.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def shipping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shipping]:
    made = federation(tmp_path_factory.mktemp("shipped"))
    try:
        shipping = Shipping(made)
        with made.program(*shipping.node) as node:
            node.wait_for("connected: ")
            made.node("closed", app=_another(made))
            yield shipping
    finally:
        made.close()


def copied(wheel: Path, directory: Path) -> Path:
    """A wheel of a test's own, which nobody has signed."""
    directory.mkdir()
    return Path(shutil.copy(wheel, directory))


def _another(fed: Federation) -> Path:
    fed("new", str(fed.root / "another"))
    return fed.root / "another"


def test_nobody_has_signed_it_then_the_wrong_one_then_the_right_one(shipping: Shipping, tmp_path: Path) -> None:
    fed, wheel = shipping.fed, copied(shipping.wheel, tmp_path / "dist")
    before = len(fed.records("node", "log", "--dir", str(shipping.directory)))
    assert fed("sign", "check", str(wheel), status=1).stdout.endswith("Nobody has signed it.\n")
    refused = shipping.run(wheel, status=1).stderr
    assert "nobody whom its owner trusts has signed it; signed by: nobody" in refused
    assert "umbel sign WHEEL --key KEY" in refused
    fed("sign", str(wheel), "--key", str(fed.root / OTHER))
    assert "signed by: ed25519:" in shipping.run(wheel, status=1).stderr
    assert not (shipping.directory / "apps").exists()
    fed("sign", str(wheel), "--key", str(shipping.key), "--name", "Ada")
    signed = fed.records("sign", "check", str(wheel))[0]
    assert [one["name"] for one in signed["signatures"]] == ["", "Ada"]
    last = next(line for line in shipping.run(wheel, "--json").stdout.splitlines() if '"result"' in line)
    server, client = (load(f"{fed.package}.app:{side}", path=fed.app) for load, side in SIDES)
    there = umbel.run(server, client, on=umbel.Simulation(["open"]), seed=7, rounds=2)
    assert there.model is not None
    assert there.model.digest() in last
    journal = fed.records("node", "log", "--dir", str(shipping.directory))[before:]
    events = [line["event"] for line in journal]
    assert "refused" in events
    installed = [line for line in journal if line["event"] == "installed"]
    assert [line["app_digest"] for line in installed] == [signed["digest"]]
    assert installed[0]["signed_by"][-1].endswith(" Ada")
    assert events.index("installed") < events.index("sent")
    assert [path.name for path in (shipping.directory / "apps").iterdir()] == [signed["digest"]]


SIDES: tuple[tuple[Any, str], ...] = ((load_server, "server"), (load_client, "client"))


def test_other_code_under_a_signature_never_runs(shipping: Shipping, tmp_path: Path, monkeypatch: Any) -> None:
    fed = shipping.fed
    monkeypatch.setenv("HOME", str(fed.home))
    trace = tmp_path / "it-ran"
    source = fed.app / fed.package / "app.py"
    before = source.read_text(encoding="utf-8")
    source.write_text(f"open({str(trace)!r}, 'w').close()\n{before}", encoding="utf-8")
    large = source.with_name("large.bin")  # more than what the server keeps in its database
    large.write_bytes(os.urandom(3 << 20))
    try:
        tampered = built(fed.app, tmp_path / "dist", fed.home)
    finally:
        source.write_text(before, encoding="utf-8")
        large.unlink()
    wheel = copied(shipping.wheel, tmp_path / "honest")
    fed("sign", str(wheel), "--key", str(shipping.key))
    honest = Shipment.read(wheel)
    place = umbel.connect(fed.token, nodes=["open"])
    lying = Remote(place.address, place.place, replace(honest, content=tampered.read_bytes()))
    server, client = (load(f"{fed.package}.app:{side}", path=fed.app) for load, side in SIDES)
    with pytest.raises(RunError) as caught:
        umbel.run(server, client, on=lying, rounds=1)
    said = str(caught.value)
    assert f"its files have the digest {Project.find(tampered).digest.hex()}" in said
    assert f"the run says {honest.app.hex()}" in said
    assert not trace.exists()
    wrong = tampered.with_name(tampered.name + ".sig")
    wrong.write_bytes(wheel.with_name(wheel.name + ".sig").read_bytes())
    assert "is about the app with digest" in shipping.run(tampered, status=1).stderr  # it does not even leave


def test_where_no_code_may_come_the_run_waits_and_says_why(shipping: Shipping) -> None:
    fed = shipping.fed
    command = ("run", str(shipping.wheel), "--on", "localhost", "--ship", "--nodes", "closed", "--name", "waits")
    with fed.program(*command) as program:
        waits = program.wait_for("run-waits: .*")[0]
    assert f"closed does not have the app '{fed.package}'" in waits
    assert "its owner does not let code come from the server" in waits
    fed("stop", "waits")
    said = fed("doctor", "--app", str(fed.app), status=1).stdout
    assert f"node open does not have {fed.package}, and takes it from the server if its owner trusts it" in said
    assert f"node closed does not have {fed.package}, or its owner does not let it run" in said
    not_sent = fed("run", str(fed.app), "--on", "localhost", "--ship", status=1)
    assert "only wheels travel to nodes" in not_sent.stderr
    assert "pip wheel --no-deps" in not_sent.stderr
