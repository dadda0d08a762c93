from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import umbel
from tests.unit.apps.projects import write_project
from umbel.apps.load import load_client, load_object, load_server
from umbel.errors import AppError, AppMissing, UsageError


def test_both_sides_are_loaded(tmp_path: Path, name: str) -> None:
    write_project(tmp_path, name)
    assert load_client(f"{name}:client", path=tmp_path).names() == {"train", "count"}
    assert load_server(f"{name}:server", path=tmp_path).rounds == 2
    assert isinstance(load_object(f"{name}:client"), umbel.ClientApp)


def test_the_package_may_lie_in_src(tmp_path: Path, name: str) -> None:
    write_project(tmp_path / "src", name)
    assert isinstance(load_object(f"{name}:client", path=tmp_path), umbel.ClientApp)


def test_the_path_stands_last_afterwards(tmp_path: Path, name: str) -> None:
    write_project(tmp_path, name)
    (tmp_path / "json.py").write_text("raise RuntimeError('this hides the standard library')")
    before = list(sys.path)
    load_object(f"{name}:client", path=tmp_path)
    assert sys.path == [*before, str(tmp_path)]


def test_the_path_stays_first_where_another_package_would_be_found(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_project(tmp_path / "old", name, app="")
    write_project(tmp_path / "new", name)
    monkeypatch.syspath_prepend(str(tmp_path / "old"))
    load_object(f"{name}:client", path=tmp_path / "new")
    assert sys.path[0] == str(tmp_path / "new")


def test_a_path_that_was_there_stays_where_it_was(tmp_path: Path, name: str) -> None:
    write_project(tmp_path, name)
    sys.path.insert(1, str(tmp_path))
    before = list(sys.path)
    load_object(f"{name}:client", path=tmp_path)
    assert sys.path == before


def test_the_path_is_taken_back_when_importing_fails(tmp_path: Path, name: str) -> None:
    write_project(tmp_path, name, app="1 / 0")
    with pytest.raises(AppError):
        load_object(f"{name}:client", path=tmp_path)
    assert sys.path[0] != str(tmp_path)


def test_nested_attributes(tmp_path: Path, name: str) -> None:
    app = "import umbel\nclass hospital:\n    client = umbel.ClientApp()\n"
    write_project(tmp_path, name, app=app)
    assert isinstance(load_object(f"{name}:hospital.client", path=tmp_path), umbel.ClientApp)
    with pytest.raises(AppMissing, match=rf"{name}\.hospital has no 'cilent'; it has client"):
        load_object(f"{name}:hospital.cilent", path=tmp_path)


def test_a_misspelt_attribute(tmp_path: Path, name: str) -> None:
    write_project(tmp_path, name)
    with pytest.raises(AppMissing, match=rf"{name} has no 'cilent'; it has client, server") as caught:
        load_object(f"{name}:cilent", path=tmp_path)
    assert caught.value.advice == "did you mean 'client'?"


def test_a_misspelt_module(tmp_path: Path, name: str) -> None:
    write_project(tmp_path, name)
    (tmp_path / name / "hospital.py").write_text("")
    with pytest.raises(AppMissing, match=rf"no module '{name}.hopsital'") as caught:
        load_object(f"{name}.hopsital:client", path=tmp_path)
    assert caught.value.advice == "did you mean 'hospital'?"
    with pytest.raises(AppMissing, match=r"holds no package") as caught:
        load_object(f"{name}x:client", path=tmp_path)
    assert caught.value.advice == f"did you mean {name!r}?"


def test_a_part_of_the_app_that_is_missing_is_not_to_be_installed(tmp_path: Path, name: str) -> None:
    """As that which is compiled, in a directory where nobody has built it."""
    write_project(tmp_path, name, app=f"from {name}._fast import two\n")
    with pytest.raises(AppError, match=f"no module '{name}._fast'") as caught:
        load_object(f"{name}:client", path=tmp_path)
    assert caught.value.advice.startswith(f"add '{name}._fast' to the app; if it is compiled, build")


def test_an_import_that_fails_shows_the_apps_own_lines(tmp_path: Path, name: str) -> None:
    write_project(tmp_path, name, app=f"from {name} import deep\n")
    (tmp_path / name / "deep.py").write_text("def fail():\n    return 1 / 0\n\nfail()\n")
    with pytest.raises(AppError, match="ZeroDivisionError") as caught:
        load_object(f"{name}:client", path=tmp_path)
    lines = [line for line in caught.value.what.splitlines() if line.startswith("  File ")]
    assert len(lines) == 3
    assert f"{name}/__init__.py" in lines[0]
    assert "deep.py" in lines[2]


def test_a_dependency_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    write_project(tmp_path, name, app="import no_such_package.part\n")
    with pytest.raises(AppError, match="no module 'no_such_package'") as caught:
        load_object(f"{name}:client", path=tmp_path)
    assert "install" in caught.value.advice
    assert "line 1" in caught.value.what


@pytest.mark.parametrize("app", ["import sys; sys.exit(3)", "def f(:\n"])
def test_whatever_importing_does_it_is_an_error_of_ours(tmp_path: Path, name: str, app: str) -> None:
    write_project(tmp_path, name, app=app)
    with pytest.raises(AppError, match=r"__init__\.py"):
        load_object(f"{name}:client", path=tmp_path)


@pytest.mark.parametrize("wrong", ["", "client", "a:b:c", "a-b:client", "a:", ":b"])
def test_what_names_no_object(wrong: str) -> None:
    with pytest.raises(UsageError, match="names no object"):
        load_object(wrong)


def test_what_is_no_app(tmp_path: Path, name: str) -> None:
    write_project(tmp_path, name, app="import umbel\nclient = 3\nother = umbel.ClientApp()\n")
    with pytest.raises(UsageError, match=rf"{name}:client is a int") as caught:
        load_object(f"{name}:client", path=tmp_path)
    assert "other" in caught.value.advice
    (tmp_path / "alone").mkdir()
    write_project(tmp_path / "alone", f"{name}_alone", app="client = 3\n")
    with pytest.raises(UsageError, match="client is a int") as caught:
        load_object(f"{name}_alone:client", path=tmp_path / "alone")
    assert caught.value.advice == "write client = umbel.ClientApp() in it"


def test_the_other_side(tmp_path: Path, name: str) -> None:
    write_project(tmp_path, name)
    with pytest.raises(UsageError, match=r"is an umbel\.ServerApp, not a ClientApp"):
        load_client(f"{name}:server", path=tmp_path)
    with pytest.raises(UsageError, match=r"is an umbel\.ClientApp, not a ServerApp"):
        load_server(f"{name}:client", path=tmp_path)


def test_a_module_that_another_package_has_taken(tmp_path: Path) -> None:
    write_project(tmp_path, "umbel")
    before = list(sys.path)
    with pytest.raises(AppError, match=r"a module 'umbel' is imported already, from .*umbel"):
        load_object("umbel:client", path=tmp_path)
    assert sys.path == before, "what was refused hides nothing"


def test_worker_processes_find_the_app(tmp_path: Path, name: str) -> None:
    write_project(tmp_path, name)
    program = f"""
        from pathlib import Path
        import umbel
        from umbel.apps.load import load_client, load_server
        path = Path({str(tmp_path)!r})
        client, server = load_client("{name}:client", path=path), load_server("{name}:server", path=path)
        result = umbel.run(server, client, on=umbel.Simulation(clients=2, engine="processes", workers=2), seed=1)
        assert list(result.model["w"]) == [2, 2]
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
