from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.errors import CorruptFile, StoreError
from umbel.store.run_file import FILES, claim, read_run_file, write_run_file

CONTENT = {"umbel": "1", "initial": None, "recipe": {"recipe": {"seed": 3, "nan": float("nan"), "ä": [1, None]}}}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write_run_file(tmp_path / "run.json", CONTENT)
    assert repr(read_run_file(tmp_path / "run.json")) == repr(CONTENT)  # NaN is not equal to itself


def test_nothing_was_written(tmp_path: Path) -> None:
    assert read_run_file(tmp_path / "run.json") is None


@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_damage_is_noticed_or_does_not_matter(place: float, flip: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "run.json"
        write_run_file(path, CONTENT)
        content = bytearray(path.read_bytes())
        content[int(place * len(content))] ^= flip
        path.write_bytes(content)
        try:
            found = read_run_file(path)
        except StoreError as error:
            assert "run.json" in str(error)
        else:
            assert repr(found) == repr(CONTENT)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "{", '{"format": 1}', "\xff"])
def test_something_else_is_damage(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text, encoding="latin-1")
    with pytest.raises(CorruptFile, match=r"run\.json is damaged"):
        read_run_file(tmp_path / "run.json")


def test_a_file_that_was_edited_is_noticed(tmp_path: Path) -> None:
    write_run_file(tmp_path / "run.json", CONTENT)
    (tmp_path / "run.json").write_text((tmp_path / "run.json").read_text().replace('"seed": 3', '"seed": 4'))
    with pytest.raises(CorruptFile, match="or was edited"):
        read_run_file(tmp_path / "run.json")


def test_a_later_format_is_named(tmp_path: Path) -> None:
    write_run_file(tmp_path / "run.json", CONTENT)
    content = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**content, "format": 2}))
    with pytest.raises(StoreError, match=r"run\.json has format 2, not 1"):
        read_run_file(tmp_path / "run.json")


def test_a_directory_is_made_with_those_above_it(tmp_path: Path) -> None:
    claim(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_a_path_that_the_system_refuses_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"xxx: [A-Z].*\n.*check the path"):
        claim(tmp_path / ("x" * 300))


@pytest.mark.parametrize("name", FILES)
def test_what_is_not_ours_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("")
    with pytest.raises(StoreError, match=f"has a '{name}' that is not ours"):
        claim(tmp_path)


def test_a_directory_is_ours_by_its_lock_or_its_recipe(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("")
    (tmp_path / "umbel.lock").write_text("")
    claim(tmp_path)
    (tmp_path / "umbel.lock").unlink()
    write_run_file(tmp_path / "run.json", CONTENT)
    claim(tmp_path)


def test_other_files_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("")
    claim(tmp_path)
