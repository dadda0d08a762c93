"""What an app is called where it can be imported: "module:object"."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from umbel.client.app import ClientApp
from umbel.engine.app import ServerApp
from umbel.errors import UsageError

_CLIENT = (
    "put the client's handlers into a module, such as myfed.py, that every node has, and give its name: "
    'umbel.run(server, "myfed:client", on=...); `umbel new NAME` writes such a project'
)
_SERVER = (
    "put the server app into the module of the client, install it at the server (umbel server --app), and give that "
    "module's object"
)


def name_of_client(client: ClientApp) -> str:
    """The module and the name in it by which nodes find this app.

    Raises:
        UsageError: it, or one of its handlers, was written in a notebook or in the program itself; or no module has it.
    """
    functions = {**client.handlers, **client.queries, **{f"middleware {n}": f for n, f in enumerate(client.middleware)}}
    for name, function in functions.items():
        if _module_of(function) == "__main__":
            what = getattr(function, "__qualname__", name)
            raise UsageError(
                f"the client's {name}, {what}, is written in {_main()}: nodes cannot import it", advice=_CLIENT
            )
    found = _find(lambda value: value is client, map(_module_of, functions.values()))
    if not found:
        raise UsageError("no module has this client app under a name of its own: nodes cannot find it", advice=_CLIENT)
    return found


def name_of_server(server: ServerApp, why: str, *, strategy: bool = False) -> str:
    """The module and the name in it by which the server finds this app, or one with the same code.

    Args:
        server: the app.
        why: it must be found there.
        strategy: must its strategy be found there, too? Else that travels, as model and number of rounds always do.

    Raises:
        UsageError: no module has it.
    """
    functions = [*(test.function for test in server.tests), *([server.loop] if server.loop is not None else [])]

    def fits(value: Any) -> bool:
        return (
            issubclass(type(value), ServerApp)  # some things warn when they are asked what they are
            and (value.loop, value.tests) == (server.loop, server.tests)
            and (value.strategy is server.strategy or not strategy)
        )

    mine = [f for f in functions if _module_of(f) == "__main__"]
    places = list(map(_module_of, functions))
    found = "" if mine else _find(lambda value: value is server, places) or _find(fits, places)
    if not found:
        where = f", and it is written in {_main()}" if mine else ", and no module has this server app"
        raise UsageError(f"{why}{where}", advice=_SERVER)
    return found


def _find(fits: Callable[[Any], bool], likely: Iterable[str]) -> str:
    """Where an object stands that fits; "" if nowhere but in the program itself."""
    modules: dict[str, ModuleType] = {name: sys.modules[name] for name in likely if name in sys.modules}
    for name, module in {**modules, **sys.modules}.items():
        if name == "__main__" or not isinstance(module, ModuleType):
            continue
        for attribute, value in list(vars(module).items()):
            if attribute.isidentifier() and fits(value):
                return f"{name}:{attribute}"
    return ""


def _module_of(function: Any) -> str:
    """Where a handler was written; of an object that is called, where its class was."""
    own = getattr(function, "__module__", None)
    return own if isinstance(own, str) else type(function).__module__


def _main() -> str:
    return "a notebook" if "ipykernel" in sys.modules else "the program that runs"


__all__ = ["name_of_client", "name_of_server"]
