"""``node.toml``: what the data's owner says about a node, as values.

    name = "berlin"
    [data.heart]
    allow = ["alice"]
    path = "/data/heart.csv"
    password = "file:/run/secrets/database"
    [policy]
    submitters = ["alice", "bob"]
    [limits]
    max_memory = "4 GB"

Secrets stay references here, ``env:NAME`` and ``file:PATH``; they are resolved in the process that runs the app.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, final

from umbel.apps.signature import read_key
from umbel.errors import UsageError
from umbel.node.reading import Table
from umbel.wire.limits import MANY

ANYONE = "*"
KINDS = ("train", "evaluate", "query")
DEFAULT = "default"
"""What a node's only data set is called where its owner gave it no name."""
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_DATASET = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_DAY = 86400.0
_THREADS = 4096  # more than machines have cores


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """One data set of the node.

    Attributes:
        name: what runs ask for.
        settings: what handlers find in ``ctx.site``; secrets are references.
        allow: names of those whose runs may use it; "*" is anyone.
        runs: names of runs that may use it; "*" is any; a "*" may stand for a part of a name.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    allow: tuple[str, ...] = (ANYONE,)
    runs: tuple[str, ...] = (ANYONE,)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What may be asked of the node; by default, anything of the apps that it was started with.

    Attributes:
        apps: names or digests (64 hex digits) of apps that may run, out of those that the node was started with; None:
            all of those, unless ``signers`` are named.
        signers: public keys; an app that one of them has signed may run, too.
        submitters: names of those whose runs may use this node; "*" is anyone.
        kinds: what may be asked.
        max_model_bytes: how much may come with a task: model, extra arrays, all that it names.
        max_update_bytes: how much may leave in answer to a task.
        output: may the server see the end of what the app prints, tracebacks, and the text of exceptions? They may
            quote data.
        code_from_server: may apps come from the server, too? Only those that one of ``signers`` has signed, or whose
            digest is among ``apps``; there a name is not enough.
    """

    apps: tuple[str, ...] | None = None
    signers: tuple[bytes, ...] = ()
    submitters: tuple[str, ...] = (ANYONE,)
    kinds: tuple[str, ...] = KINDS
    max_model_bytes: int = 10 << 30
    max_update_bytes: int = 10 << 30
    output: bool = True
    code_from_server: bool = False


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What tasks may take of this machine. 0: no limit.

    Attributes:
        max_seconds: for one task.
        max_memory: bytes of memory, of the app's process and those that it starts; watched on Linux.
        cache: bytes of disk for what the server sends, such as models.
        journal: bytes of one file of the journal, after which another is begun.
        states: seconds after which the state of a run that asked for nothing more is removed.
        warm: how many processes with apps stay when they have nothing to do.
        idle: seconds after which such a process ends.
    """

    max_seconds: float = 0.0
    max_memory: int = 0
    cache: int = 10 << 30
    journal: int = 64 << 20
    states: float = 90 * _DAY
    warm: int = 2
    idle: float = 600.0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """All that the owner says.

    Attributes:
        name: of the node, which is also its client's; "" where it is not said.
        labels: what samplers may select by.
        slots: how many tasks it works on at once.
        threads: how many a task computes with where its run leaves that open; 0: one per core.
        devices: "auto", or a device's name as frameworks have it.
        run_as: the system's user that apps run as; "": the node's own. The node must run as root for it.
        data: the data sets by name.
        policy: what may be asked.
        limits: what it may take.
    """

    name: str = ""
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    slots: int = 1
    threads: int = 0
    devices: str = "auto"
    run_as: str = ""
    data: Mapping[str, Dataset] = field(default_factory=lambda: MappingProxyType({DEFAULT: Dataset(name=DEFAULT)}))
    policy: Policy = field(default_factory=Policy)
    limits: Limits = field(default_factory=Limits)

    def with_(self, **changes: Any) -> NodeConfig:
        """A copy with other values, as flags of the command line ask for."""
        return replace(self, **changes)


def read_config(path: Path) -> NodeConfig:
    """The config in a ``node.toml``.

    Raises:
        UsageError: it is not there, is no TOML, or says something that makes no sense; names the key.
    """
    return config_of(_toml(path), source=path.name)


def config_of(values: Mapping[str, Any], *, source: str = "node.toml") -> NodeConfig:
    """The config that parsed TOML stands for.

    Args:
        values: the parsed TOML.
        source: what it is called in complaints.

    Raises:
        UsageError: something in it makes no sense; names the key.
    """
    table = Table(values, source)
    made = NodeConfig(
        name=table.take("name", "", check_name, wanted=_NAME_WORDS),
        labels=_labels(table.table("labels")),
        slots=table.whole("slots", 1, least=1),
        threads=table.whole("threads", 0, most=_THREADS),
        devices=table.text("devices", "auto"),
        run_as=table.text("run_as"),
        policy=_policy(table.table("policy")),
        limits=_limits(table.table("limits")),
        data=_data(table.table("data")),
    )
    table.end(f.name for f in fields(NodeConfig))
    return made


def read_site(path: Path) -> Dataset:
    """The node's only data set, from a plain TOML of its settings, as ``--site`` gives it.

    Raises:
        UsageError: it is not there, or is no TOML.
    """
    return Dataset(name=DEFAULT, settings=_settings(_toml(path), path.name))


_NAME_WORDS = 'a name of 1 to 63 small letters, digits, "-" and ".", which begins and ends with a letter or a digit'


def check_name(given: Any) -> str:
    """The name of a node.

    Raises:
        ValueError: a node cannot be called so.
    """
    if not isinstance(given, str) or not _NAME.fullmatch(given):
        raise ValueError(f"{given!r} is not {_NAME_WORDS}")
    return given


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin a file with a mark
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}", advice="check the path") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no TOML: {error}", advice="save it as UTF-8, as TOML asks for") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is no TOML: {error}", advice="see docs/guide/node.md for an example") from error


def _labels(table: Table) -> Mapping[str, str]:
    labels = table.rest()
    for name, value in labels.items():
        if isinstance(value, list | dict):
            raise UsageError(f"{table.where} {name}: a label is one word or number, and not {value!r}")
    return MappingProxyType({name: str(value) for name, value in labels.items()})


def _policy(table: Table) -> Policy:
    made = Policy(
        apps=table.take("apps", None, _apps, wanted="a list of apps' names or digests of 64 hex digits"),
        signers=table.take("signers", (), _signers, wanted='a list of public keys, each "ed25519:BASE64"'),
        submitters=table.names("submitters", (ANYONE,)),
        kinds=table.take("kinds", KINDS, _kinds, wanted='a list of "train", "evaluate" and "query"'),
        max_model_bytes=table.size("max_model_bytes", Policy().max_model_bytes),
        max_update_bytes=table.size("max_update_bytes", Policy().max_update_bytes),
        output=table.flag("output", True),
        code_from_server=table.flag("code_from_server", False),
    )
    table.end(f.name for f in fields(Policy))
    if made.code_from_server and not made.signers and not any(map(_DIGEST.fullmatch, made.apps or ())):
        raise UsageError(
            f"{table.where} code_from_server is true, and nothing says whose code may come",
            advice="name signers, or digests under apps; `umbel sign check WHEEL` shows both",
        )
    return made


def _limits(table: Table) -> Limits:
    usual = Limits()
    made = Limits(
        max_seconds=table.seconds("max_seconds", usual.max_seconds),
        max_memory=table.size("max_memory", usual.max_memory),
        cache=table.size("cache", usual.cache),
        journal=table.size("journal", usual.journal),
        states=table.seconds("states", usual.states),
        warm=table.whole("warm", usual.warm),
        idle=table.seconds("idle", usual.idle),
    )
    table.end(f.name for f in fields(Limits))
    return made


def _data(table: Table) -> Mapping[str, Dataset]:
    found: dict[str, Dataset] = {}
    for name, values in table.rest().items():
        where = f"{table.where.removesuffix(']')}.{name}]"
        if not _DATASET.fullmatch(name):
            raise UsageError(f"{where}: a data set cannot be called so", advice='use letters, digits, "-", "_" and "."')
        its = Table(values, where)
        allow, runs = its.names("allow", (ANYONE,)), its.names("allow_runs", (ANYONE,))
        found[name] = Dataset(name=name, settings=_settings(its.rest(), where), allow=allow, runs=runs)
    if len(found) > MANY:
        raise UsageError(
            f"{table.where} has {len(found)} data sets, and a node at most {MANY}",
            advice="start several nodes, each with a name, a directory and some of them",
        )
    return MappingProxyType(found or {DEFAULT: Dataset(name=DEFAULT)})


def _settings(values: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    for name, value in values.items():
        _check_setting(value, f"{where} {name}")
    return MappingProxyType(dict(values))


def _check_setting(value: Any, where: str) -> None:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _check_setting(inner, f"{where}.{name}")
    elif isinstance(value, list):
        for inner in value:
            _check_setting(inner, where)
    elif value in ("env:", "file:"):
        raise UsageError(f"{where}: {value!r} refers to nothing", advice='write "env:NAME" or "file:/path/of/a/file"')
    elif not isinstance(value, str | int | float):
        raise UsageError(f"{where}: {value} is a {type(value).__name__}", advice="write it as text, in quotes")


def _apps(given: Any) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(isinstance(app, str) and app for app in given):
        raise TypeError
    return tuple(given)


def _signers(given: Any) -> tuple[bytes, ...]:
    return tuple(map(read_key, _apps(given)))


def _kinds(given: Any) -> tuple[str, ...]:
    if not isinstance(given, list) or not set(given) <= set(KINDS):
        raise ValueError
    return tuple(given)


__all__ = [
    "ANYONE",
    "DEFAULT",
    "KINDS",
    "Dataset",
    "Limits",
    "NodeConfig",
    "Policy",
    "check_name",
    "config_of",
    "read_config",
    "read_site",
]
