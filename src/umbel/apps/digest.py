"""The digest of an app: which code it is, whether it lies in a directory, is installed, or in a wheel.

SHA-256 over these bytes:

    "umbel-app-1" and a line feed                                   12 bytes of ASCII
    for each file, in ascending order of the bytes of its path:
        the length of its path in bytes                             u32, little-endian
        its path from the directory that holds the package,
        with "/" between its parts, as in "myfed/data.py"           UTF-8
        SHA-256 of its content                                      32 bytes

The files are all files of the top-level package, ``myfed/`` and below, or the one file ``myfed.py``. Left out are
directories called ``__pycache__``, files that end in ``.pyc`` or ``.pyo``, and files and directories whose name begins
with a dot. Links count as what they lead to. Nothing else counts: neither the version nor the dependencies.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from umbel.errors import AppError, AppMissing

_BEGIN = b"umbel-app-1\n"
_COMPILED = (".pyc", ".pyo")
_CACHE = "__pycache__"


def digest(files: Mapping[str, bytes]) -> bytes:
    """The digest of an app with these files; those that do not count are left out.

    Args:
        files: SHA-256 of each file's content (32 bytes), by its path.

    Returns:
        32 bytes.
    """
    found = hashlib.sha256(_BEGIN)
    for name, content in sorted((path.encode(), content) for path, content in files.items() if counts(path)):
        found.update(struct.pack("<I", len(name)) + name + content)
    return found.digest()


def counts(path: str) -> bool:
    """Does a file at this path, from the directory that holds the package, count?"""
    parts = PurePosixPath(path).parts
    return not path.endswith(_COMPILED) and not any(part == _CACHE or part.startswith(".") for part in parts)


def belongs(path: str, package: str) -> bool:
    """Is a file at this path one of the package, ``myfed/...``, or the module ``myfed.py``?"""
    return path == f"{package}.py" or path.startswith(f"{package}/")


def digest_of_directory(source: Path, package: str) -> bytes:
    """The digest of a package or module in a directory.

    Args:
        source: the directory that holds the package; as it would stand in ``sys.path``.
        package: its name.

    Raises:
        AppMissing: there is no such package.
        AppError: it cannot be read, or is no ordinary package.
    """
    try:
        return digest({path: _sha256(file) for path, file in _files(source, package)})
    except UnicodeEncodeError as error:
        raise AppError(f"{source / package}: {error.object!r} is no valid Unicode", advice="rename the file") from error
    except OSError as error:
        raise AppError(
            f"{error.filename or source}: {error.strerror or error}", advice="check the file and its permissions"
        ) from error


def is_package(source: Path, package: str) -> bool:
    """Does the directory hold this package, or a module of this name?"""
    return (source / package / "__init__.py").is_file() or (source / f"{package}.py").is_file()


def _files(source: Path, package: str) -> Iterator[tuple[str, Path]]:
    root, module = source / package, source / f"{package}.py"
    if (root / "__init__.py").is_file():
        yield from _below(root, package, frozenset())
    elif module.is_file():
        yield module.name, module
    elif root.is_dir():
        raise AppError(f"{root} has no __init__.py", advice=f"make an empty file {root / '__init__.py'}")
    else:
        raise AppMissing(f"{source} holds no package {package!r}", advice=f"it would be {root} or {module}")


def _below(directory: Path, path: str, above: frozenset[Path]) -> Iterator[tuple[str, Path]]:
    """The files below a directory that count; what is above it is for links that lead in a circle."""
    here = directory.resolve()
    if here in above:
        raise AppError(f"{directory} is a link to a directory above it", advice="remove the link")
    for entry in directory.iterdir():
        name = f"{path}/{entry.name}"
        if counts(name):
            if entry.is_dir():
                yield from _below(entry, name, above | {here})
            elif entry.is_file() or entry.is_symlink():  # a link to nothing is an error, said when it is read
                yield name, entry


def _sha256(file: Path) -> bytes:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").digest()


__all__ = ["belongs", "counts", "digest", "digest_of_directory", "is_package"]
