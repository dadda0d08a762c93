"""One word for one thing: the glossary defines each word once, and the code uses no other."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.documents import ROOT
from umbel.spec import ROLES

SOURCE = ROOT / "src" / "umbel"
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
DEFINED = [term for group in re.findall(r"\*\*([^*]+)\*\*", GLOSSARY) for term in group.split(", ")]
ASIDE = [word for row in re.findall(r"^\| ([^|]+) \|", GLOSSARY, flags=re.MULTILINE) for word in row.split(", ")]

# What the design calls its words, and those that the code added.
MUST = """
    accumulator, adapter, address, aggregator, answer, app, arrays, attempt, audit trail, blob, broadcast, call, chain,
    child, client, client state, close, cohort, commit, correction, data set, desk, driver, effect, entry, exchange,
    failure, hub, journal, ledger, link, local rule, login, main, node, operator, outbox, owner, place, plan, policy,
    population, query, question, quorum, recipe, record, reduction, role, round, run, runner, sampler, sequence, server,
    server optimizer, session, shard, site, slot, spare, spec, spool, store, strategy, stream, submission, task, ticket,
    token, trait, transform, update, verdict, viewer, weight, wire, worker
"""

# Words for which the glossary has another one, and identifiers in which they have a meaning of their own.
FORBIDDEN: dict[str, frozenset[str]] = {
    "coordinator": frozenset(),
    "device": frozenset({"_device", "_devices", "device", "devices", "per_device", "pick_device"}),  # of PyTorch
    "epoch": frozenset({"_epoch", "epoch", "epochs"}),  # a pass over a client's data
    "experiment": frozenset(),
    "global_model": frozenset(),
    "hyperparameter": frozenset(),
    "iteration": frozenset(),
    "job": frozenset(),
    "local_model": frozenset(),
    "participant": frozenset(),
    "party": frozenset(),
    "peer": frozenset(),
    "plugin": frozenset(),
    "selection": frozenset(),
    "state_dict": frozenset(),
}


def identifiers(source: str) -> Iterator[str]:
    """Yield every name that a module gives: classes, functions, arguments, variables, attributes."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name


def words(identifier: str) -> str:
    """Return the words of an identifier in small letters, singular, joined by underscores."""
    parts = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", identifier)
    return "_".join(_singular(part.lower()) for part in parts)


def _singular(word: str) -> str:
    return f"{word[:-3]}y" if word.endswith("ies") else word.removesuffix("s")


def misused(source: str) -> list[str]:
    """Return the identifiers of a module that have a word for which the glossary has another."""
    return [
        name
        for name in identifiers(source)
        for word, lawful in FORBIDDEN.items()
        if f"_{word}_" in f"_{words(name)}_" and name not in lawful
    ]


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_the_code_uses_the_words_of_the_glossary(path: Path) -> None:
    assert misused(path.read_text(encoding="utf-8")) == []


def test_every_word_is_defined_once() -> None:
    assert [term for term, count in Counter(DEFINED).items() if count > 1] == []


def test_the_words_of_the_design_are_defined() -> None:
    emphasised = {word.lower() for word in re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", GLOSSARY)} | set(DEFINED)
    assert [word for word in map(str.strip, MUST.split(",")) if word not in emphasised] == []


@pytest.mark.parametrize("role", ROLES)
def test_every_role_is_explained(role: str) -> None:
    entry = next(line for line in GLOSSARY.split("\n\n") if line.startswith("**role**"))
    assert f"*{role}*" in entry.lower()


def test_what_the_code_may_not_say_is_in_the_list_of_words_not_used() -> None:
    said = {_singular(re.sub(r" \(.*\)", "", word)).replace(" ", "_") for word in ASIDE}
    assert [word for word in FORBIDDEN if word not in said] == []


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("class ParticipantList: pass", ["ParticipantList"]),
        ("def run(jobs): pass", ["jobs"]),
        ("def run(object): pass", []),
        ("for epoch_count in range(3): pass", ["epoch_count"]),
        ("self.parties = 1", ["parties"]),
        ("x = net.state_dict()", []),  # PyTorch's word, used and not given
        ("def f(device, workers): pass", []),
    ],
)
def test_the_check(source: str, names: list[str]) -> None:
    assert misused(source) == names
