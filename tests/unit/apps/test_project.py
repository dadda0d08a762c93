from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.unit.apps.projects import APP, contents, write_project, write_wheel
from umbel.apps.describe import App, check_same, describe
from umbel.apps.project import Project
from umbel.errors import AppDiffers, AppMissing, UsageError


def write_installed(site: Path, name: str) -> None:
    """Put the files of a wheel where installed packages are."""
    for path, content in contents(name).items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_bytes(content)


def write_editable(site: Path, name: str) -> None:
    """Put there only what an editable installation has: the metadata."""
    write_installed(site, name)
    for file in (site / name).iterdir():
        file.unlink()
    (site / name).rmdir()


def test_a_directory(tmp_path: Path, name: str) -> None:
    write_project(tmp_path, name, table="[tool.umbel]\nseed = 3\nsimulation = { clients = 4 }\n")
    project = Project.find(tmp_path)
    assert (project.package, project.name, project.version) == (name, f"{name}-dist", "1.0")
    assert (project.client, project.server) == (f"{name}:client", f"{name}:server")
    assert (project.source, project.root) == (tmp_path, tmp_path)
    assert project.table["seed"] == 3
    assert project.file == str(tmp_path / "pyproject.toml")
    assert Project.find(str(tmp_path)) == Project.find(tmp_path / "pyproject.toml") == project


def test_the_objects_may_stand_in_the_table(tmp_path: Path, name: str) -> None:
    write_project(tmp_path, name, table=f'[tool.umbel]\nclient = "{name}.a:apps.client"\n', points="")
    project = Project.find(tmp_path)
    assert (project.client, project.server) == (f"{name}.a:apps.client", "")
    with pytest.raises(AppMissing, match=r"pyproject\.toml does not say what its server is"):
        project.object("server")


def test_the_package_may_lie_in_src(tmp_path: Path, name: str) -> None:
    write_project(tmp_path, name)
    (tmp_path / "src").mkdir()
    (tmp_path / name).rename(tmp_path / "src" / name)
    assert Project.find(tmp_path).source == tmp_path / "src"


def test_directory_wheel_and_installed_have_one_digest(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_project(tmp_path / "project", name)
    digest = Project.find(tmp_path / "project").digest
    packed = Project.find(write_wheel(tmp_path, name, contents(name)))
    unpacked = packed.unpacked(tmp_path / "apps")
    assert packed.is_packed
    assert not unpacked.is_packed
    assert unpacked.source == tmp_path / "apps" / digest.hex()
    write_installed(tmp_path / "site", name)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    installed = Project.find(name)
    assert installed == Project.find(f"{name}-dist")
    assert {p.digest for p in (packed, unpacked, installed)} == {digest}


def test_an_editable_installation_has_the_digest_of_its_directory(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_project(tmp_path / "project", name)
    write_editable(tmp_path / "site", name)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.syspath_prepend(str(tmp_path / "project"))  # as its .pth file has it
    installed = Project.find(f"{name}_dist")
    assert installed.source == tmp_path / "project"
    assert installed.version == "1.0"
    assert installed.digest == Project.find(tmp_path / "project").digest
    assert name not in sys.modules


@pytest.mark.parametrize(
    ("table", "what", "advice"),
    [
        ("[tool.umbel]\nround = 3\n", "a key 'round', which is no setting", "did you mean 'rounds'?"),
        ("[tool.umbel]\nclint = 'a:b'\n", "a key 'clint'", "did you mean 'client'?"),
        ("[tool.umbel.simulation]\nclient = 3\n", r"\[tool.umbel.simulation\] has a key 'client'", "'clients'"),
        ("[tool.umbel]\nclient = 'myfed'\n", "client is 'myfed'", 'as in "myfed:client"'),
        ("[tool.umbel]\nclient = 3\n", "client is 3", 'as in "myfed:client"'),
        ("[tool.umbel]\nclient = 'a:c'\nserver = 'b:s'\n", "in different packages, a and b", "put them into one"),
        ("[tool.umbel\n", "cannot be read", "correct it"),
        ('[project.entry-points."umbel.apps"]\nserve = "a:b"\n', "'serve' of .* means nothing", "'server'"),
    ],
)
def test_what_makes_no_sense_is_refused_with_file_and_key(tmp_path: Path, table: str, what: str, advice: str) -> None:
    write_project(tmp_path, "myfed", table=table, points="")
    with pytest.raises(UsageError, match=what) as caught:
        Project.find(tmp_path)
    assert "pyproject.toml" in caught.value.what
    assert advice in caught.value.advice


def test_two_places_that_differ(tmp_path: Path) -> None:
    write_project(tmp_path, "myfed", table='[tool.umbel]\nclient = "a:c"\n')
    with pytest.raises(UsageError, match=r"client is 'a:c' in \[tool.umbel\] and 'myfed:client'"):
        Project.find(tmp_path)


def test_a_table_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool]\numbel = 3\n")
    with pytest.raises(UsageError, match=r"tool\.umbel is 3, not a table"):
        Project.find(tmp_path)


def test_what_is_no_app(tmp_path: Path) -> None:
    with pytest.raises(AppMissing, match=r"has no pyproject\.toml"):
        Project.find(tmp_path)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\n')
    with pytest.raises(AppMissing, match="does not say what the app is") as caught:
        Project.find(tmp_path)
    assert "umbel.apps" in caught.value.advice
    with pytest.raises(AppMissing, match="numpy is installed, and does not say what the app is") as caught:
        Project.find("numpy")
    assert '[project.entry-points."umbel.apps"]' in caught.value.advice
    with pytest.raises(AppMissing, match=r"no app 'no_such_app' is installed, nor is there such a directory"):
        Project.find("no_such_app")
    with pytest.raises(AppMissing, match="there is no file"):
        Project.find(tmp_path / "none.whl")


def test_a_wheel_without_entry_points(tmp_path: Path, name: str) -> None:
    files = {path: content for path, content in contents(name).items() if not path.endswith("entry_points.txt")}
    with pytest.raises(AppMissing, match=r"\.whl does not say what the app is"):
        Project.find(write_wheel(tmp_path, name, files))


class TestDescribe:
    """`describe` and `check_same`."""

    def test_a_directory(self, tmp_path: Path, name: str) -> None:
        project = Project.find(write_project(tmp_path, name))
        app = describe(project)
        assert app == App(
            name=name, version="1.0", digest=project.digest, object=f"{name}:client", handlers=("count", "train")
        )
        assert str(app) == f"{name} 1.0 ({project.digest.hex()[:12]})"

    def test_without_importing_it(self, tmp_path: Path, name: str) -> None:
        project = Project.find(write_project(tmp_path, name, app="1 / 0"))
        assert describe(project, handlers=()).handlers == ()
        assert describe(project, handlers=["train"]).handlers == ("train",)

    def test_an_object_that_can_be_imported(self, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        write_project(tmp_path, name)
        monkeypatch.syspath_prepend(str(tmp_path))
        app = describe(f"{name}:client")
        assert app.digest == Project.find(tmp_path).digest
        assert app.handlers == ("count", "train")
        with pytest.raises(AppMissing, match="no package 'no_such_app'"):
            describe("no_such_app:client")

    def test_another_version_names_both_digests(self, tmp_path: Path, name: str) -> None:
        here = describe(Project.find(write_project(tmp_path / "a", name)), handlers=())
        there = describe(Project.find(write_project(tmp_path / "b", name, app=APP + "\n")), handlers=())
        check_same(here, here)
        with pytest.raises(AppDiffers) as caught:
            check_same(here, there, where="at node 'berlin'")
        assert here.digest.hex() in caught.value.what
        assert there.digest.hex() in caught.value.what
        assert "at node 'berlin'" in caught.value.what
