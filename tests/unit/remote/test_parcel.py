from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from types import ModuleType

import numpy as np
import pytest

import umbel
from tests.unit.remote import traveller
from umbel import wire
from umbel.apps.describe import App
from umbel.codec import decode
from umbel.engine.submission import EvaluationOnly, Submission
from umbel.errors import UsageError
from umbel.remote.named import name_of_client, name_of_server
from umbel.remote.parcel import pack

APP = App(name="myfed", version="1.0", digest=bytes(32), object="myfed:client", handlers=("train",))
STRATEGIES = {
    "fed_avg": umbel.fed_avg(cohort=umbel.sample.fraction(0.5), config={"lr": umbel.schedule.cosine(0.1, rounds=20)}),
    "fed_adam": umbel.fed_adam(lr=0.1, metrics={"loss": umbel.metrics.quantiles(0.5)}),
    "fed_prox": umbel.fed_prox(mu=0.1, rounds=umbel.rounds(min_nodes=3, wait=7, spare=1)),
    "clipped": umbel.fed_avg().with_(umbel.transforms.clip(1.0)),
    "shared": umbel.fed_avg(share=umbel.entries("*", but="*.bn*")),
    "q_fed_avg": umbel.q_fed_avg(q=0.2, lr=0.1),
}


def submission(**more: object) -> Submission:
    initial = umbel.Arrays({"w": np.arange(3.0), "big": np.zeros(40_000)})
    return replace(Submission(seed=3, rounds=2, initial=initial, handlers=("train",)), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", STRATEGIES)
def test_what_is_packed_is_what_is_unpacked(name: str) -> None:
    made = submission(strategy=STRATEGIES[name], stopping=(umbel.EarlyStopping("loss"),))
    parcel = pack(made, APP)
    request = parcel.request("key", "name", nodes=("berlin",), labels={"country": "de"}, dataset="heart")
    data = wire.from_json(request.submission, "submission", 1 << 20)
    assert decode(data, parcel.blobs.__getitem__) == made
    assert request.app.digest == APP.digest
    assert [(label.name, label.value) for label in request.labels] == [("country", "de")]


def test_large_arrays_are_written_before_and_small_ones_travel_inside() -> None:
    small = umbel.Arrays({"w": np.zeros(3)})
    parcel = pack(submission(strategy=umbel.fed_avg(), initial=small), APP)
    assert parcel.large == []
    (blob,) = parcel.request("key", "name", nodes=(), labels={}, dataset="").blobs
    assert blob.content == bytes(small.to_bytes())
    parcel = pack(submission(strategy=umbel.fed_avg()), APP)
    (blob,) = parcel.request("key", "name", nodes=(), labels={}, dataset="").blobs
    assert [arrays.digest() for arrays in parcel.large] == [blob.digest.hex()]
    assert not blob.HasField("content")


@dataclass(frozen=True)
class First(umbel.sample.Sampler):
    """A sampler of the user's own."""

    def draw(self, population: umbel.sample.Population, *, round: int, rng: np.random.Generator) -> tuple[str, ...]:
        del round, rng
        return tuple(population.names[:1])


def test_what_cannot_travel_is_named_with_the_way_out() -> None:
    server = umbel.ServerApp(strategy=umbel.fed_avg(metrics={"loss": lambda *_: 0.0}))
    with pytest.raises(UsageError, match=r"(?s)strategy.*--app") as refused:
        pack(submission(strategy=server.strategy), APP, server)
    assert "function" in refused.value.what
    with pytest.raises(UsageError, match=r"(?s)test_parcel\.First.*--app"):
        pack(submission(strategy=umbel.fed_avg(cohort=First())), APP, umbel.ServerApp(strategy=umbel.fed_avg()))


def test_an_evaluation_travels_if_it_is_made_of_own_values() -> None:
    for asked in (
        EvaluationOnly(cohort=First()),
        EvaluationOnly(metrics={"loss": umbel.metrics.of(traveller.combine)}),
    ):
        with pytest.raises(UsageError, match=r"(?s)First|function.*fed.evaluate in a main"):
            pack(submission(evaluation=asked), APP)


def test_a_server_app_with_code_travels_by_its_name() -> None:
    module = traveller.__name__
    assert pack(submission(), APP, traveller.own).main == f"{module}:own"
    parcel = pack(submission(strategy=traveller.fancy.strategy), APP, traveller.fancy)
    assert parcel.main == f"{module}:fancy"
    assert "function" in parcel.why
    assert parcel.submission["fields"]["strategy"] is None
    own = umbel.ServerApp()
    own.main(lambda fed: fed.commit({"model": fed.initial}))
    with pytest.raises(UsageError, match=r"(?s)has a main of its own.*--app"):
        pack(submission(), APP, own)


def test_a_changed_copy_of_a_server_app_with_code_travels_by_the_name_of_the_same_code() -> None:
    module = traveller.__name__
    assert pack(submission(rounds=7), APP, traveller.own.with_(rounds=7)).main == f"{module}:own"
    adam = traveller.evaluated.with_(strategy=umbel.fed_adam())
    parcel = pack(submission(strategy=adam.strategy), APP, adam)
    assert parcel.main == f"{module}:evaluated"
    there = decode(parcel.submission, parcel.blobs.__getitem__)
    assert (there.strategy, there.loop(traveller.evaluated).__module__) == (umbel.fed_adam(), "umbel.engine.loop")
    fancy = traveller.fancy.with_(rounds=7)
    assert pack(submission(strategy=fancy.strategy), APP, fancy).main == f"{module}:fancy"
    unknown = traveller.fancy.with_(strategy=umbel.fed_avg(cohort=First()))
    with pytest.raises(UsageError, match=r"(?s)test_parcel\.First.*--app"):
        pack(submission(strategy=unknown.strategy), APP, unknown)


def test_apps_are_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert name_of_client(traveller.client) == f"{traveller.__name__}:client"
    another = ModuleType("another")
    another.server = umbel.ServerApp(model={"w": [0.0]}, strategy=umbel.fed_avg(), rounds=1)  # type: ignore[attr-defined]
    own = sys.modules[traveller.__name__]
    monkeypatch.delitem(sys.modules, traveller.__name__)
    monkeypatch.setitem(sys.modules, "another", another)
    monkeypatch.setitem(sys.modules, traveller.__name__, own)
    assert name_of_server(traveller.server, "why") == f"{traveller.__name__}:server"
    with pytest.raises(UsageError, match="umbel new"):
        name_of_client(umbel.ClientApp())


def test_functions_of_the_program_itself_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    main = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    client = umbel.ClientApp()

    def train(model: umbel.Arrays, ctx: umbel.Context) -> umbel.Update:
        return umbel.Update(model=model)

    train.__module__ = "__main__"
    client.train(train)
    with pytest.raises(UsageError, match=r"(?s)train.*the program that runs.*myfed:client"):
        name_of_client(client)
