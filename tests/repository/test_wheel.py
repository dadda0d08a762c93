"""The built wheel is what users get: what is in it, that it works alone, and how much it brings along."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from email.parser import HeaderParser
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
MAX_DISTRIBUTIONS = 20  # the budget for `pip install umbel`, NumPy included
MAX_MEGABYTES = 115  # without what Python compiles, which depends on whether it does


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel with the backend that is installed, without a network."""
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel alone into a directory of its own."""
    target = tmp_path_factory.mktemp("installed")
    options = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--disable-pip-version-check"]
    pip = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    return target


def run_installed(installed: Path, program: str) -> str:
    """Run a program that sees the installed wheel and the packages it needs, but not this checkout."""
    packages = Path(np.__file__).parents[1]
    paths = f"import sys; sys.path[:0] = [{str(installed)!r}, {str(packages)!r}]; "
    alone = [sys.executable, "-I", "-S", "-c", paths + program]
    return subprocess.run(alone, cwd=installed, check=True, capture_output=True, text=True).stdout.strip()


def test_it_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    sources = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*.py")}
    assert {name for name in names if name.startswith("umbel/") and name.endswith(".py")} == sources
    assert "umbel/py.typed" in names
    assert all(re.match(r"umbel/|umbel-[0-9.]+\.dist-info/", name) for name in names)


def test_it_imports_without_the_checkout(installed: Path) -> None:
    imported = run_installed(installed, "import umbel; print(umbel.__file__, umbel.__version__)")
    path, version = imported.rsplit(" ", 1)
    assert Path(path).is_relative_to(installed)
    (info,) = installed.glob("umbel-*.dist-info")
    assert PathDistribution(info).version == version


def test_every_public_name_can_be_touched(installed: Path) -> None:
    assert run_installed(installed, "import umbel; print(*(n for n in umbel.__all__ if not hasattr(umbel, n)))") == ""


def test_its_licence_and_its_lower_bounds(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    header = HeaderParser().parsestr(archive.read(metadata).decode())
    assert header["License-Expression"] == "Apache-2.0"
    assert header["Requires-Python"] == ">=3.11"
    for line in header.get_all("Requires-Dist", []):
        assert not re.search(r"<|==|~=|!=", str(Requirement(line).specifier)), f"not only a lower bound: {line}"


def test_an_installation_is_small(installed: Path) -> None:
    """Count what pip would bring, among the packages that are installed here."""
    (info,) = installed.glob("umbel-*.dist-info")
    found: dict[str, Distribution] = {"umbel": PathDistribution(info)}
    queue = list(found["umbel"].requires or [])
    while queue:
        needed = Requirement(queue.pop())
        if needed.name.lower() in found or (needed.marker and not needed.marker.evaluate({"extra": ""})):
            continue
        found[needed.name.lower()] = here = distribution(needed.name)
        queue += here.requires or []
    files = [Path(str(file.locate())) for dist in found.values() for file in dist.files or [] if file.suffix != ".pyc"]
    assert len(found) <= MAX_DISTRIBUTIONS, sorted(found)
    assert sum(file.stat().st_size for file in files if file.is_file()) / 1e6 <= MAX_MEGABYTES
