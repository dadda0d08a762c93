from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import umbel
from tests.unit.remote import traveller
from umbel.errors import UsageError
from umbel.link.address import Address

ADDRESS = str(Address("localhost", 1, bytes(16), b"certificate"))


@pytest.fixture(autouse=True)
def nobody_is_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


def test_a_place_says_which_nodes_and_hides_the_token() -> None:
    place = umbel.connect(ADDRESS, nodes=["berlin"], labels={"country": "de", "size": 3}, dataset="heart")
    assert place.place.nodes == ("berlin",)
    assert place.place.labels == {"country": "de", "size": "3"}
    assert place.address.secret_text not in repr(place)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"where": 3}, "address"),
        ({"where": ADDRESS[:-3]}, "cut off"),
        ({"where": ADDRESS, "nodes": "berlin"}, "nodes"),
        ({"where": ADDRESS, "labels": ["de"]}, "labels"),
        ({"where": ADDRESS, "threads": 0}, "threads"),
        ({"where": ""}, "nobody is logged in"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: Any, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        umbel.connect(**arguments)


def test_debugging_is_for_simulations() -> None:
    with pytest.raises(UsageError, match="debug"):
        umbel.run(traveller.server, traveller.client, on=umbel.connect(ADDRESS), debug=True)


def test_a_client_may_be_given_by_its_name() -> None:
    name = f"{traveller.__name__}:client"
    result = umbel.run(traveller.server, name, on=umbel.Simulation(2))
    assert result.status == "finished"


def test_nothing_of_deployment_is_imported_before_it_is_used() -> None:
    heavy = ("grpc", "google.protobuf", "cryptography", "sqlalchemy")
    program = f"import umbel, sys; umbel.run; umbel.connect; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
