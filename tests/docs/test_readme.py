"""What the README shows of other files is what stands in them."""

from __future__ import annotations

import re
import runpy
import sys

import pytest

from tests.docs.documents import ROOT, fences

README = (ROOT / "README.md").read_text(encoding="utf-8")


def squeezed(line: str) -> str:
    """Return a line without its comment and its spaces at the ends."""
    return re.sub(r"\s+#.*", "", line).strip()


def test_it_opens_with_two_sentences_and_the_two_commands() -> None:
    title, what, commands, *_ = README.split("\n\n")
    assert title == "# Umbel"
    assert len(re.findall(r"\.(?:\s|$)", what)) == 2
    assert re.findall(r"^make \w+", commands, flags=re.MULTILINE) == ["make demo", "make test"]


def test_it_stays_short() -> None:
    assert len(README.splitlines()) <= 190


def test_the_program_for_pytorch_is_that_of_the_example() -> None:
    example = {squeezed(line) for line in (ROOT / "examples" / "digits.py").read_text(encoding="utf-8").splitlines()}
    shown = next(source for _, source in fences(README) if "umbel.torch.into" in source)
    assert [line for line in map(squeezed, shown.splitlines()) if line not in example] == []


def test_the_table_is_what_the_demo_prints(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """That of a simulation: the demo itself, and that a deployed run gives the same bits, are tested as programs."""
    folder = ROOT / "examples" / "heart_disease"
    before = set(sys.modules)
    monkeypatch.syspath_prepend(folder)
    demo = runpy.run_path(str(folder / "demo.py"))
    demo["print_comparison"](demo["simulate"]().model)
    tops = {"heart_disease", *(path.stem for path in folder.glob("*.py"))}
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in tops:
            monkeypatch.delitem(sys.modules, name)
    table = next(source for language, source in fences(README) if language == "text" and "Cleveland" in source)
    assert table in capsys.readouterr().out
