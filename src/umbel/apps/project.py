"""`Project`: an app in a directory, among the installed packages, or in a wheel."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, final

from umbel.apps import wheel as wheels
from umbel.apps.digest import digest_of_directory, is_package
from umbel.apps.settings import SETTINGS, flat, nearest
from umbel.apps.wheel import GROUP, Wheel
from umbel.errors import AppMissing, UsageError

FILE = "pyproject.toml"
_SIDES = ("client", "server")
_EXAMPLE = f'write to {FILE}:\n[project.entry-points."{GROUP}"]\nclient = "NAME:client"\nserver = "NAME:server"'


@final
@dataclass(frozen=True, kw_only=True)
class Project:
    """An app and where it lies.

    Attributes:
        package: the top-level package or module that is the app, as in "myfed".
        name: what the distribution is called, which may be something else.
        version: its version, or "" if nobody says.
        client: the client's object, as in "myfed:client"; or "".
        server: the server's object, as in "myfed:server"; or "".
        source: the directory that holds the package, as it would stand in ``sys.path``; of a wheel that is not
            unpacked, the wheel.
        root: the directory with pyproject.toml; None: it is installed, or a wheel.
        table: ``[tool.umbel]``; empty but in a directory.
        wheel: the wheel that it is, or was unpacked from.
    """

    package: str
    name: str
    version: str
    client: str
    server: str
    source: Path
    root: Path | None = None
    table: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    wheel: Wheel | None = None

    @classmethod
    def find(cls, where: str | Path) -> Project:
        """The project in a directory, in a wheel, or of an installed distribution or package of this name.

        Raises:
            AppMissing: there is none.
            UsageError: what says what it is makes no sense; names file and key.
            FormatError: the wheel is damaged.
        """
        path = Path(where)
        if path.suffix == ".whl":
            return _of_wheel(Wheel.read(path))
        if path.name == FILE and path.is_file():
            path = path.parent
        if path.is_dir():
            if (path / FILE).is_file():
                return _of_directory(path)
            if isinstance(where, Path) or not str(where).isidentifier():
                raise AppMissing(f"{path} has no {FILE}", advice="give the directory of an app; `umbel new` makes one")
        return _of_installed(str(where), is_name=isinstance(where, str))

    @property
    def file(self) -> str:
        """Where `table` stands, for people."""
        return str(self.root / FILE) if self.root is not None else ""

    @property
    def is_packed(self) -> bool:
        """Is it a wheel that must be unpacked before it can be imported?"""
        return self.wheel is not None and self.source == self.wheel.path

    @cached_property
    def digest(self) -> bytes:
        """Which code it is, 32 bytes, as it was when this was first asked; see `umbel.apps.digest`.

        Raises:
            AppMissing: the package is not there.
            AppError: it cannot be read.
        """
        if self.is_packed and self.wheel is not None:
            return self.wheel.digest(self.package)
        return digest_of_directory(self.source, self.package)

    def unpacked(self, directory: Path) -> Project:
        """This project, ready to be imported: a wheel is unpacked into a directory named by its digest.

        Args:
            directory: below which that directory is.

        Raises:
            AppMissing: what the wheel depends on is not installed; names it.
            AppError: it cannot be written.
        """
        if self.wheel is None or not self.is_packed:
            return self
        source = wheels.install(self.wheel, self.package, directory)
        return Project(
            package=self.package,
            name=self.name,
            version=self.version,
            client=self.client,
            server=self.server,
            source=source,
            wheel=self.wheel,
        )

    def object(self, side: str) -> str:
        """The object of a side, "client" or "server".

        Raises:
            AppMissing: the project says none.
        """
        found = str(getattr(self, side))
        if not found:
            place = self.file or (str(self.wheel.path) if self.wheel is not None else f"the installed {self.name}")
            raise AppMissing(f"{place} does not say what its {side} is", advice=_EXAMPLE)
        return found


def _of_directory(root: Path) -> Project:
    file = root / FILE
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}", advice="correct it; see https://toml.io") from error
    project = _table(content, file, "project")
    table = _table(content, file, "tool", "umbel")
    flat(table, SETTINGS, str(file))
    objects = _objects(_table(content, file, "project", "entry-points", GROUP), table, file)
    package = _package(objects, str(file))
    source = next((place for place in (root, root / "src") if is_package(place, package)), root)
    name, version = str(project.get("name") or package), project.get("version")
    return Project(
        package=package,
        name=name,
        version=str(version) if version is not None else _installed_version(name),
        source=source.absolute(),
        root=root.absolute(),
        table=MappingProxyType(table),
        client=objects["client"],
        server=objects["server"],
    )


def _table(content: Mapping[str, Any], file: Path, *path: str) -> dict[str, Any]:
    here: Any = content
    for depth, key in enumerate(path, 1):
        here = here.get(key, {})
        if not isinstance(here, dict):
            raise UsageError(f"{file}: {'.'.join(path[:depth])} is {here!r}, not a table", advice=_EXAMPLE)
    return dict(here)


def _objects(points: Mapping[str, Any], table: Mapping[str, Any], file: Path) -> dict[str, str]:
    """Both sides' objects, from the entry points or from ``[tool.umbel]``; they must not differ."""
    for key in points:
        if key not in _SIDES:
            raise UsageError(f'{file}: entry point {key!r} of "{GROUP}" means nothing', advice=nearest(key, _SIDES))
    found: dict[str, str] = {}
    for side in _SIDES:
        said = {place[side] for place in (points, table) if side in place}
        if len(said) > 1:
            raise UsageError(
                f'{file}: {side} is {table[side]!r} in [tool.umbel] and {points[side]!r} in the entry points "{GROUP}"',
                advice="say it in one of the two; wheels keep entry points only",
            )
        found[side] = _object(said.pop(), f"{file}: {side}") if said else ""
    return found


def _object(value: Any, what: str) -> str:
    module, colon, attribute = str(value).partition(":")
    parts = [*module.split("."), *attribute.split(".")]
    if not isinstance(value, str) or not colon or not all(part.isidentifier() for part in parts):
        raise UsageError(f"{what} is {value!r}", advice='give a module and a name in it, as in "myfed:client"')
    return value


def _package(objects: Mapping[str, str], where: str) -> str:
    """The one top-level package of the objects: its files are what the digest is about."""
    packages = sorted({o.partition(":")[0].partition(".")[0] for o in objects.values() if o})
    if not packages:
        raise AppMissing(f"{where} does not say what the app is", advice=_EXAMPLE)
    if len(packages) > 1:
        raise UsageError(
            f"{where}: client and server are in different packages, {packages[0]} and {packages[1]}",
            advice="put them into one: an app is one package, and its digest is that of its files",
        )
    return packages[0]


def _of_wheel(wheel: Wheel) -> Project:
    objects = {
        side: _object(wheel.objects[side], f"{wheel.path}: {side}") if side in wheel.objects else "" for side in _SIDES
    }
    return Project(
        package=_package(objects, str(wheel.path)),
        name=wheel.distribution,
        version=wheel.version,
        source=wheel.path,
        wheel=wheel,
        client=objects["client"],
        server=objects["server"],
    )


def _of_installed(name: str, *, is_name: bool) -> Project:
    """The app of a distribution, or of a package, that an entry point names."""
    points = metadata.entry_points(group=GROUP)
    wanted = _normal(name)
    mine = [p for p in points if p.dist is not None and wanted in (_normal(p.dist.name), _normal(_top(p.value)))]
    if not mine and is_name and _is_installed(name):
        raise AppMissing(f"{name} is installed, and does not say what the app is", advice=_EXAMPLE)
    if not mine:
        there = sorted({p.dist.name for p in points if p.dist is not None})
        what = f"no app {name!r} is installed" + (
            "" if Path(name).exists() or not is_name else ", nor is there such a directory"
        )
        advice = (
            nearest(name, there) if there else "give the directory of an app, a wheel, or the name of an installed one"
        )
        raise AppMissing(what, advice=advice)
    of = min({p.dist.name for p in mine if p.dist is not None}, key=lambda n: (_normal(n) != wanted, n))
    objects = {p.name: p.value for p in mine if p.dist is not None and p.dist.name == of}
    where = f"the installed {of}"
    checked = {side: _object(objects[side], f"{where}: {side}") if side in objects else "" for side in _SIDES}
    package = _package(checked, where)
    return Project(
        package=package,
        name=of,
        version=_installed_version(of),
        source=place_of(package),
        client=checked["client"],
        server=checked["server"],
    )


def place_of(package: str) -> Path:
    """The directory that holds an importable top-level package or module, which is not imported.

    Raises:
        AppMissing: there is none.
    """
    try:
        spec = find_spec(package)
    except ValueError:  # a module that says nothing of where it is from, such as __main__
        spec = None
    if spec is None or spec.origin is None:
        raise AppMissing(
            f"there is no package {package!r} that can be imported",
            advice="install it, or give the directory of the app",
        )
    origin = Path(spec.origin).absolute()
    return origin.parent.parent if spec.submodule_search_locations is not None else origin.parent


def _installed_version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _top(value: str) -> str:
    return value.partition(":")[0].partition(".")[0]


def _is_installed(name: str) -> bool:
    """Is there a distribution of this name, or one with a package of this name?"""
    try:
        metadata.distribution(name)
    except (metadata.PackageNotFoundError, ValueError):
        return name in metadata.packages_distributions()
    return True


def _normal(name: str) -> str:
    """A distribution's name as PyPI compares it."""
    return name.lower().replace("_", "-").replace(".", "-")


__all__ = ["FILE", "Project", "place_of"]
