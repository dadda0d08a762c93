"""The Makefile: which Python it takes, and that nothing is installed twice. With a Python that only pretends."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Answers like Python as far as the Makefile asks, and keeps a list of what it was asked.
PRETENDER = """#!/bin/sh
echo "$(basename "$0") $*" >> "$LOG"
if [ "$1 $2" = "-m venv" ]; then
    mkdir -p "$3/bin"
    for name in python ruff mypy lint-imports; do cp "$0" "$3/bin/$name"; done
fi
"""
BROKEN = "#!/bin/sh\necho 'shim: no such version is active' >&2\nexit 127\n"


class Machine:
    """A directory with the Makefile, and a PATH on which only these Pythons are found."""

    def __init__(self, home: Path, pythons: dict[str, str]) -> None:
        self.home, self.log, self.path = home, home / "log", home / "path"
        self.path.mkdir()
        for name, text in pythons.items():
            (self.path / name).write_text(text)
            (self.path / name).chmod(0o755)
        for tool in ("basename", "cat", "cksum", "cp", "cut", "echo", "expand", "mkdir", "rm", "sed", "sh", "touch"):
            (self.path / tool).symlink_to(str(shutil.which(tool)))
        for name in ("Makefile", "pyproject.toml"):
            shutil.copy(ROOT / name, home / name)

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run make; `installs` counts from here."""
        self.log.write_text("")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "UMBEL"))}
        for name in ("JAX", "PYTHON", "RAY", "TORCH", "VENV", "PYTEST_ARGS", "MFLAGS"):
            kept.pop(name, None)
        return subprocess.run(
            [str(shutil.which("make")), *arguments],
            cwd=self.home,
            env={**kept, "PATH": str(self.path), "LOG": str(self.log)},
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def installs(self) -> list[str]:
        """What pip was asked for, in the last call of make."""
        calls = self.log.read_text().splitlines()
        return [call.partition(" install ")[2] for call in calls if " -m pip install " in call]

    @property
    def asked(self) -> str:
        """Everything that was run, in the last call of make."""
        return self.log.read_text()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path, {"python3.13": BROKEN, "python3.12": PRETENDER, "python3": PRETENDER})


def test_it_takes_the_first_python_that_runs(machine: Machine) -> None:
    assert machine.make("demo").returncode == 0
    assert "python3.12 -m venv .venv" in machine.asked


def test_it_takes_the_python_that_is_given(machine: Machine) -> None:
    assert machine.make("demo", "PYTHON=python3").returncode == 0
    assert "python3 -m venv .venv" in machine.asked


def test_it_says_so_where_no_python_will_do(tmp_path: Path) -> None:
    done = Machine(tmp_path, {"python3": BROKEN}).make("demo")
    assert done.returncode != 0
    assert "Umbel needs Python 3.11 or newer" in done.stderr


def test_the_demo_installs_no_torch(machine: Machine) -> None:
    machine.make("demo")
    assert len(machine.installs) == 2  # pip itself, and Umbel with what the demo needs
    assert "torch" not in "".join(machine.installs)
    assert machine.installs[-1].endswith("--editable .[plot,server]")  # it starts a server
    assert "python examples/heart_disease/demo.py" in machine.asked


def test_nothing_is_installed_twice(machine: Machine) -> None:
    machine.make("test")
    assert machine.installs[-1].endswith("--group dev torch")
    for target in ("test", "demo", "lint", "unit"):
        assert machine.make(target).returncode == 0
        assert machine.installs == []


def test_another_torch_is_installed(machine: Machine) -> None:
    machine.make("test")
    machine.make("test", "TORCH=torch==2.13.0")
    assert machine.installs[-1].endswith("--group dev torch==2.13.0")


def test_jax_and_ray_are_installed_where_they_are_asked_for(machine: Machine) -> None:
    machine.make("test")
    assert machine.installs[-1].endswith("--group dev torch")
    done = machine.make("test", "RAY=ray")
    assert machine.installs[-1].endswith("--group dev torch ray")
    assert "UMBEL_REQUIRE='torch  ray " in done.stdout
    done = machine.make("test", "JAX=jax", "RAY=ray")
    assert machine.installs[-1].endswith("--group dev torch jax ray")
    assert "UMBEL_REQUIRE='torch jax ray " in done.stdout


def test_a_failed_installation_is_tried_again(machine: Machine) -> None:
    machine.make("demo")
    pretender = machine.home / ".venv" / "bin" / "python"
    pretender.write_text(PRETENDER + "exit 1\n")
    assert machine.make("test").returncode != 0
    pretender.write_text(PRETENDER)
    assert machine.make("test").returncode == 0
    assert "--group dev" in machine.installs[-1]


def test_the_tests_come_last_and_may_not_skip_what_was_installed(machine: Machine) -> None:
    done = machine.make("test")
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("UMBEL_REQUIRE='torch ")
    assert "-m pytest" in last
