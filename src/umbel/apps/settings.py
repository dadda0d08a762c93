"""Settings of an app and of its runs, each with where it came from.

A setting is taken from the last of these that has it:

    1. its default
    2. ``[tool.umbel]`` in the project's pyproject.toml
    3. the environment: UMBEL_ROUNDS for "rounds", UMBEL_SIMULATION_CLIENTS for "simulation.clients"
    4. a flag: ``--rounds``, ``--simulation-clients``

Nothing here reads the environment: the command line gives it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, final

from umbel.arguments import whole
from umbel.errors import UsageError

DEFAULT = "default"
PREFIX = "UMBEL_"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a setting may be.

    Attributes:
        words: what to give, for people.
        check: the value that a file or a program gave, as it is kept; raises `UsageError` or ValueError.
        read: the value that a text of the environment or of a flag stands for; likewise.
    """

    words: str
    check: Callable[[Any], Any]
    read: Callable[[str], Any]


@final
@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        name: as in ``[tool.umbel]``; "simulation.clients" is ``clients`` in ``[tool.umbel.simulation]``.
        kind: what it may be.
        about: what it does, in one line.
        default: what it is if nobody says; None: nothing.
    """

    name: str
    kind: Kind
    about: str
    default: Any = None

    @property
    def variable(self) -> str:
        """What it is called in the environment."""
        return PREFIX + self.name.upper().replace(".", "_")

    @property
    def flag(self) -> str:
        """What it is called on the command line."""
        return "--" + self.name.replace(".", "-")


@final
@dataclass(frozen=True, slots=True)
class Chosen:
    """The value of one setting.

    Attributes:
        value: what it is.
        source: where it came from, for people: "default", "[tool.umbel] in .../pyproject.toml", "UMBEL_ROUNDS in the
            environment", "--rounds".
    """

    value: Any
    source: str


@final
class Settings(Mapping[str, Any]):
    """All settings by name; `rows` and `chosen` say where each came from.

    Attributes:
        chosen: value and source by name.
        notes: what looks like a mistake but may be none, in words, such as a variable that is nearly a setting's.
    """

    def __init__(self, chosen: Mapping[str, Chosen], notes: Sequence[str] = ()) -> None:
        self.chosen, self.notes = MappingProxyType(dict(chosen)), tuple(notes)

    def __getitem__(self, name: str) -> Any:
        return self.chosen[name].value

    def __iter__(self) -> Iterator[str]:
        return iter(self.chosen)

    def __len__(self) -> int:
        return len(self.chosen)

    def rows(self) -> list[tuple[str, Any, str]]:
        """(name, value, source) of each setting, for a table."""
        return [(name, chosen.value, chosen.source) for name, chosen in self.chosen.items()]

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value!r} ({source})' for name, value, source in self.rows())})"


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("no text")
    return value


def _object(value: Any) -> str:
    module, colon, attribute = _text(value).partition(":")
    if not colon or not all(part.isidentifier() for part in [*module.split("."), *attribute.split(".")]):
        raise ValueError("no object")
    return str(value)


def _whole(least: int) -> Callable[[Any], int]:
    return lambda value: whole(value, "it", least=least)


def _names(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError("no list")
    return tuple(_text(name) for name in value)


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _labels(value: Any) -> Mapping[str, str]:
    return {_text(name): _text(label) for name, label in dict(value).items()}


def _pairs(text: str) -> Mapping[str, str]:
    pairs = [part.partition("=") for part in _split(text)]
    return _labels({name.strip(): label.strip() for name, _, label in pairs})


def _clients(value: Any) -> int | tuple[str, ...]:
    return _names(value) if isinstance(value, list | tuple) else whole(value, "it")


def _clients_of_text(text: str) -> int | tuple[str, ...]:
    return whole(int(text), "it") if text.strip().lstrip("-").isdigit() else _names(_split(text))


def _sites(value: Any) -> Mapping[str, Mapping[str, Any]]:
    return {_text(name): dict(site) for name, site in dict(value).items()}


def _no_text(text: str) -> Any:
    raise ValueError(f"{text!r} is text, and a table is needed")


def _read_whole(least: int) -> Callable[[str], int]:
    return lambda text: whole(int(text), "it", least=least)


def _one_of(*words: str) -> Kind:
    def check(value: Any) -> str:
        if value not in words:
            raise ValueError("another word")
        return str(value)

    return Kind(words=" or ".join(f'"{word}"' for word in words), check=check, read=check)


TEXT = Kind(words="text that is not empty", check=_text, read=_text)
OBJECT = Kind(words='a module and a name in it, as in "myfed:client"', check=_object, read=_object)
COUNT = Kind(words="a whole number >= 1", check=_whole(1), read=_read_whole(1))
SEED = Kind(words="a whole number >= 0", check=_whole(0), read=_read_whole(0))
NAMES = Kind(
    words='names, as in ["berlin", "paris"]; elsewhere berlin,paris', check=_names, read=lambda t: _names(_split(t))
)
LABELS = Kind(words='labels, as in { country = "de" }; elsewhere country=de,size=large', check=_labels, read=_pairs)
CLIENTS = Kind(words='a whole number >= 1, or names, as in ["berlin", "paris"]', check=_clients, read=_clients_of_text)
SITES = Kind(words="a table for each name, as in [tool.umbel.simulation.sites.berlin]", check=_sites, read=_no_text)

SETTINGS: Sequence[Setting] = (
    Setting("client", OBJECT, "the client's side of the app"),
    Setting("server", OBJECT, "the server's side of the app"),
    Setting("on", TEXT, 'where runs go: "simulation", or the address of a server', "simulation"),
    Setting("name", TEXT, "what a run is called, for people"),
    Setting("dir", TEXT, "the directory that makes a simulated run durable"),
    Setting("seed", SEED, "of all randomness; drawn and recorded if nobody says"),
    Setting("rounds", COUNT, "how many rounds; if nobody says, as many as the server app does"),
    Setting("nodes", NAMES, "the nodes of a run; all that have the app if nobody says", ()),
    Setting("labels", LABELS, "labels that the nodes of a run must have", MappingProxyType({})),
    Setting("dataset", TEXT, "which of a node's data sets a run is about"),
    Setting("simulation.clients", CLIENTS, "how many clients are simulated, or their names"),
    Setting("simulation.sites", SITES, "named clients that are simulated, and the settings of each site"),
    Setting("simulation.engine", _one_of("auto", "inline", "processes"), "how clients are simulated", "auto"),
    Setting("simulation.workers", COUNT, "how many worker processes simulate; as many as useful if nobody says"),
    Setting("simulation.threads", COUNT, "how many threads each handler may compute with", 1),
)
"""Every setting that an app and its runs have."""


def resolve(
    table: Mapping[str, Any] = MappingProxyType({}),
    environment: Mapping[str, str] = MappingProxyType({}),
    flags: Mapping[str, Any] = MappingProxyType({}),
    *,
    file: str = "pyproject.toml",
    settings: Sequence[Setting] = SETTINGS,
) -> Settings:
    """Every setting's value, and where it came from.

    Args:
        table: ``[tool.umbel]`` of the project, as `Project.table`.
        environment: variables by name; those that do not begin with UMBEL_ are no settings.
        flags: values by name, as in ``[tool.umbel]`` ("simulation.clients"), as text or as what it stands for; None:
            the flag was not given.
        file: where the table stands.
        settings: which there are.

    Raises:
        UsageError: a value that cannot be, or a name that is none; says where it came from.
    """
    written = flat(table, settings, file)
    unknown = sorted(flags.keys() - {setting.name for setting in settings})
    if unknown:
        raise UsageError(f"there is no setting {unknown[0]!r}", advice=nearest(unknown[0], [s.name for s in settings]))
    chosen = {s.name: Chosen(s.default, DEFAULT) for s in settings}
    for s in settings:
        if s.name in written:
            chosen[s.name] = _checked(s, written[s.name], f"{place_of(s.name)} in {file}", _key(s.name))
        if s.variable in environment:
            chosen[s.name] = _checked(s, environment[s.variable], f"{s.variable} in the environment", "")
        if flags.get(s.name) is not None:
            chosen[s.name] = _checked(s, flags[s.name], s.flag, "")
    return Settings(chosen, _notes(environment, settings))


def flat(table: Mapping[str, Any], settings: Sequence[Setting], file: str) -> dict[str, Any]:
    """The values of ``[tool.umbel]`` by the settings' names: ``clients`` in a table ``simulation`` gets both words.

    Raises:
        UsageError: a key that is no setting; says the nearest one.
    """
    known = {setting.name for setting in settings}
    groups = {name.partition(".")[0] for name in known if "." in name}
    found: dict[str, Any] = {}
    for key, value in table.items():
        if key in groups and isinstance(value, Mapping):
            found |= {f"{key}.{inner}": each for inner, each in value.items()}
        else:
            found[key] = value
    for name in found:
        if name not in known:
            place, key = place_of(name), _key(name)
            near = [_key(other) for other in sorted(known) if place_of(other) == place]
            near += sorted(groups) if "." not in name else []
            raise UsageError(f"{file}: {place} has a key {key!r}, which is no setting", advice=nearest(key, near))
    return found


def nearest(word: str, words: Iterable[str]) -> str:
    """Advice for a misspelt word: the one that is meant, or all that there are."""
    there = list(words)
    close = difflib.get_close_matches(word, there, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"there is {', '.join(there) or 'none'}"


def place_of(name: str) -> str:
    """The table of pyproject.toml in which a setting stands."""
    group, dot, _ = name.partition(".")
    return f"[tool.umbel.{group}]" if dot else "[tool.umbel]"


def _key(name: str) -> str:
    return name.rpartition(".")[2]


def _checked(setting: Setting, value: Any, source: str, key: str) -> Chosen:
    """A value as the setting keeps it; a text of the environment or of a flag is read first."""
    try:
        made = setting.kind.read(value) if isinstance(value, str) and not key else setting.kind.check(value)
    except (ValueError, TypeError) as error:
        what = f"{source}: {key} is {value!r}" if key else f"{source} is {value!r}"
        raise UsageError(what, advice=f"give {setting.kind.words}") from error
    return Chosen(made, source)


def _notes(environment: Mapping[str, str], settings: Sequence[Setting]) -> list[str]:
    """Variables that are nearly those of a setting."""
    variables = [setting.variable for setting in settings]
    notes = []
    for variable in sorted(environment):
        if variable.startswith(PREFIX) and variable not in variables:
            close = difflib.get_close_matches(variable, variables, n=1, cutoff=0.85)
            if close:
                notes.append(f"{variable} in the environment is no setting; did you mean {close[0]}?")
    return notes


__all__ = [
    "DEFAULT",
    "PREFIX",
    "SETTINGS",
    "Chosen",
    "Kind",
    "Setting",
    "Settings",
    "flat",
    "nearest",
    "place_of",
    "resolve",
]
