"""The whole command line, and what is said where it fails."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, final

from cyclopts import App, CycloptsError, Parameter

from umbel.cli.audit import audit
from umbel.cli.config import config
from umbel.cli.doctor import doctor
from umbel.cli.evaluate import evaluate
from umbel.cli.login import login
from umbel.cli.new import new
from umbel.cli.node import node_app
from umbel.cli.nodes import nodes_app
from umbel.cli.policy import policy
from umbel.cli.run import run
from umbel.cli.runs import fetch, logs, ls, remove, resume, show, stop
from umbel.cli.server import server_app
from umbel.cli.sign import sign_app
from umbel.cli.streams import only_json, open_streams
from umbel.cli.ticket import ticket_app
from umbel.cli.token import token_app
from umbel.version import __version__

app = App(
    name="umbel",
    help="Federated learning: train models on data that cannot move.",
    version=__version__,
    default_parameter=Parameter(negative=()),
)
for group in (server_app, node_app, nodes_app, ticket_app, token_app, sign_app):
    app.command(group)
_COMMANDS: tuple[Callable[..., Any], ...] = (
    *(run, evaluate, ls, show, logs, stop, resume, fetch, remove),
    *(login, policy, new, config, doctor, audit),
)
for command in _COMMANDS:
    app.command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. What goes wrong is said in words: exit status 1, or 2 where the command makes no sense."""
    open_streams()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its own words would stand on standard error beside ours
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        sys.exit(_done(list(sys.argv[1:] if arguments is None else arguments)))
    finally:
        signal.signal(signal.SIGTERM, before)


def _done(words: Sequence[str]) -> int:
    """The exit status of a command, from its words."""
    try:
        command, bound, *_ = app.parse_args(words, print_error=False, exit_on_error=False)
    except CycloptsError as error:
        _complain(_without_stop(str(error)), f"umbel {' '.join(_words(words))} --help".replace("  ", " "))
        return 2
    return _status(command, *bound.args, **bound.kwargs)


def _without_stop(text: str) -> str:
    """A sentence without its full stop; "..." says that something was left out, and stays."""
    return text if text.endswith("...") else text.rstrip(".")


@final
class _Terminated(KeyboardInterrupt):
    """SIGTERM. What tidies up after Ctrl-C does so after this, too."""


def _terminate(_number: int, _frame: object) -> None:
    raise _Terminated


def _words(words: Sequence[str]) -> list[str]:
    """The command, as far as it is one."""
    found: list[str] = []
    here: App = app
    for word in words:
        try:
            here = here[word]
        except KeyError:
            break
        if not isinstance(here, App) or word.startswith("-"):
            break
        found.append(word)
    return found


def _status(command: Callable[..., Any], *args: Any, **kwargs: Any) -> int:
    """The exit status of a command; what goes wrong is said."""
    try:
        with only_json() if kwargs.get("json") else nullcontext():
            status = command(*args, **kwargs)
    except KeyboardInterrupt as interrupt:
        for note in getattr(interrupt, "__notes__", ()):
            sys.stderr.write(f"\n{note}\n")
        return 143 if isinstance(interrupt, _Terminated) else 130
    except BrokenPipeError:  # who reads has gone, as `head` does
        sys.stderr.close()
        return 0
    except UnicodeEncodeError as error:  # bytes of the command line that are no letters
        _complain(f"{error.object!r} is no text in UTF-8", "write it in UTF-8, as this terminal may not")
        return 1
    except OSError as error:  # of a file or a stream that the user has named
        what = f"{error.filename}: " * bool(error.filename) + (error.strerror or str(error))
        _complain(what, "check the path, its permissions, and the room on the disk; also where the output goes")
        return 1
    except Exception as error:
        from umbel.errors import UmbelError

        if not isinstance(error, UmbelError):
            raise
        _complain(error.what, error.advice)
        return 1
    return status if isinstance(status, int) else 0


def _complain(what: str, advice: str) -> None:
    from umbel.cli.printing import shown

    sys.stderr.write(f"umbel: {shown(what)}\n")
    if advice:
        sys.stderr.write(f"What to do: {shown(advice)}\n")


__all__ = ["app", "main"]
