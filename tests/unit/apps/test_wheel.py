from __future__ import annotations

import hashlib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.apps.projects import contents, write_wheel
from umbel.apps.load import load_client
from umbel.apps.project import Project
from umbel.apps.wheel import Wheel, install
from umbel.errors import AppError, AppMissing, FormatError

NAME = "myfed"
INFO = f"{NAME}_dist-1.0.dist-info"


def test_what_is_in_it(tmp_path: Path) -> None:
    wheel = Wheel.read(write_wheel(tmp_path, NAME, contents(NAME, requires=("numpy>=1.26", "torch; extra == 'gpu'"))))
    assert (wheel.distribution, wheel.version) == ("myfed-dist", "1.0")
    assert wheel.objects == {"client": "myfed:client", "server": "myfed:server"}
    assert wheel.requires == ("numpy>=1.26", "torch; extra == 'gpu'")
    assert wheel.files[f"{NAME}/data.txt"] == hashlib.sha256(b"1 2 3\n").digest()


def test_it_is_unpacked_and_imported(tmp_path: Path, name: str) -> None:
    project = Project.find(write_wheel(tmp_path, name, contents(name))).unpacked(tmp_path / "apps")
    assert load_client(project.client, path=project.source).names() == {"train", "count"}
    assert [path.name for path in (tmp_path / "apps").iterdir()] == [project.digest.hex()]


def test_what_is_there_already_is_kept_if_it_is_right(tmp_path: Path) -> None:
    wheel = Wheel.read(write_wheel(tmp_path, NAME, contents(NAME)))
    place = install(wheel, NAME, tmp_path / "apps")
    before = (place / NAME / "data.txt").stat()
    (place / NAME / "__pycache__").mkdir()
    assert install(wheel, NAME, tmp_path / "apps") == place
    assert (place / NAME / "data.txt").stat() == before
    (place / NAME / "data.txt").write_text("changed")
    assert install(wheel, NAME, tmp_path / "apps") == place
    assert (place / NAME / "data.txt").read_text() == "1 2 3\n"


def test_scripts_and_data_are_left_out_and_libraries_are_not(tmp_path: Path) -> None:
    data = f"{NAME}_dist-1.0.data"
    more = {f"{data}/scripts/run": b"#!", f"{data}/data/etc/passwd": b"x", f"{data}/purelib/{NAME}/more.py": b"m = 1\n"}
    more |= {f"{NAME}/__pycache__/more.cpython-311.pyc": b"x", f"{NAME}/.hidden": b"x", f"{INFO}/more.py": b"x"}
    wheel = Wheel.read(write_wheel(tmp_path, NAME, contents(NAME) | more))
    place = install(wheel, NAME, tmp_path / "apps")
    assert {path.name for path in (place / NAME).iterdir()} == {"__init__.py", "data.txt", "more.py"}
    assert [path.name for path in (place / INFO).iterdir()] == ["METADATA"]
    assert [found.version for found in metadata.distributions(path=[str(place)])] == ["1.0"]
    assert (place / NAME / "more.py").read_bytes() == b"m = 1\n"
    assert {path.name for path in place.iterdir()} == {NAME, INFO}
    assert f"{NAME}/more.py" in wheel.files


@pytest.mark.parametrize("path", ["other.py", "other/x.py", "other.pth", f"{NAME}_dist-1.0.data/purelib/other.py"])
def test_what_no_digest_covers_is_refused(tmp_path: Path, path: str) -> None:
    wheel = Wheel.read(write_wheel(tmp_path, NAME, contents(NAME) | {path: b"x"}), "the wheel that came")
    with pytest.raises(FormatError, match=r"the wheel that came holds other(\.py|\.pth)? beside the package 'myfed'"):
        install(wheel, NAME, tmp_path / "apps")
    assert not (tmp_path / "apps").exists()


@pytest.mark.parametrize(
    "path",
    ["../evil.py", "/evil.py", f"{NAME}/../../evil.py", "a\\..\\evil.py", "C:evil.py", ".", "./", f"{NAME}//evil.py"],
)
def test_nothing_is_written_outside(tmp_path: Path, path: str) -> None:
    wheel = write_wheel(tmp_path / "a" / "b", NAME, contents(NAME) | {path: b"evil"})
    with pytest.raises(FormatError, match="would lie outside"):
        Wheel.read(wheel)
    assert [file.name for file in tmp_path.rglob("*") if "evil" in file.name] == []


def test_a_file_whose_name_was_damaged_away_is_not_unpacked(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path, NAME, contents(NAME) | {"evil.py": b"evil"})
    wheel.write_bytes(wheel.read_bytes().replace(b"evil.py", b"\0vil.py"))
    with pytest.raises(FormatError, match="'' would lie outside"):
        Wheel.read(wheel, "the wheel that came")


def test_a_file_that_is_not_what_record_says_is_named(tmp_path: Path) -> None:
    path = write_wheel(tmp_path, NAME, contents(NAME))
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    record = files.pop(f"{INFO}/RECORD").decode()
    changed = write_wheel(tmp_path, NAME, files | {f"{NAME}/data.txt": b"other"}, record=record)
    with pytest.raises(FormatError, match=r"myfed/data\.txt is not what its RECORD says"):
        Wheel.read(changed)
    more = write_wheel(tmp_path, NAME, files | {f"{NAME}/more.py": b""}, record=record)
    with pytest.raises(FormatError, match=r"myfed/more\.py is not what its RECORD says"):
        Wheel.read(more)
    del files[f"{NAME}/data.txt"]
    with pytest.raises(FormatError, match=r"myfed/data\.txt is in its RECORD, and not there"):
        Wheel.read(write_wheel(tmp_path, NAME, files, record=record))


@pytest.mark.parametrize("record", ["", "one", f"{NAME}/__init__.py,md5=abc,3", f"{NAME}/__init__.py,sha256=!,3"])
def test_a_record_without_digests(tmp_path: Path, record: str) -> None:
    with pytest.raises(FormatError, match="RECORD"):
        Wheel.read(write_wheel(tmp_path, NAME, contents(NAME), record=record))


def test_a_file_that_is_there_twice(tmp_path: Path) -> None:
    twice = {f"{NAME}_dist-1.0.data/purelib/{NAME}/data.txt": b"other"}
    with pytest.raises(FormatError, match=r"'myfed/data\.txt' is in it twice"):
        Wheel.read(write_wheel(tmp_path, NAME, contents(NAME) | twice))


def test_what_is_no_wheel(tmp_path: Path) -> None:
    path = tmp_path / "a.whl"
    with pytest.raises(AppMissing, match=r"there is no file .*a\.whl"):
        Wheel.read(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(FormatError, match="is no wheel that can be used"):
        Wheel.read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.py", "")
    with pytest.raises(FormatError, match=r"it has 0 directories \*\.dist-info"):
        Wheel.read(path)


@given(st.data())
def test_damage_is_an_error_of_ours_or_harmless(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    directory = tmp_path_factory.mktemp("damaged")
    path = write_wheel(directory, NAME, contents(NAME))
    whole = Project.find(path).digest
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(len(content) - 3, len(content)))])
    try:
        found = Project.find(path)
    except (FormatError, AppError):
        return
    assert found.digest == whole


def test_what_it_needs_and_is_not_installed_is_named(tmp_path: Path) -> None:
    requires = ("numpy>=1.26", "no-such-part>=2", "umbel", "other_part [x] >=1", "only-there; sys_platform == 'none'")
    wheel = Wheel.read(write_wheel(tmp_path, NAME, contents(NAME, requires=requires)))
    assert wheel.missing() == ["no-such-part>=2", "other_part [x] >=1"]
    with pytest.raises(AppMissing, match="needs no-such-part>=2, other_part") as caught:
        install(wheel, NAME, tmp_path / "apps")
    assert "pip install 'no-such-part>=2'" in caught.value.advice
    assert not (tmp_path / "apps").exists()


def test_another_package_than_it_holds(tmp_path: Path) -> None:
    wheel = Wheel.read(write_wheel(tmp_path, NAME, contents(NAME)))
    with pytest.raises(AppMissing, match="holds no package 'other'") as caught:
        wheel.digest("other")
    assert "it holds myfed;" in caught.value.advice


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    wheel = Wheel.read(write_wheel(tmp_path, NAME, contents(NAME)))
    (tmp_path / "apps").write_text("a file")
    with pytest.raises(AppError, match="apps"):
        install(wheel, NAME, tmp_path / "apps")
    assert (tmp_path / "apps").read_text() == "a file"


def test_a_wheel_that_changes_meanwhile(tmp_path: Path) -> None:
    wheel = Wheel.read(write_wheel(tmp_path, NAME, contents(NAME)))
    write_wheel(tmp_path, NAME, contents(NAME, app="changed = 1\n"))
    with pytest.raises(FormatError, match="has changed while it was unpacked"):
        install(wheel, NAME, tmp_path / "apps")
    assert list((tmp_path / "apps").iterdir()) == []


@pytest.mark.parametrize("name", ["METADATA", "entry_points.txt", "RECORD"])
def test_what_describes_it_is_not_as_large_as_it_likes(tmp_path: Path, name: str) -> None:
    """No digest covers it: whoever sends a signed app can make it anything. Packed it has a few KiB."""
    path = f"myfed_dist-1.0.dist-info/{name}"
    files = contents("myfed")
    if name == "RECORD":
        wheel = write_wheel(tmp_path, "myfed", files, record="\n" * (17 << 20))
    else:
        wheel = write_wheel(tmp_path, "myfed", {**files, path: files[path] + b"\n" * (17 << 20)})
    with pytest.raises(FormatError, match=f"{name} unpacks to 17 MiB, more than 16 MiB"):
        Wheel.read(wheel)


def test_the_list_of_its_files_is_not_as_long_as_it_likes(tmp_path: Path) -> None:
    """Python makes an object of each of its entries, of which ten million fit into half a gigabyte."""
    wheel = write_wheel(tmp_path, NAME, contents(NAME))
    with zipfile.ZipFile(wheel, "a") as archive:
        for number in range(280):
            member = zipfile.ZipInfo(f"{NAME}/{number}.txt")
            member.comment = b"x" * 65_000
            archive.writestr(member, "")
    with pytest.raises(FormatError, match="17 MiB of it are to be read at once"):
        Wheel.read(wheel)
