from __future__ import annotations

import logging
import pickle
import subprocess
import sys
import textwrap
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import umbel
from umbel.arrays import Array, Arrays
from umbel.errors import UsageError
from umbel.simulation.messages import Search
from umbel.simulation.shipping import modules_by_file, pack, pack_app, search, search_there, unpack


def program(tmp_path: Path, text: str) -> str:
    """What a program prints, and where it is."""
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(text))
    done = subprocess.run([sys.executable, str(path)], check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_a_large_global_is_named_in_a_warning(tmp_path: Path) -> None:
    said = program(
        tmp_path,
        """
        import numpy as np, umbel
        from umbel.simulation.shipping import pack_app

        TABLE, small = np.zeros(2_000_000), np.zeros(20)
        client = umbel.ClientApp()

        def helper():
            return TABLE.sum() + small.sum()

        @client.train
        def train(model, ctx):
            return umbel.Update(model=model, metrics={"x": [helper() for _ in range(1)][0]})

        pack_app(client)
        """,
    )
    assert "large-app: each worker process is sent 15 MB" in said
    assert "'TABLE', which helper uses, (15 MB)" in said
    assert "@client.setup or @client.data" in said


def test_what_cannot_be_sent_is_named_with_the_way_out(tmp_path: Path) -> None:
    said = program(
        tmp_path,
        """
        import threading, umbel, umbel.errors
        from umbel.simulation.shipping import pack_app

        lock = threading.Lock()
        client = umbel.ClientApp()

        @client.train
        def train(model, ctx):
            with lock:
                return umbel.Update(model=model)

        try:
            pack_app(client)
        except umbel.errors.UsageError as error:
            print(error)
        """,
    )
    assert said.startswith("'lock', which train uses, cannot be sent to a worker process: TypeError: cannot pickle")
    assert "load it in @client.setup or @client.data" in said
    assert "engine='inline'" in said


def test_what_a_closure_holds_is_named() -> None:
    def make(held: Any) -> umbel.ClientApp:
        client = umbel.ClientApp()

        @client.train
        def train(model: Any, ctx: Any) -> Any:
            return held

        return client

    with pytest.raises(UsageError, match="'held', which train uses, cannot be sent"):
        pack_app(make(threading.Lock()))


def test_a_small_app_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert isinstance(pickle.loads(pack_app(umbel.ClientApp())), umbel.ClientApp)  # noqa: S301  # our own
    assert caplog.text == ""


def test_a_module_that_a_path_does_not_lead_to_goes_by_its_file(tmp_path: Path) -> None:
    assert "umbel" not in modules_by_file()
    assert "numpy" not in modules_by_file()
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "far_away.py").write_text("def where():\n    raise LookupError('here')\n")
    said = program(
        tmp_path,
        """
        import importlib.util, sys, numpy as np, umbel
        spec = importlib.util.spec_from_file_location("far_away", "hidden/far_away.py")
        far_away = importlib.util.module_from_spec(spec)
        sys.modules["far_away"] = far_away
        spec.loader.exec_module(far_away)
        client = umbel.ClientApp()

        @client.train
        def train(model, ctx):
            far_away.where()

        server = umbel.ServerApp({"w": np.zeros(1)}, umbel.fed_avg(rounds=umbel.rounds(quorum=0)), 1)
        on = umbel.Simulation(1, engine="processes", workers=1)
        print(umbel.run(server, client, on=on, seed=1).failures[0].traceback)
        """,
    )
    assert "raise LookupError('here')" in said, "the line of the module"
    assert 'File "{}", line 11, in train'.format(tmp_path / "program.py") in said, "and that of the program"
    assert "    far_away.where()" in said


def test_what_is_no_text_on_the_path_stays_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [Path("somewhere"), *sys.path])
    assert search().path == sys.path[1:]


def test_a_path_that_is_new_comes_before_what_a_worker_has_found_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = [*sys.path]
    for name, file in (("far_a", "a.py"), ("far_b", "b.py")):
        (tmp_path / file).write_text("")
        search_there(Search([str(tmp_path), *before], {name: str(tmp_path / file)}))
    sys.path.insert(0, "its own")
    search_there(Search(["new", *before], {"far_b": str(tmp_path / "b.py")}))
    assert sys.path == ["new", *before, "its own", str(tmp_path)]
    assert find_spec("far_b") is not None
    assert find_spec("far_a") is None, "only the last files count"


def test_arrays_of_a_question_go_where_they_are_put_and_each_once() -> None:
    put: list[Arrays] = []

    def get(offset: int, size: int) -> Array:
        data = np.frombuffer(put[offset].to_bytes(), np.uint8)
        assert data.size == size
        return data

    model = Arrays({"w": np.arange(5.0)})
    value = {"model": model, "again": (model, 3), "other": Arrays({"v": np.zeros(2)})}

    def put_one(arrays: Arrays) -> int:
        put.append(arrays)
        return len(put) - 1

    got = unpack(pack(value, put_one), get)
    assert len(put) == 2
    assert got["model"] == got["again"][0] == model
    assert got["other"] == value["other"]


def test_what_cannot_be_asked_is_an_error_that_says_so() -> None:
    with pytest.raises(UsageError, match="what the clients are asked cannot be sent to a worker process: TypeError"):
        pack({"config": threading.Lock()}, lambda _: 0)
