from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.apps.projects import APP, contents, write_project, write_wheel
from umbel.apps.digest import belongs, counts, digest, digest_of_directory
from umbel.apps.wheel import Wheel
from umbel.errors import AppError, AppMissing

PART = st.text("abcdefgh.é_-", min_size=1, max_size=8).filter(lambda part: part.strip("."))
FILES = st.dictionaries(st.lists(PART, min_size=1, max_size=3).map("/".join), st.binary(max_size=20), max_size=6)
GOLDEN = "7bffd5c81877cb16eb2fd8e5022ff1b62f1b1aaf22b68e5569a064fb377aee21"  # by printf and sha256sum in a shell


def sha(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def test_it_is_what_the_documentation_says() -> None:
    files = {"myfed/b.py": b"2", "myfed/a.py": b"1", "myfed/__pycache__/a.pyc": b"x", "myfed/.hidden": b"x"}
    told = b"umbel-app-1\n"
    for path, content in [(b"myfed/a.py", b"1"), (b"myfed/b.py", b"2")]:
        told += len(path).to_bytes(4, "little") + path + sha(content)
    assert digest({path: sha(content) for path, content in files.items()}) == sha(told)


def test_golden() -> None:
    found = digest({"myfed/__init__.py": sha(b""), "myfed/é.txt": sha(b"abc")})
    assert found.hex() == GOLDEN


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("myfed/app.py", True),
        ("myfed.py", True),
        ("myfed/py.typed", True),
        ("myfed/__pycache__/app.cpython-311.pyc", False),
        ("myfed/app.pyc", False),
        ("myfed/.git/config", False),
        ("myfed/.env", False),
        ("myfed/a.b/c..d", True),
    ],
)
def test_what_counts(path: str, expected: bool) -> None:
    assert counts(path) is expected


def test_what_belongs_to_a_package() -> None:
    assert belongs("myfed/a/b.py", "myfed")
    assert belongs("myfed.py", "myfed")
    assert not belongs("myfed2/a.py", "myfed")
    assert not belongs("src/myfed.py", "myfed")


def portable(files: dict[str, bytes]) -> dict[str, bytes]:
    """Those of which none is a directory of another, in names that no file system confuses."""
    above = {str(parent) for path in files for parent in PurePosixPath(path).parents}
    kept = {path: content for path, content in files.items() if path not in above}
    return {path: content for path, content in kept.items() if "/__init__.py" not in f"/{path}/"}


@given(FILES)
def test_a_directory_and_a_wheel_have_the_same(
    tmp_path_factory: pytest.TempPathFactory, drawn: dict[str, bytes]
) -> None:
    root = tmp_path_factory.mktemp("project")
    files = {f"myfed/{path}": content for path, content in portable(drawn).items()} | {"myfed/__init__.py": b""}
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    (root / "myfed" / "__pycache__").mkdir()
    (root / "myfed" / "__pycache__" / "x.pyc").write_bytes(os.urandom(3))
    packed = {path: content for path, content in files.items() if counts(path)}
    wheel = write_wheel(root, "myfed", contents("myfed") | packed | {"myfed/data.txt": b""})
    (root / "myfed" / "data.txt").write_bytes(b"")
    assert Wheel.read(wheel).digest("myfed") == digest_of_directory(root, "myfed")


@given(FILES, st.data())
def test_any_change_changes_it(drawn: dict[str, bytes], data: st.DataObject) -> None:
    files = {f"myfed/{path}": sha(content) for path, content in drawn.items()} | {"myfed/__init__.py": sha(b"")}
    changed = dict(files)
    path = data.draw(st.sampled_from([path for path in files if counts(path)]))
    match data.draw(st.sampled_from(["content", "name", "gone"])):
        case "content":
            changed[path] = sha(b"something else altogether, and longer")
        case "name":
            changed[path + "xyzzy"] = changed.pop(path)
        case _:
            del changed[path]
    assert digest(changed) != digest(files)
    assert digest(dict(reversed(files.items()))) == digest(files)


def test_a_module_alone(tmp_path: Path) -> None:
    (tmp_path / "myfed.py").write_text(APP)
    (tmp_path / "other.py").write_text("")
    path = b"myfed.py"
    told = b"umbel-app-1\n" + struct.pack("<I", len(path)) + path + sha(APP.encode())
    assert digest_of_directory(tmp_path, "myfed") == sha(told)


def test_links_count_as_what_they_lead_to(tmp_path: Path) -> None:
    write_project(tmp_path / "a", "myfed")
    write_project(tmp_path / "b", "myfed")
    data = tmp_path / "b" / "myfed" / "data.txt"
    data.rename(tmp_path / "elsewhere.txt")
    data.symlink_to(tmp_path / "elsewhere.txt")
    assert digest_of_directory(tmp_path / "a", "myfed") == digest_of_directory(tmp_path / "b", "myfed")


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    write_project(tmp_path, "myfed")
    (tmp_path / "myfed" / "lost.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(AppError, match=r"lost\.txt"):
        digest_of_directory(tmp_path, "myfed")
    (tmp_path / "myfed" / "lost.txt").unlink()
    (tmp_path / "myfed" / "circle").symlink_to(tmp_path / "myfed")
    with pytest.raises(AppError, match="circle is a link to a directory above it"):
        digest_of_directory(tmp_path, "myfed")


def test_what_is_no_package_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(AppMissing, match="holds no package 'myfed'"):
        digest_of_directory(tmp_path, "myfed")
    (tmp_path / "myfed").mkdir()
    with pytest.raises(AppError, match=r"has no __init__\.py"):
        digest_of_directory(tmp_path, "myfed")
