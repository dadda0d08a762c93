"""tools/house.py, on sources that it must pass or reject."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.house import complaints


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    return tmp_path / "src" / "a.py"


@pytest.mark.parametrize(
    "text",
    [
        "@final\nclass A: ...",
        "@typing.final\n@dataclass(frozen=True)\nclass A(Base): ...",
        "class A(enum.Enum):\n    X = 1",
        "class A(ABC): ...",
        "class A(Protocol[T]): ...",
        "class A(Base):\n    @abstractmethod\n    def f(self): ...",
        "class E(Exception): ...\n@final\nclass F(E): ...",
        "class E(Exception): ...\nclass F(E, ValueError): ...\n@final\nclass G(F): ...",
    ],
)
def test_abstract_or_final_passes(source: Path, text: str) -> None:
    source.write_text(text)
    assert complaints(source.parents[1]) == []


@pytest.mark.parametrize(
    ("text", "line", "name"),
    [
        ("class A: ...", 1, "A"),
        ("@dataclass\nclass A(Generic[T]): ...", 2, "A"),
        ("class A: ...\n@final\nclass B(A): ...", 1, "A"),  # derived from, yet not abstract
        ("class E(Exception): ...", 1, "E"),
        ("class E(Exception): ...\nclass F(E): ...", 2, "F"),
        ("def f():\n    class A: ...", 2, "A"),
    ],
)
def test_neither_is_rejected(source: Path, text: str, line: int, name: str) -> None:
    source.write_text(text)
    assert complaints(source.parents[1]) == [f"src/a.py:{line}: {name}: is neither abstract nor @final"]


@pytest.mark.parametrize("name", ["utils.py", "common.py", "helpers.py"])
def test_a_name_that_says_nothing_is_rejected(source: Path, name: str) -> None:
    source.with_name(name).write_text("")
    assert complaints(source.parents[1]) == [f"src/{name}: name it for the noun it defines"]


def test_a_folder_that_says_nothing_is_rejected(source: Path) -> None:
    source.with_name("utils").mkdir()
    assert complaints(source.parents[1]) == ["src/utils: name it for the noun it defines"]
