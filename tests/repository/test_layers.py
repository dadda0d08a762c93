"""The contracts of import-linter in pyproject.toml, on packages that they must keep or break."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SETTINGS: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
CONTRACTS = {contract["id"]: contract for contract in SETTINGS["contracts"]}
ENGINE = CONTRACTS["layers"]["layers"].index("(engine)")
CORE = [
    name.strip(" ()") for layer in CONTRACTS["layers"]["layers"][ENGINE:] for name in layer.replace("|", ":").split(":")
]


def lint(tmp_path: Path, modules: dict[str, str]) -> str:
    """Lint a package `umbel` of these modules, and of empty ones where a contract wants them; return what is said."""
    package = tmp_path / "umbel"
    package.mkdir()
    wanted = ["umbel.__init__", *CONTRACTS["purity"]["source_modules"]]
    for name in {*(full.removeprefix("umbel.") for full in wanted), *modules}:
        (package / f"{name}.py").write_text(modules.get(name, ""))
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return "kept" if done.returncode == 0 else done.stdout + done.stderr


def test_downward_imports_are_kept(tmp_path: Path) -> None:
    modules = {
        "aggregate": "import umbel.arrays",
        "engine": "import umbel.wire, numpy, math",
        "client": "import umbel.engine, threading",
    }
    assert lint(tmp_path, modules) == "kept"


@pytest.mark.parametrize(
    ("module", "imports"), [("arrays", "aggregate"), ("engine", "client"), ("client", "api"), ("optimize", "sample")]
)
def test_an_upward_import_is_broken(tmp_path: Path, module: str, imports: str) -> None:
    said = lint(tmp_path, {module: f"from umbel import {imports}", imports: ""})
    assert f"umbel.{module} is not allowed to import umbel.{imports}" in " ".join(said.split())


def test_a_module_in_no_layer_is_broken(tmp_path: Path) -> None:
    assert "umbel.stray" in lint(tmp_path, {"stray": ""})


@pytest.mark.parametrize("impure", CONTRACTS["purity"]["forbidden_modules"])
def test_an_impure_import_is_broken(tmp_path: Path, impure: str) -> None:
    said = lint(tmp_path, {"errors": f"def f():\n    import {impure}\n"})
    assert f"umbel.errors -> {impure}" in said


def test_the_whole_core_is_held_pure() -> None:
    """Everything from the values up to the engine that exists stands in the purity contract."""
    package = ROOT / "src" / "umbel"
    exists = {name for name in CORE if (package / f"{name}.py").exists() or (package / name / "__init__.py").exists()}
    assert {f"umbel.{name}" for name in exists} == set(CONTRACTS["purity"]["source_modules"])
