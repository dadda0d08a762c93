"""What tests of apps share: a small project, and its wheel made without a build backend."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

APP = """
import numpy as np
import umbel

client = umbel.ClientApp()

@client.train
def train(model, ctx):
    return umbel.Update(model={"w": model["w"] + 1})

@client.query("count")
def count(model, ctx):
    return umbel.Update(value={"n": np.ones(1)})

server = umbel.ServerApp(model={"w": np.zeros(2)}, strategy=umbel.fed_avg(), rounds=2)
"""
POINTS = """
[project.entry-points."umbel.apps"]
client = "{name}:client"
server = "{name}:server"
"""


def write_project(root: Path, name: str, *, app: str = APP, table: str = "", points: str = POINTS) -> Path:
    """Write a project with one package; returns its directory."""
    package = root / name
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(app)
    (package / "data.txt").write_text("1 2 3\n")
    text = f'[project]\nname = "{name}-dist"\nversion = "1.0"\n{points.format(name=name)}\n{table}'
    (root / "pyproject.toml").write_text(text)
    return root


def contents(name: str, *, requires: tuple[str, ...] = (), app: str = APP) -> dict[str, bytes]:
    """The files of that project's wheel, without RECORD."""
    info = f"{name}_dist-1.0.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}-dist", "Version: 1.0", *(f"Requires-Dist: {r}" for r in requires)]
    points = f"[umbel.apps]\nclient = {name}:client\nserver = {name}:server\n"
    return {
        f"{name}/__init__.py": app.encode(),
        f"{name}/data.txt": b"1 2 3\n",
        f"{info}/METADATA": ("\n".join(lines) + "\n").encode(),
        f"{info}/entry_points.txt": points.encode(),
    }


def write_wheel(directory: Path, name: str, files: Mapping[str, bytes], *, record: str | None = None) -> Path:
    """Write a wheel with these files and a RECORD, a right one unless given."""
    info = f"{name}_dist-1.0.dist-info"
    lines = [f"{path},sha256={_hash(content)},{len(content)}" for path, content in files.items()]
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}_dist-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for each, content in files.items():
            archive.writestr(each, content)
        archive.writestr(f"{info}/RECORD", record if record is not None else "\n".join([*lines, f"{info}/RECORD,,"]))
    return path


def _hash(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
