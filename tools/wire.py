"""Makes src/umbel/wire/v1 from proto/, and the image of a release that later changes are held against.

python tools/wire.py                      writes the code anew
python tools/wire.py --check              says whether the code in the tree is what the .proto gives
python tools/wire.py --breaking           says what the .proto breaks of each release in proto/released
python tools/wire.py --release VERSION    writes proto/released/VERSION.binpb

The code is made with grpcio-tools 1.62: what newer ones make refuses to run with protobuf 4.25. That one wants
protobuf 4 for itself, so it lives in an environment of its own, made for the moment, or given with `--python PYTHON`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
GENERATOR = "grpcio-tools==1.62.*"
PLACE = Path("src/umbel/wire/v1")
HEAD = """# Made by tools/wire.py from {source}; change that, and make this anew.
# ruff: noqa: {rules}
# mypy: ignore-errors
# fmt: off
"""
RULES = "E402, E501, E712, F401, I001, I002, RUF023, RUF100, UP007, UP035, UP045"
PACKAGE = '"""Messages of umbel.v1, made by tools/wire.py."""\n\nfrom __future__ import annotations\n'


class Unavailable(Exception):
    """The generator cannot be had here."""


def sources(root: Path) -> list[str]:
    """Return the .proto files below proto/, as they name each other."""
    return sorted(path.relative_to(root / "proto").as_posix() for path in (root / "proto" / "umbel").rglob("*.proto"))


def generator(python: str | None, folder: Path) -> str:
    """Return a Python that has grpcio-tools 1.62: the one given, or one made in this folder."""
    if python is not None:
        return python
    try:
        venv.create(folder, with_pip=True)
        made = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        subprocess.run(
            [made, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", GENERATOR, "setuptools<81"],
            check=True,
            capture_output=True,
            text=True,
        )
    except (subprocess.CalledProcessError, OSError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise Unavailable(f"{GENERATOR} cannot be installed here: {said[-1] if said else error}") from error
    return str(made)


def generate(root: Path, python: str, folder: Path) -> dict[str, str]:
    """Return the generated files by their names in PLACE."""
    command = [python, "-m", "grpc_tools.protoc", "-I.", f"--python_out={folder}", f"--pyi_out={folder}"]
    done = subprocess.run([*command, *sources(root)], capture_output=True, text=True, check=False, cwd=root / "proto")
    if done.returncode:
        if "No module named" in done.stderr:
            raise Unavailable(f"{python} has no grpcio-tools")
        raise SystemExit(done.stderr)
    files = {"__init__.py": PACKAGE}
    for path in sorted(folder.rglob("*_pb2.py*")):
        source = f"proto/umbel/v1/{path.name.partition('_pb2')[0]}.proto"
        text = re.sub(r"(?m)^from umbel\.v1 import", "from umbel.wire.v1 import", path.read_text("utf-8"))
        files[path.name] = HEAD.format(source=source, rules=RULES) + text
    return files


def differences(root: Path, files: dict[str, str]) -> list[str]:
    """Say which files of the tree are not what was generated."""
    there = {path.name: path.read_text("utf-8") for path in (root / PLACE).glob("*.py*")}
    differ = [name for name in sorted({*there, *files}) if there.get(name) != files.get(name)]
    return [f"{PLACE.as_posix()}/{name} is not what proto/ gives; run tools/wire.py" for name in differ]


def buf(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run buf, which is installed beside this Python."""
    program = Path(sys.executable).parent / "buf"
    return subprocess.run([program, *arguments], cwd=root, capture_output=True, text=True, check=False)


def broken(root: Path) -> list[str]:
    """Say what the .proto breaks of each release."""
    found = []
    for image in sorted((root / "proto" / "released").glob("*.binpb")):
        done = buf(root, "breaking", "proto", "--against", str(image.relative_to(root)))
        found += [f"{image.stem}: {line}" for line in (done.stdout + done.stderr).splitlines()]
    return found


def release(root: Path, version: str) -> Path:
    """Write the image of a release.

    Raises:
        SystemExit: it is there already; what was released does not change.
    """
    image = root / "proto" / "released" / f"{version}.binpb"
    if image.exists():
        raise SystemExit(f"{image.relative_to(root)} is there already, and a release does not change")
    image.parent.mkdir(exist_ok=True)
    done = buf(root, "build", "proto", "-o", str(image.relative_to(root)), "--exclude-source-info")
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return image


def write(root: Path, files: dict[str, str]) -> None:
    """Write the generated files, and remove those that are not generated any more."""
    (root / PLACE).mkdir(parents=True, exist_ok=True)
    for path in (root / PLACE).glob("*.py*"):
        if path.name not in files:
            path.unlink()
    for name, text in files.items():
        (root / PLACE / name).write_text(text, "utf-8")


def main(arguments: list[str], root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", help="a Python that has grpcio-tools 1.62")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="only say whether the code is up to date")
    action.add_argument("--breaking", action="store_true", help="only say what breaks a release")
    action.add_argument("--release", metavar="VERSION", help="write the image of a release")
    options = parser.parse_args(arguments)
    if options.release:
        print(release(root, options.release).relative_to(root))
        return 0
    if options.breaking:
        found = broken(root)
    else:
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder)
            (made / "out").mkdir()
            try:
                files = generate(root, generator(options.python, made / "venv"), made / "out")
            except Unavailable as error:
                print(f"skipped: {error}" if options.check else error)
                return 0 if options.check else 1
        if not options.check:
            write(root, files)
        found = differences(root, files)
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
