"""``run.json``, and what tells a run directory from any other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from umbel.errors import CorruptFile, StoreError
from umbel.store.durable import readable_errors, replace_file
from umbel.store.lock import NAME as LOCK

FORMAT = 1  # of the whole directory
FILES = (
    "run.json",
    "journal",
    "exchanges",
    "blobs",
    "clients.sqlite",
    "initial.safetensors",
    "best.safetensors",
    "model.safetensors",
)
_ADVICE = "restore it from a backup, or start in another dir="


def claim(directory: Path) -> None:
    """Make the directory if it is not there; refuse one in which we would overwrite what is not ours.

    Raises:
        StoreError: it is a file, cannot be made, or has such names without being a run directory.
    """
    with readable_errors(directory):
        if directory.exists() and not directory.is_dir():
            raise StoreError(
                f"dir={str(directory)!r} is a file", advice="give a directory, or a path that does not exist"
            )
        directory.mkdir(parents=True, exist_ok=True)
    if (directory / LOCK).exists() or _is_ours(directory / "run.json"):
        return
    taken = next((name for name in FILES if (directory / name).exists()), None)
    if taken is not None:
        raise StoreError(
            f"{directory} is not the directory of a run, and has a {taken!r} that is not ours",
            advice="give a directory that does not exist, or one without such files",
        )


def _is_ours(path: Path) -> bool:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"umbel", "recipe", "checksum"} <= content.keys()


def write_run_file(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``run.json``."""
    whole = {"format": FORMAT, "checksum": _checksum(content), **content}
    replace_file(path, (json.dumps(whole, indent=2) + "\n").encode())


def read_run_file(path: Path) -> Any:
    """What was written; None where nothing was.

    Raises:
        CorruptFile: it is not what was written.
        StoreError: a later version wrote it.
    """
    if not path.exists():
        return None
    with readable_errors(path):
        data = path.read_bytes()
    try:
        content = json.loads(data)
        layout, checksum = content.pop("format"), content.pop("checksum")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CorruptFile(f"{path} is damaged", advice=_ADVICE) from error
    if layout != FORMAT:
        raise StoreError(f"{path} has format {layout!r}, not {FORMAT}", advice="use the version of Umbel that wrote it")
    if checksum != _checksum(content):
        raise CorruptFile(f"{path} is damaged, or was edited: its checksum is another", advice=_ADVICE)
    return content


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


__all__ = ["FILES", "claim", "read_run_file", "write_run_file"]
