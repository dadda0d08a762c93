from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.apps.settings import SETTINGS, Setting, nearest, resolve
from umbel.errors import UsageError

FILE = "/home/ada/myfed/pyproject.toml"
VALUES: dict[str, tuple[Any, str, Any]] = {  # in a file, in the environment, and what both mean
    "client": ("myfed:client", "myfed:client", "myfed:client"),
    "server": ("myfed.app:a.b", "myfed.app:a.b", "myfed.app:a.b"),
    "on": ("umbel://a:1", "umbel://a:1", "umbel://a:1"),
    "name": ("first try", "first try", "first try"),
    "dir": ("runs/1", "runs/1", "runs/1"),
    "seed": (0, "0", 0),
    "rounds": (7, "7", 7),
    "nodes": (["berlin", "paris"], "berlin, paris", ("berlin", "paris")),
    "labels": ({"country": "de", "size": "l"}, "country=de, size=l", {"country": "de", "size": "l"}),
    "dataset": ("mri", "mri", "mri"),
    "simulation.clients": (["a", "b"], "a,b", ("a", "b")),
    "simulation.engine": ("inline", "inline", "inline"),
    "simulation.workers": (2, "2", 2),
    "simulation.threads": (2, "2", 2),
}


def table(name: str, value: Any) -> dict[str, Any]:
    """What ``[tool.umbel]`` is with this setting alone."""
    group, dot, key = name.partition(".")
    return {group: {key: value}} if dot else {name: value}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_nobody_says(setting: Setting) -> None:
    found = resolve()
    assert found[setting.name] == setting.default
    assert found.chosen[setting.name].source == "default"
    assert setting.about


@pytest.mark.parametrize("name", VALUES)
def test_each_place_means_the_same(name: str) -> None:
    setting = next(s for s in SETTINGS if s.name == name)
    written, text, value = VALUES[name]
    place = "[tool.umbel.simulation]" if "." in name else "[tool.umbel]"
    for source, found in {
        f"{place} in {FILE}": resolve(table(name, written), file=FILE),
        f"{setting.variable} in the environment": resolve(environment={setting.variable: text}),
        setting.flag: resolve(flags={name: text}),
    }.items():
        assert found[name] == value
        assert found.chosen[name].source == source
    assert resolve(flags={name: value})[name] == value


def test_every_setting_is_among_those_that_are_tested() -> None:
    assert {s.name for s in SETTINGS} == {*VALUES, "simulation.sites"}


@given(st.dictionaries(st.sampled_from(["table", "environment", "flag"]), st.integers(1, 1000)))
def test_the_last_place_that_has_it_wins(said: dict[str, int]) -> None:
    found = resolve(
        {"rounds": said["table"]} if "table" in said else {},
        {"UMBEL_ROUNDS": str(said["environment"])} if "environment" in said else {},
        {"rounds": said.get("flag")},
        file=FILE,
    )
    order = ["flag", "environment", "table"]
    last = next((place for place in order if place in said), None)
    assert found["rounds"] == (said[last] if last else None)
    sources = {"flag": "--rounds", "environment": "UMBEL_ROUNDS in the environment", "table": f"[tool.umbel] in {FILE}"}
    assert found.chosen["rounds"].source == (sources[last] if last else "default")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"environment": {"UMBEL_ROUNDS": "ten"}}, "UMBEL_ROUNDS in the environment is 'ten'"),
        ({"environment": {"UMBEL_SIMULATION_SITES": "x"}}, "UMBEL_SIMULATION_SITES in the environment is 'x'"),
        ({"environment": {"UMBEL_LABELS": "x"}}, "UMBEL_LABELS in the environment is 'x'"),
        ({"flags": {"seed": "-1"}}, "--seed is '-1'"),
        ({"flags": {"simulation.clients": "0"}}, "--simulation-clients is '0'"),
        ({"flags": {"on": " "}}, "--on is ' '"),
        ({"table": {"rounds": "ten"}}, "[tool.umbel] in pyproject.toml: rounds is 'ten'"),
        ({"table": {"rounds": "10"}}, "[tool.umbel] in pyproject.toml: rounds is '10'"),
        ({"table": {"rounds": True}}, "[tool.umbel] in pyproject.toml: rounds is True"),
        ({"table": {"nodes": "berlin"}}, "[tool.umbel] in pyproject.toml: nodes is 'berlin'"),
        ({"table": {"labels": {"country": 3}}}, "[tool.umbel] in pyproject.toml: labels is {'country': 3}"),
        ({"table": {"client": "myfed"}}, "[tool.umbel] in pyproject.toml: client is 'myfed'"),
        (
            {"table": {"simulation": {"engine": "fast"}}},
            "[tool.umbel.simulation] in pyproject.toml: engine is 'fast'",
        ),
        (
            {"table": {"simulation": {"sites": {"a": 3}}}},
            "[tool.umbel.simulation] in pyproject.toml: sites is {'a': 3}",
        ),
    ],
)
def test_a_value_that_cannot_be_names_its_source(arguments: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(**arguments)
    assert caught.value.what == message
    assert caught.value.advice.startswith("give ")


def test_names_that_are_none() -> None:
    with pytest.raises(UsageError, match="there is no setting 'round'"):
        resolve(flags={"round": 3})
    with pytest.raises(UsageError, match=r"\[tool\.umbel\] has a key 'simulation', which is no setting"):
        resolve({"simulation": 3})


def test_a_variable_that_is_nearly_a_settings_is_noted() -> None:
    found = resolve(environment={"UMBEL_ROUND": "3", "UMBEL_TOKEN": "t", "HOME": "/", "UMBEL_REQUIRE": "torch"})
    assert found.notes == ("UMBEL_ROUND in the environment is no setting; did you mean UMBEL_ROUNDS?",)


def test_sites_keep_their_settings() -> None:
    sites = {"berlin": {"patients": 3}, "paris": {}}
    assert resolve({"simulation": {"sites": sites}})["simulation.sites"] == sites


def test_rows_and_words() -> None:
    found = resolve({"seed": 3}, file=FILE)
    assert ("seed", 3, f"[tool.umbel] in {FILE}") in found.rows()
    assert len(found) == len(SETTINGS) == len(found.rows()) == len(list(found))
    assert f"seed=3 ([tool.umbel] in {FILE})" in repr(found)
    assert nearest("x", []) == "there is none"
