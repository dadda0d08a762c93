"""Importing an app's objects, with errors that show the app's own lines and not ours."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from umbel.apps.settings import nearest
from umbel.client.app import ClientApp
from umbel.client.failures import shortened, words
from umbel.engine.app import ServerApp
from umbel.errors import AppError, AppMissing, UsageError

_LONGEST = 8_000  # characters of a traceback, at each end


def load_object(name: str, *, path: Path | None = None) -> ClientApp | ServerApp:
    """Import one of an app's objects.

    Args:
        name: module and attribute, as in "myfed:client" or "myfed.app:hospital.client".
        path: the directory that holds the package, or the project whose ``src`` does; None: it can be imported.
            While the app is imported this comes first in ``sys.path``. Afterwards it stands last, where worker
            processes and imports inside functions find it and it hides nothing; or still first if another package
            of that name would be found otherwise.

    Raises:
        AppMissing: there is no such module or attribute; names what is near.
        AppError: importing it raised; shows the traceback from the app's first line on.
        UsageError: the name is none, or what it names is no app.
    """
    module, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), *attribute.split(".")]):
        raise UsageError(f"{name!r} names no object", advice='give a module and a name in it, as in "myfed:client"')
    top = module.partition(".")[0]
    with _first(path, top) as source:
        if source is not None:
            _check_not_another(top, source)
        found: Any = _imported(module)
        before = module
        for part in attribute.split("."):
            if not hasattr(found, part):
                raise AppMissing(f"{before} has no {part!r}{_there(found)}", advice=_near(part, found))
            found, before = getattr(found, part), f"{before}.{part}"
    if not isinstance(found, ClientApp | ServerApp):
        raise UsageError(
            f"{name} is a {type(found).__name__}, neither an umbel.ClientApp nor an umbel.ServerApp",
            advice=_near(attribute, sys.modules[module]),
        )
    return found


def load_client(name: str, *, path: Path | None = None) -> ClientApp:
    """Import the client's side; as `load_object`, and refuses a server.

    Raises:
        UsageError: it is a ServerApp.
    """
    found = load_object(name, path=path)
    if isinstance(found, ServerApp):
        raise UsageError(f"{name} is an umbel.ServerApp, not a ClientApp", advice="name the client's side")
    return found


def load_server(name: str, *, path: Path | None = None) -> ServerApp:
    """Import the server's side; as `load_object`, and refuses a client.

    Raises:
        UsageError: it is a ClientApp.
    """
    found = load_object(name, path=path)
    if isinstance(found, ClientApp):
        raise UsageError(f"{name} is an umbel.ClientApp, not a ServerApp", advice="name the server's side")
    return found


@contextmanager
def _first(path: Path | None, top: str) -> Iterator[Path | None]:
    """Have a directory first in ``sys.path`` while an app is imported from it, and last afterwards."""
    if path is None:
        yield None
        return
    root = path.absolute()
    places = [place for place in (root, root / "src") if (place / top).is_dir() or (place / f"{top}.py").is_file()]
    if not places:
        raise AppMissing(f"{root} holds no package {top!r}", advice=_modules_near(top, root))
    source = str(places[0])
    had = list(sys.path)
    sys.path.insert(0, source)
    importlib.invalidate_caches()
    try:
        yield places[0]
    except BaseException:  # what could not be loaded must not hide anything else
        sys.path.remove(source)
        raise
    sys.path.remove(source)
    if source not in had:
        sys.path.append(source)
        found = PathFinder.find_spec(top)
        if found is None or not _lies_in(found.origin, found.submodule_search_locations, places[0]):
            sys.path.remove(source)
            sys.path.insert(0, source)


def _lies_in(origin: str | None, locations: Any, source: Path) -> bool:
    places = [origin] if origin is not None else list(locations or [])
    return any(Path(place).resolve().is_relative_to(source.resolve()) for place in places)


def _check_not_another(top: str, source: Path) -> None:
    there = sys.modules.get(top)
    if there is not None and not _lies_in(getattr(there, "__file__", None), getattr(there, "__path__", None), source):
        raise AppError(
            f"a module {top!r} is imported already, from {getattr(there, '__file__', 'elsewhere')}, "
            f"so that of {source} cannot be",
            advice="give the app's package another name, or start a fresh Python",
        )


def _imported(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        lost = error.name or ""
        if module == lost or module.startswith(f"{lost}."):
            raise AppMissing(f"there is no module {lost!r}", advice=_submodules_near(lost)) from error
        top = lost.partition(".")[0]
        advice = f"install what brings {top!r} into {sys.prefix}"
        if top == module.partition(".")[0]:
            advice = f"add {lost!r} to the app; if it is compiled, build the app and give its wheel"
        raise AppError(
            f"importing {module} failed, since there is no module {lost!r}:\n{_trace(error)}", advice=advice
        ) from error
    except (Exception, SystemExit) as error:  # the app's own code may raise anything
        raise AppError(
            f"importing {module} raised {words(error)}\n{_trace(error)}",
            advice="correct the app; this is its own error",
        ) from error


def _trace(error: BaseException) -> str:
    """The traceback from the app's first line on: without ours, and without the import system's."""
    begin: TracebackType | None = error.__traceback__
    while begin is not None and _is_of_importing(begin.tb_frame.f_code.co_filename):
        begin = begin.tb_next
    lines = traceback.TracebackException(type(error), error, begin, compact=True)
    kept = [frame for frame in lines.stack if not _is_of_importing(frame.filename)]
    lines.stack = traceback.StackSummary.from_list(kept)
    return shortened("".join(lines.format()), _LONGEST, _LONGEST).rstrip()


def _is_of_importing(file: str) -> bool:
    return file == __file__ or file.startswith("<frozen importlib") or file == importlib.__file__


def _apps(found: Any) -> list[str]:
    names = vars(found) if hasattr(found, "__dict__") else {}
    return [name for name, value in names.items() if isinstance(value, ClientApp | ServerApp)]


def _there(found: Any) -> str:
    apps = _apps(found)
    return f"; it has {', '.join(apps)}" if apps else ""


def _near(part: str, found: Any) -> str:
    apps = _apps(found)
    others = [name for name in dir(found) if not name.startswith("_") and name != part]
    if apps:
        return nearest(part, apps)
    return nearest(part, others[:20]) if others else "write client = umbel.ClientApp() in it"


def _submodules_near(lost: str) -> str:
    parent, _, name = lost.rpartition(".")
    package = sys.modules.get(parent)
    if package is None or not getattr(package, "__path__", None):
        return f"check the name; install what brings {lost!r}, or start Python in the directory that it lies in"
    return nearest(name, [n for place in package.__path__ for n in _module_names(Path(place))])


def _modules_near(top: str, root: Path) -> str:
    return nearest(top, [*_module_names(root), *_module_names(root / "src")])


def _module_names(directory: Path) -> list[str]:
    """The modules and packages in a directory."""
    if not directory.is_dir():
        return []
    files = [path.stem for path in directory.glob("*.py") if path.stem.isidentifier() and path.stem != "__init__"]
    return sorted({*files, *(path.parent.name for path in directory.glob("*/__init__.py"))})


__all__ = ["load_client", "load_object", "load_server"]
