"""Links between pages lead to pages and headings that exist, and from docs/index.md one comes to every page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.documents import PAGES, ROOT

DOCS = sorted(page for page in PAGES if page.startswith("docs/"))
SOURCE = ROOT / "src" / "umbel"

ABOUT_CODE = ["docs/architecture.md", *(page for page in DOCS if page.startswith("docs/adr/"))]


def prose(text: str) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^[ \t]*```.*?^[ \t]*```[ \t]*$", "", text, flags=re.MULTILINE | re.DOTALL)


def links(page: Path) -> list[tuple[str, str]]:
    """Return (path, anchor) of every link and image of a page that leads to a file of the repository or to itself."""
    found = re.findall(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]*))?\)", prose(page.read_text(encoding="utf-8")))
    return [(path, anchor) for path, anchor in found if path or anchor]


def anchor_of(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    kept = "".join(c for c in heading.lower() if c.isalnum() or c in " -_")
    return kept.strip().replace(" ", "-")


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    headings = re.findall(r"^#+ +(.+?) *$", prose(page.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {anchor_of(re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", heading)) for heading in headings}


def broken(page: Path) -> list[str]:
    """Return the links of a page that lead nowhere."""
    lost = []
    for path, anchor in links(page):
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(f"{path}#{anchor}" if anchor else path)
    return lost


def reachable(start: Path) -> set[Path]:
    """Return the pages that one comes to from a page, itself among them."""
    found, todo = {start}, [start]
    while todo:
        page = todo.pop()
        targets = {(page.parent / path).resolve() for path, _ in links(page) if path.endswith(".md")}
        todo += targets - found
        found |= targets
    return found


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    assert broken(ROOT / page) == []


def test_every_page_is_reachable_from_the_index() -> None:
    found = reachable((ROOT / "docs" / "index.md").resolve())
    assert [page for page in DOCS if (ROOT / page).resolve() not in found] == []


def test_every_image_is_shown() -> None:
    shown = {(ROOT / page).parent.joinpath(path).resolve() for page in PAGES for path, _ in links(ROOT / page)}
    assert {image.resolve() for image in (ROOT / "docs" / "images").iterdir()} <= shown


@pytest.mark.parametrize("page", ABOUT_CODE)
def test_files_of_the_source_that_a_page_names_exist(page: str) -> None:
    """What looks like `engine/driver.py` or `arrays.py`, also in drawings."""
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"(?<![\w/.-])((?:\w+/)*\w+\.py)\b", text)
    assert [name for name in named if not _is_there(name)] == []


def _is_there(name: str) -> bool:
    return any((folder / name).exists() for folder in (ROOT, SOURCE, SOURCE.parent))


class TestTheChecks:
    """The checks themselves, on pages that they must accept or reject."""

    def test_a_heading_and_its_anchor(self, tmp_path: Path) -> None:
        page = tmp_path / "a.md"
        page.write_text("# One `two`: three\n\n## What is `it`?\n[x](#one-two-three) [y](#what-is-it)\n")
        assert broken(page) == []

    def test_a_lost_anchor_and_a_lost_page(self, tmp_path: Path) -> None:
        page = tmp_path / "a.md"
        page.write_text("# One\n[x](#two) [y](b.md) ![z](c.png)\n```text\n[not a link](d.md)\n```\n")
        assert broken(page) == ["#two", "b.md", "c.png"]

    def test_a_page_on_an_island(self, tmp_path: Path) -> None:
        for name, text in {"a": "[b](b.md)", "b": "[a](a.md)", "island": "[a](a.md)"}.items():
            (tmp_path / f"{name}.md").write_text(text)
        assert {page.stem for page in reachable(tmp_path / "a.md")} == {"a", "b"}
