"""What `umbel new` writes runs at once: it is simulated, tested, built into a wheel, and its units are understood."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from umbel.apps.new import TEMPLATES, new_project
from umbel.apps.project import Project

NEEDS = {"numpy": "numpy", "pytorch": "torch", "sklearn": "sklearn"}


@pytest.fixture(params=TEMPLATES)
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A new project of each template, whose framework is installed."""
    template = request.param
    if importlib.util.find_spec(NEEDS[template]) is None:
        pytest.skip(f"needs {NEEDS[template]}")
    new_project(tmp_path / f"new-{template}", template, ops=True)
    return tmp_path / f"new-{template}"


def python(directory: Path, *arguments: str) -> str:
    """Run Python in a directory; returns what it printed."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_imported_and_simulated(project: Path) -> None:
    found = Project.find(project)
    program = f"""
        from pathlib import Path
        import umbel
        from umbel.apps.load import load_client, load_server

        path = Path({str(project)!r})
        client, server = load_client({found.client!r}, path=path), load_server({found.server!r}, path=path)
        assert client.names() == {{"train", "evaluate"}}
        names = ["berlin", "lyon", "turin"]
        for clients in (names, {{name: {{}} for name in names}}):
            result = umbel.run(server, client, on=umbel.Simulation(clients=clients), rounds=2, seed=1)
            print(result.model.digest())
        assert result.history["accuracy"][-1] > 0.6
    """
    first, second = python(project.parent, "-c", textwrap.dedent(program)).split()
    assert first == second


def test_its_module_runs_the_simulation(project: Path) -> None:
    lines = python(project, "-m", project.name.replace("-", "_")).splitlines()
    assert len(lines) == 10
    assert re.fullmatch(r"round 10: loss \d\.\d{4}, accuracy \d\d\.\d%", lines[-1])


def test_its_tests_pass(project: Path) -> None:
    assert "2 passed" in python(project, "-m", "pytest", "-q", "-p", "no:cacheprovider")


def test_the_wheel_has_the_digest_of_the_directory(project: Path, tmp_path: Path) -> None:
    python(project, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path))
    (wheel,) = tmp_path.glob("*.whl")
    packed, here = Project.find(wheel), Project.find(project)
    assert packed.digest == here.digest
    assert (packed.client, packed.server, packed.version) == (here.client, here.server, here.version)
    unpacked = packed.unpacked(tmp_path / "apps")
    assert unpacked.digest == here.digest


def test_a_file_of_the_owners_is_read(tmp_path: Path) -> None:
    new_project(tmp_path / "csv_fed")
    (tmp_path / "berlin.csv").write_text("1,2,3,4,5,0\n5,4,3,2,1,1\n")
    program = (
        "from csv_fed.data import load; print(*(part.tolist() for part in load('berlin', {'path': '../berlin.csv'})))"
    )
    assert python(tmp_path / "csv_fed", "-c", program).split("\n")[0].endswith("[0, 1]")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    files = new_project(tmp_path / "myfed", ops=True)
    units = [file for file in files if file.suffix == ".service"]
    assert len(units) == 2
    for unit in units:  # where the units are tried, nothing is installed in /opt
        unit.write_text(unit.read_text().replace("/opt/myfed/bin/umbel", sys.executable))
        for setting in ("NoNewPrivileges=yes", "ProtectSystem=strict", "StateDirectory=", "Restart=always"):
            assert setting in unit.read_text()
    verify = ["systemd-analyze", "verify", *map(str, units)]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if "myfed" in line]  # it speaks of the machine's units, too
    assert said == []
