"""Worker processes from where people work: a notebook, a script without a guard, pytest, and a small /dev/shm."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import umbel
from tests.acceptance.processes import MARK, PATIENCE, alive, needs_proc, until

CELLS = [
    """
    import os
    import numpy as np
    import umbel
    """,
    """
    client = umbel.ClientApp()
    here = os.getpid()

    def step(model, x):
        return model + 0.1 * x.mean(axis=0)

    @client.data
    def data(ctx):
        return ctx.rng.normal(size=(10, 3))
    """,
    """
    @client.train
    def train(model, ctx):
        print("training", ctx.client.name)
        moved = model.with_values({"w": model["w"] + 0.1 * ctx.data.mean(axis=0)})
        return umbel.Update(model=moved, weight=len(ctx.data), metrics={"away": float(os.getpid() != here)})
    """,
    """
    server = umbel.ServerApp(model={"w": np.zeros(3)}, strategy=umbel.fed_avg(), rounds=2)
    federation = umbel.Simulation(clients=4, engine="processes", workers=2)
    first = umbel.run(server, client, on=federation, seed=1, dir="run")
    first.history["away"].tolist()
    """,
    """
    longer = umbel.run(server, client, on=federation, seed=1, dir="run", rounds=4)
    inline = umbel.run(server, client, on=umbel.Simulation(clients=4, engine="inline"), seed=1, rounds=4)
    len(longer.history), longer.model == inline.model
    """,
    """
    longer.plot("away")
    """,
]


def test_a_notebook_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient")
    nbformat = pytest.importorskip("nbformat", reason="needs nbclient")
    pytest.importorskip("ipykernel", reason="needs nbclient")
    needs_proc()
    monkeypatch.setenv(MARK, tmp_path.name)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(textwrap.dedent(c).strip()) for c in CELLS])
    kernel = ("python3", {"resources": {"metadata": {"path": str(tmp_path)}}})
    nbclient.NotebookClient(notebook, timeout=120, kernel_name=kernel[0], **kernel[1]).execute()

    def shown(cell: int, kind: str) -> str:
        return "".join(str(o.get("data", {}).get(kind, "")) for o in notebook.cells[cell].outputs)

    def printed(cell: int) -> str:
        return "".join(o["text"] for o in notebook.cells[cell].outputs if o["output_type"] == "stream")

    assert shown(3, "text/plain").endswith("[1.0, 1.0]")
    if importlib.util.find_spec("ipywidgets") is None:
        assert "run  2/2 rounds  cohort 4/4  away 1" in shown(3, "text/plain")
        assert not [o for o in notebook.cells[3].outputs if o.get("name") == "stderr"]
    assert sorted(set(printed(3).split("\n")) - {""}) >= [f"training {i}" for i in range(4)]
    assert shown(4, "text/plain").endswith("(4, True)")
    assert shown(5, "image/png") or shown(5, "text/plain")
    until(lambda: not alive(tmp_path.name), "the end of the kernel and its workers")


SCRIPT = """
import numpy as np
import umbel

print("once")
client = umbel.ClientApp()


class Helper:
    def __init__(self, by):
        self.by = by


helper = Helper(2.0)


@client.train
def train(model, ctx):
    return umbel.Update(model=model + helper.by)


server = umbel.ServerApp(model={"w": np.zeros(3)}, strategy=umbel.fed_avg(), rounds=2)
result = umbel.run(server, client, on=umbel.Simulation(clients=4, engine="processes", workers=2), seed=1)
print(result.model["w"].tolist())
"""


@pytest.mark.parametrize("how", ["file", "stdin", "-c", "-m"])
def test_a_script_without_a_guard(tmp_path: Path, how: str) -> None:
    (tmp_path / "program.py").write_text(SCRIPT)
    arguments = {"file": ["program.py"], "stdin": ["-"], "-c": ["-c", SCRIPT], "-m": ["-m", "program"]}[how]
    given = SCRIPT if how == "stdin" else None
    done = subprocess.run(
        [sys.executable, *arguments], input=given, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.stdout == "once\n[4.0, 4.0, 4.0]\n", done.stderr


@pytest.mark.parametrize("engine", ["processes", "inline"])
def test_a_module_that_runs_while_it_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    """A worker that imports it must not run it again: that would have workers of its own, without end."""
    needs_proc()
    monkeypatch.setenv(MARK, tmp_path.name)
    (tmp_path / "program.py").write_text(SCRIPT.replace('"processes", workers=2', f'"{engine}"'))
    command = [sys.executable, "-c", "import program"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=PATIENCE)
    assert done.stdout.startswith("once\n")
    if engine == "processes":
        assert "RunError: a worker process cannot load the client app: UsageError: a worker process im" in done.stderr
        assert "What to do: put the call of umbel.run under if __name__ == '__main__':" in done.stderr
        assert "take engine=" not in done.stderr, "one advice is enough"
    else:
        assert done.stdout.endswith("[4.0, 4.0, 4.0]\n")
    until(lambda: not alive(tmp_path.name), "the end of its workers")


client = umbel.ClientApp()
BY = 3.0


@client.train
def train(model: Any, ctx: Any) -> umbel.Update:
    return umbel.Update(model=model + BY)


def test_functions_of_a_module_that_pytest_imported() -> None:
    server = umbel.ServerApp(model={"w": np.zeros(3)}, strategy=umbel.fed_avg(), rounds=2)
    result = umbel.run(server, client, on=umbel.Simulation(clients=4, engine="processes", workers=2), seed=1)
    assert result.model is not None
    assert result.model["w"].tolist() == [6.0, 6.0, 6.0]


LARGE = """
import os
import numpy as np
import umbel

assert os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize <= 1 << 20
client = umbel.ClientApp()


@client.train
def train(model, ctx):
    return umbel.Update(model=model + 1.0)


server = umbel.ServerApp(model={"w": np.zeros(5_000_000, np.float32)}, strategy=umbel.fed_avg(), rounds=2)
result = umbel.run(server, client, on=umbel.Simulation(clients=4, engine="processes", workers=2), seed=1)
print(result.model["w"][-1], os.listdir("/dev/shm"))
"""


def test_a_container_whose_shared_memory_is_small(tmp_path: Path) -> None:
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("needs root, to mount a small /dev/shm")
    (tmp_path / "program.py").write_text(LARGE)
    inside = 'mount -t tmpfs -o size=1m none /dev/shm || exit 77; exec "$0" "$1"'
    command = ["unshare", "-m", "sh", "-c", inside, sys.executable, str(tmp_path / "program.py")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs unshare")
    if done.returncode in (1, 77) and "Traceback" not in done.stderr:
        pytest.skip("needs root that may mount, for a small /dev/shm")
    assert done.stdout == "2.0 []\n", done.stderr
