"""README and docs are executed, and name only what exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.documents import LANGUAGES, PAGES, ROOT, execute, fences, make_targets, parse

TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    execute(ROOT / page, monkeypatch)


@pytest.mark.parametrize("page", PAGES)
def test_blocks_name_a_known_language(page: str) -> None:
    """A block marked `py` would escape from being run."""
    languages = {language for language, _ in fences((ROOT / page).read_text(encoding="utf-8"))}
    assert languages <= LANGUAGES


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page: str) -> None:
    assert make_targets((ROOT / page).read_text(encoding="utf-8")) <= TARGETS


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Links to files of the repository; what is outside is not asked."""
    here = ROOT / page
    links = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)[^)]*\)", here.read_text(encoding="utf-8"))
    assert [link for link in links if not (here.parent / link).exists()] == []


class TestTheHarness:
    """The harness itself, on pages that it must run or reject."""

    @pytest.fixture
    def page(self, tmp_path: Path) -> Path:
        return tmp_path / "page.md"

    def test_blocks_share_a_namespace(self, page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        page.write_text("```python\nx = 1\n```\nand\n```python\nassert x == 1\nassert __name__ == '__main__'\n```\n")
        assert execute(page, monkeypatch) == 2

    def test_a_wrong_block_fails(self, page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        page.write_text("```python\nassert 1 + 1 == 3\n```\n")
        with pytest.raises(AssertionError):
            execute(page, monkeypatch)

    def test_a_wrong_answer_in_a_session_fails(self, page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        page.write_text("```python\n>>> 1 + 1\n3\n```\n")
        with pytest.raises(AssertionError, match="Got:\n    2"):
            execute(page, monkeypatch)

    def test_a_block_is_left_out_with_a_reason(self, page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        page.write_text('<!-- skip: next "needs a second machine" -->\n```python\n1 / 0\n```\n```python\ny = 2\n```\n')
        assert execute(page, monkeypatch) == 1

    def test_a_block_is_not_left_out_without_one(self, page: Path) -> None:
        page.write_text("<!-- skip: next -->\n```python\n1 / 0\n```\n")
        with pytest.raises(ValueError, match="say why"):
            parse(page)

    def test_shell_blocks_name_targets(self) -> None:
        text = "```bash\nmake demo  # quick\n$ make test TORCH=torch lint\n```\n`make clean`, make no mistake\n"
        assert make_targets(text) == {"demo", "test", "lint", "clean"}
