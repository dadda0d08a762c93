"""Wheels of apps: what is in one, and unpacking it without pip.

An app's wheel needs nothing but its package put somewhere: `install` unpacks it into a directory named by the app's
digest, after every file was found to be what RECORD says. What the app depends on is not installed; what of it is
missing is named.

Nothing that Python could import is unpacked unless the digest covers it, since a signature covers no more than the
digest: a wheel with another package beside the app's is refused, compiled files (which Python may prefer to the source
that they claim to be of), scripts, headers and data are left out, and of METADATA the name and the version are kept.
"""

from __future__ import annotations

import base64
import configparser
import csv
import hashlib
import io
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.parser import HeaderParser
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import final
from zlib import error as zlib_error

from umbel.apps.digest import belongs, counts, digest, digest_of_directory
from umbel.errors import AppError, AppMissing, FormatError

GROUP = "umbel.apps"
"""The group of entry points in which a distribution says what its app is."""
_LARGEST = 1 << 30  # bytes unpacked, above which a wheel is no app but an accident or an attack
_MANY = 50_000  # files, likewise
_TEXT = 16 << 20  # bytes of a file that describes it, likewise: RECORD has some 100 for each file
_CHUNK = 1 << 20
# What a damaged archive makes zipfile raise: RuntimeError, or one of its kind, where it seems encrypted or packed in a
# newer way, ValueError where names or numbers cannot be.
_DAMAGE = (zipfile.BadZipFile, zlib_error, RuntimeError, EOFError, OSError, ValueError)
_INTO_ROOT = ("purelib", "platlib")  # parts of NAME.data that belong beside the package


@final
@dataclass(frozen=True, slots=True)
class Wheel:
    """What a wheel says of itself.

    Attributes:
        path: the file.
        name: what it is called in complaints.
        distribution: the distribution's name.
        version: its version.
        objects: "client" and "server" to the objects that its entry points name, as in "myfed:client".
        requires: its dependencies, one line each, as METADATA has them.
        files: SHA-256 of each file (32 bytes), by its path when unpacked.
    """

    path: Path
    name: str
    distribution: str
    version: str
    objects: Mapping[str, str]
    requires: Sequence[str]
    files: Mapping[str, bytes]

    @classmethod
    def read(cls, path: Path, name: str = "") -> Wheel:
        """Read a wheel, and find every file to be what its RECORD says.

        Args:
            path: the file.
            name: what it is called in complaints; "": its path.

        Raises:
            FormatError: it is no wheel, or a damaged one, or a file in it would lie outside; says which.
            AppMissing: there is no such file.
        """
        called = name or str(path)
        with _opened(path, called) as archive:
            info = _info(called, archive)
            record = _record(called, archive, info)
            files: dict[str, bytes] = {}
            for inside, member in _members(called, archive, info):
                found = _sha256(called, archive, member)
                if record.get(member.filename) not in (found, None) or member.filename not in record:
                    raise _damaged(called, f"{member.filename} is not what its RECORD says")
                files[inside] = found
            if lost := sorted(record.keys() - set(archive.namelist())):
                raise _damaged(called, f"{lost[0]} is in its RECORD, and not there")
            head = HeaderParser().parsestr(_text(called, archive, f"{info}/METADATA"))
            points = f"{info}/entry_points.txt"
            objects = _objects(called, _text(called, archive, points)) if points in record else {}
        requires = tuple(map(str, head.get_all("Requires-Dist") or []))
        return cls(path, called, str(head["Name"] or ""), str(head["Version"] or ""), objects, requires, files)

    def digest(self, package: str) -> bytes:
        """The digest of a package in it; see `umbel.apps.digest`.

        Raises:
            AppMissing: it holds no such package.
        """
        files = {name: content for name, content in self.files.items() if belongs(name, package)}
        if not files:
            there = sorted({PurePosixPath(name).parts[0].removesuffix(".py") for name in self.files})
            raise AppMissing(
                f"{self.name} holds no package {package!r}",
                advice=f"it holds {', '.join(n for n in there if not n.endswith('.dist-info'))}; build it again",
            )
        return digest(files)

    def check_alone(self, package: str) -> None:
        """Refuse a wheel that holds more than this package and what describes it.

        Raises:
            FormatError: names what the digest does not cover.
        """
        tops = {PurePosixPath(name).parts[0] for name in self.files if not belongs(name, package)}
        if others := sorted(top for top in tops if not top.endswith(".dist-info")):
            raise FormatError(
                f"{self.name} holds {', '.join(others[:5])} beside the package {package!r}, which no digest and no "
                "signature of the app covers",
                advice=f"put that into the package {package!r}, or into a wheel of its own, and build it again",
            )

    def missing(self) -> list[str]:
        """The dependencies, as METADATA writes them, of which nothing is installed.

        Only names are compared, not versions. A dependency with a condition (a *marker*) counts as not needed.
        """
        return [line for line in self.requires if ";" not in line and not _is_installed(line)]


def install(wheel: Wheel, package: str, directory: Path) -> Path:
    """Unpack a wheel into a directory named by the app's digest; one that is there already is checked and kept.

    Args:
        wheel: the wheel, as it was read.
        package: the package that is the app.
        directory: where to put it; it is made.

    Returns:
        The directory that holds the package.

    Raises:
        AppMissing: dependencies are not installed; names them.
        AppError: the directory cannot be written.
        FormatError: the file has changed since it was read, or holds more than the package.
    """
    wheel.check_alone(package)
    if missing := wheel.missing():
        raise AppMissing(
            f"{wheel.path.name} needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed",
            advice=f"{sys.executable} -m pip install {' '.join(repr(line) for line in missing)}",
        )
    found = wheel.digest(package)
    place = directory / found.hex()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if place.is_dir():
            if digest_of_directory(place, package) == found:
                return place
            shutil.rmtree(place)  # somebody has changed it; it is named by what it was
        with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=directory) as temporary:
            made = Path(temporary) / "app"
            _unpack(wheel, package, made)
            if digest_of_directory(made, package) != found:  # as where capitals do not count in the names of files
                raise _damaged(wheel.name, "unpacked here, its files have another digest")
            made.rename(place)
    except OSError as error:
        if place.is_dir() and digest_of_directory(place, package) == found:
            return place  # another process was quicker
        raise AppError(
            f"{place}: {error.strerror or error}", advice="check that there is room, and that the node may write there"
        ) from error
    return place


def _unpack(wheel: Wheel, package: str, root: Path) -> None:
    with _opened(wheel.path, wheel.name) as archive:
        info = _info(wheel.name, archive)
        for name, member in _members(wheel.name, archive, info):
            if not (belongs(name, package) and counts(name)):
                continue
            file = root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            found = hashlib.sha256()
            with archive.open(member) as source, file.open("wb") as target:
                while chunk := source.read(_CHUNK):
                    found.update(chunk)
                    target.write(chunk)
            if found.digest() != wheel.files.get(name):
                raise _damaged(wheel.name, f"{name} has changed while it was unpacked")
    about = root / info / "METADATA"  # for importlib.metadata.version
    about.parent.mkdir(parents=True, exist_ok=True)
    name, version = ("".join(text.split()) for text in (wheel.distribution, wheel.version))
    about.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")


@final
class _Bounded(io.FileIO):
    """A file of which nobody reads much at once: zipfile takes what an archive says of its files as a whole."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read so many bytes.

        Raises:
            BadZipFile: they are more than any wheel needs.
        """
        if size is not None and size > _TEXT:
            raise zipfile.BadZipFile(f"{size >> 20:,} MiB of it are to be read at once")
        return super().read(size)


@contextmanager
def _opened(path: Path, called: str) -> Iterator[zipfile.ZipFile]:
    try:
        file = _Bounded(path)
    except FileNotFoundError as error:
        raise AppMissing(f"there is no file {called}", advice="check the path") from error
    except OSError as error:
        raise _damaged(called, f"{error}") from error
    with file:
        try:
            archive = zipfile.ZipFile(file)
        except _DAMAGE as error:
            raise _damaged(called, f"{error}") from error
        with archive:
            yield archive


def _damaged(called: str, what: str) -> FormatError:
    return FormatError(f"{called} is no wheel that can be used: {what}", advice="build it, or copy it, again")


def _info(called: str, archive: zipfile.ZipFile) -> str:
    """The name of the directory in it that describes it."""
    found = sorted({n.partition("/")[0] for n in archive.namelist() if n.partition("/")[0].endswith(".dist-info")})
    if len(found) != 1:
        raise _damaged(called, f"it has {len(found)} directories *.dist-info")
    for needed in ("METADATA", "RECORD"):
        if f"{found[0]}/{needed}" not in archive.namelist():
            raise _damaged(called, f"it has no {found[0]}/{needed}")
    return found[0]


def _record(called: str, archive: zipfile.ZipFile, info: str) -> Mapping[str, bytes | None]:
    """SHA-256 of each file as RECORD has it; None: RECORD itself and its signatures, which have none."""
    record: dict[str, bytes | None] = {}
    free = {f"{info}/{name}" for name in ("RECORD", "RECORD.jws", "RECORD.p7s")}
    try:
        for row in csv.reader(io.StringIO(_text(called, archive, f"{info}/RECORD", "strict"))):
            name, how = row[0], row[1]
            kind, _, text = how.partition("=")
            if name not in free and kind != "sha256":
                raise _damaged(called, f"RECORD has no SHA-256 of {name}")
            record[name] = None if name in free else base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (csv.Error, IndexError, *_DAMAGE) as error:
        raise _damaged(called, f"its RECORD cannot be read: {error}") from error
    return record


def _text(called: str, archive: zipfile.ZipFile, name: str, errors: str = "replace") -> str:
    """A file that describes the wheel; no digest covers it, so it may be anything."""
    size = archive.getinfo(name).file_size
    if size > _TEXT:
        raise _damaged(called, f"{name} unpacks to {size >> 20:,} MiB, more than {_TEXT >> 20:,} MiB")
    try:
        return archive.read(name).decode(errors=errors)
    except _DAMAGE as error:
        raise _damaged(called, f"{name}: {error}") from error


def _members(called: str, archive: zipfile.ZipFile, info: str) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    """Each file that is unpacked, and its path then.

    Raises:
        FormatError: a path leads outside, is there twice, or all together are too large.
    """
    data = info.removesuffix(".dist-info") + ".data"
    seen: set[str] = set()
    members = archive.infolist()
    if len(members) > _MANY or sum(member.file_size for member in members) > _LARGEST:
        raise _damaged(called, f"it unpacks to more than {_MANY:,} files or {_LARGEST >> 20:,} MiB")
    for member in members:
        name = member.filename
        if _leads_outside(name):
            raise _damaged(called, f"{name!r} would lie outside of it")
        if name.endswith("/"):
            continue
        parts = PurePosixPath(name).parts
        if parts[0] == data:
            if len(parts) < 3 or parts[1] not in _INTO_ROOT:
                continue
            parts = parts[2:]
        inside = "/".join(parts)
        if inside in seen:
            raise _damaged(called, f"{inside!r} is in it twice")
        seen.add(inside)
        yield inside, member


def _leads_outside(name: str) -> bool:
    parts = name.removesuffix("/").split("/")
    return "\\" in name or ":" in name or "\0" in name or not {"", ".", ".."}.isdisjoint(parts)


def _sha256(called: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    try:
        with archive.open(member) as opened:
            found = hashlib.sha256()
            while chunk := opened.read(_CHUNK):
                found.update(chunk)
            return found.digest()
    except _DAMAGE as error:
        raise _damaged(called, f"{member.filename}: {error}") from error


def _objects(called: str, text: str) -> Mapping[str, str]:
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their case
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise _damaged(called, f"its entry_points.txt cannot be read: {error}") from error
    return dict(parser[GROUP]) if parser.has_section(GROUP) else {}


def _is_installed(requirement: str) -> bool:
    name = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", requirement.strip())
    try:
        metadata.distribution(name.group() if name else requirement)
    except (metadata.PackageNotFoundError, ValueError):
        return False
    return True


__all__ = ["GROUP", "Wheel", "install"]
