"""Which apps are at the server."""

from __future__ import annotations

from pathlib import Path

import pytest

from umbel.apps.digest import digest_of_directory
from umbel.apps.project import Project
from umbel.errors import AppDiffers, AppMissing, UsageError
from umbel.server.installed import Installed
from umbel.store.sql import RunRow


def project(root: Path, text: str) -> Project:
    (root / "myfed").mkdir(parents=True)
    (root / "myfed" / "__init__.py").write_text(text)
    return Project(package="myfed", name="myfed", version="1.0", client="myfed:client", server="", source=root)


def run(digest: bytes, name: str = "myfed") -> RunRow:
    app = {"name": name, "version": "2.0", "digest": digest.hex()}
    return RunRow(id="a" * 32, key="k", name="run", owner="alice", submission="{}", app=app)


def test_the_one_with_the_digest_is_found_among_versions(tmp_path: Path) -> None:
    projects = [project(tmp_path / name, name) for name in ("old", "new")]
    for one in projects:
        assert Installed(projects).find(run(one.digest), "myfed:server") is one


def test_one_that_is_not_there(tmp_path: Path) -> None:
    one = project(tmp_path, "")
    with pytest.raises(AppMissing, match=r"myfed:server has code that runs at the server(.|\n)*it has none"):
        Installed().find(run(one.digest), "myfed:server")
    with pytest.raises(AppMissing, match=r"it has myfed(.|\n)*umbel server --app; then: umbel resume aaaaaaaa"):
        Installed([one]).find(run(one.digest, "other"), "other:server")


def test_one_that_differs_is_named_with_both_digests_as_its_files_are_now(tmp_path: Path) -> None:
    one = project(tmp_path, "")
    before = one.digest
    (tmp_path / "myfed" / "__init__.py").write_text("changed = True\n")
    now = digest_of_directory(tmp_path, "myfed")
    with pytest.raises(AppDiffers, match=f"{before.hex()}(.|\n)*at the server(.|\n)*{now.hex()}"):
        Installed([one]).find(run(before), "myfed:server")
    assert Installed([one]).find(run(now), "myfed:server") is one


def test_a_server_app_of_another_package(tmp_path: Path) -> None:
    one = project(tmp_path, "")
    with pytest.raises(UsageError, match="not in the package 'myfed'"):
        Installed([one]).find(run(one.digest), "elsewhere:server")
