"""The exchange machine under every order of arrivals, losses, duplicates and late answers."""

from __future__ import annotations

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from umbel.engine.exchange import (
    Arrived,
    Close,
    DeadlinePassed,
    Drop,
    Event,
    Exchange,
    Failed,
    Fold,
    Instruction,
    Lease,
    Lost,
    Revoke,
)
from umbel.errors import Failure

KINDS = ("arrive", "fail", "lose", "duplicate", "stale", "deadline", "stranger")


def failure(client: str) -> Failure:
    return Failure(client=client, round=1, kind="train", code="client-failed", message="drawn")


class World:
    """Whoever does what the machine says; draws what happens next."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.leased: dict[str, int] = {}
        self.arrived: dict[str, int] = {}
        self.folded: list[tuple[str, int]] = []
        self.failed: set[str] = set()
        self.dropped: list[str] = []
        self.revoked: set[str] = set()
        self.leases: Counter[str] = Counter()
        self.closes: list[Close] = []

    def obey(self, instructions: list[Instruction], refuse: set[str]) -> list[Event]:
        """Carry instructions out; gives the refusals of what was folded."""
        refused: list[Event] = []
        for i in instructions:
            match i:
                case Lease(tasks):
                    assert not self.closes, "a lease after the close"
                    for client, attempt in tasks:
                        self.leased[client] = attempt
                        self.leases[client] += 1
                case Fold(clients):
                    for client, attempt, place in clients:
                        assert attempt == self.arrived[client]
                        assert client in self.arrived, "folded without an answer"
                        self.folded.append((client, place))
                        if client in refuse:
                            refused.append(Failed(client, self.arrived[client], failure(client)))
                case Drop(client):
                    self.dropped.append(client)
                case Revoke(clients):
                    self.revoked |= set(clients)
                case Close():
                    self.closes.append(i)
        return refused


@given(data=st.data())
def test_any_history_folds_each_client_at_most_once_and_closes_exactly_once(data: st.DataObject) -> None:
    n = data.draw(st.integers(0, 8), label="cohort")
    spares = [f"s{i}" for i in range(data.draw(st.integers(0, 3), label="spares"))]
    quorum = data.draw(st.sampled_from([0.0, 0.5, 0.8, 1.0]), label="quorum")
    bound = data.draw(st.booleans(), label="bound")
    race = data.draw(st.booleans(), label="race")
    cohort = [f"c{i}" for i in range(n)]
    exchange = Exchange(reversed(cohort), spares, quorum=quorum, bound=bound, race=race)
    refuse = data.draw(st.sets(st.sampled_from([*cohort, *spares])), label="refused") if cohort else set()
    world = World(exchange)

    events: list[Event] = []
    for _ in range(200):
        refused = world.obey(exchange.step(events), refuse)
        if refused:
            world.failed |= {e.client for e in refused if isinstance(e, Failed)}
            events = refused
            continue
        if world.closes:
            break
        events = draw_events(data, world)
    while not world.closes:  # the drawing ended first: everybody answers
        refused = world.obey(exchange.step(events), refuse)
        world.failed |= {e.client for e in refused if isinstance(e, Failed)}
        left = [(c, a) for c, a in world.leased.items() if c not in world.arrived]
        events = refused or [Arrived(left)]
        world.arrived |= {} if refused else dict(left)

    check(world, exchange, n, quorum, bound=bound)


def draw_events(data: st.DataObject, world: World) -> list[Event]:
    open_tasks = sorted(c for c in world.leased if c not in world.arrived and c not in world.failed)
    events: list[Event] = []
    for kind in data.draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3)):
        if kind == "deadline":
            events.append(DeadlinePassed())
        elif kind == "stranger":
            events.append(Arrived([("nobody", 1)]))
        elif kind == "duplicate" and world.arrived:
            client = data.draw(st.sampled_from(sorted(world.arrived)))
            events.append(Arrived([(client, world.arrived[client])]))
        elif open_tasks:
            client = data.draw(st.sampled_from(open_tasks))
            attempt = world.leased[client]
            if kind == "arrive":
                clients = data.draw(st.lists(st.sampled_from(open_tasks), min_size=1, unique=True))
                events.append(Arrived([(name, world.leased[name]) for name in clients]))
                world.arrived |= {name: world.leased[name] for name in clients}
                open_tasks = [name for name in open_tasks if name not in clients]
            elif kind == "fail":
                events.append(Failed(client, attempt, failure(client)))
                world.failed.add(client)
                open_tasks.remove(client)
            elif kind == "lose":
                events.append(Lost(client, attempt, failure(client)))
                open_tasks.remove(client)
            elif kind == "stale":
                events.append(Arrived([(client, attempt - 1)]))
    return events


def check(world: World, exchange: Exchange, n: int, quorum: float, *, bound: bool) -> None:
    (close,) = world.closes
    places = [place for _, place in world.folded]
    assert places == sorted(set(places)), "folded out of order, or twice"
    assert all(exchange.places[place] == client for client, place in world.folded)
    refused_after_fold = {f.client for f in close.failures}
    assert list(close.folded) == [c for c, _ in world.folded if c not in refused_after_fold]
    assert set(close.folded).isdisjoint(close.revoked)
    assert set(close.folded).isdisjoint(refused_after_fold)
    assert close.met == (len(close.folded) >= math.ceil(quorum * n - 1e-9))
    assert all(count == 1 for count in world.leases.values()) or not bound
    assert all(count <= 3 for count in world.leases.values())
    # what comes after the close changes nothing
    for client in exchange.places:
        out = exchange.step([Arrived([(client, world.leased.get(client, 1))]), DeadlinePassed()])
        assert all(isinstance(i, Drop) for i in out)


@given(st.integers(0, 300), st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_change_the_order_of_folding(n: int, random: object) -> None:
    cohort = [f"{i:03}" for i in range(n)]
    exchange = Exchange(cohort)
    exchange.step()
    order = list(cohort)
    random.shuffle(order)  # type: ignore[attr-defined]  # Hypothesis' own Random
    folded: list[str] = []
    for client in order:
        for i in exchange.step([Arrived([(client, 1)])]):
            folded += [c for c, _, _ in i.clients] if isinstance(i, Fold) else []
    assert folded == cohort
    assert n == 0 or isinstance(exchange.step()[-1], Close)
