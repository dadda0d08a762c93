from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

from umbel.apps.digest import digest_of_directory
from umbel.apps.new import TEMPLATES, new_project
from umbel.apps.project import Project
from umbel.apps.settings import resolve
from umbel.errors import UsageError
from umbel.node.config import read_config


@pytest.mark.parametrize("ops", [False, True])
@pytest.mark.parametrize("template", TEMPLATES)
def test_what_is_written(tmp_path: Path, template: str, ops: bool) -> None:
    files = new_project(tmp_path / "my-fed", template, ops=ops)
    assert sorted(files) == sorted(path for path in (tmp_path / "my-fed").rglob("*") if path.is_file())
    for file in files:
        text = file.read_text()
        assert "{{" not in text
        assert max(map(len, text.splitlines())) <= 130
        if file.suffix == ".py":
            ast.parse(text)
    assert (tmp_path / "my-fed" / ".gitignore").exists()
    assert (tmp_path / "my-fed" / "systemd").exists() is ops


@pytest.mark.parametrize("template", TEMPLATES)
def test_it_is_a_project_with_settings(tmp_path: Path, template: str) -> None:
    new_project(tmp_path / "my-fed", template)
    project = Project.find(tmp_path / "my-fed")
    assert (project.name, project.version, project.package) == ("my-fed", "0.1.0", "my_fed")
    assert (project.client, project.server) == ("my_fed.app:client", "my_fed.app:server")
    assert project.digest == digest_of_directory(tmp_path / "my-fed", "my_fed")
    found = resolve(project.table, file=project.file)
    assert found["seed"] == 1
    assert found["simulation.clients"] == ("berlin", "lyon", "turin")
    needed = tomllib.loads((tmp_path / "my-fed" / "pyproject.toml").read_text())["project"]["dependencies"]
    assert tuple(needed) == TEMPLATES[template].dependencies


def test_the_owners_file_can_be_read(tmp_path: Path) -> None:
    new_project(tmp_path / "myfed", ops=True)
    assert read_config(tmp_path / "myfed" / "systemd" / "node.toml").name == "berlin"


def test_no_command_that_others_see_has_the_ticket(tmp_path: Path) -> None:
    for file in new_project(tmp_path / "myfed", ops=True):
        text = file.read_text()
        commands = [line for line in text.splitlines() if line.lstrip().startswith(("ExecStart=", "command:"))]
        assert not [line for line in commands if "$" in line or "umbel://" in line], file
        if file.name in ("myfed-node.service", "compose.yaml"):
            assert "UMBEL_TICKET" in text


def test_an_empty_directory_will_do_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "myfed").mkdir()
    new_project(tmp_path / "myfed")
    with pytest.raises(UsageError, match="is there already"):
        new_project(tmp_path / "myfed")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        new_project(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["MyFed", "1fed", "my fed", "my.fed", "class", "_fed", "für", "-fed"])
def test_what_cannot_be_a_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be called") as caught:
        new_project(tmp_path / name)
    assert "small letters" in caught.value.advice
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["json", "numpy", "torch", "umbel", "tests"])
def test_a_name_that_hides_a_module(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="would hide the module"):
        new_project(tmp_path / name)


def test_a_template_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no template 'torch'") as caught:
        new_project(tmp_path / "myfed", "torch")
    assert "pytorch" in caught.value.advice
