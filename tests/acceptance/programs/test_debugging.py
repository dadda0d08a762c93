"""When one's own code is wrong: what is shown, what goes on, and how to get at it with a debugger."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-subclassing-any, no-check-untyped-defs
from __future__ import annotations

import numpy as np
import pytest

import umbel


class Broken(RuntimeError):
    """Something of the user's own."""


def make_client(wrong):
    client = umbel.ClientApp()

    @client.train
    def train(model, ctx):
        wrong(ctx)
        return umbel.Update(model={"w": model["w"] + 1})

    return client


def always(ctx):
    raise Broken("cannot read the scanner")


server = umbel.ServerApp(model={"w": np.zeros(2)}, strategy=umbel.fed_avg(), rounds=4)
federation = umbel.Simulation(clients=4)


def test_the_error_names_client_round_and_line():
    with pytest.raises(umbel.errors.QuorumMissed) as raised:
        umbel.run(server, make_client(always), on=federation)
    text = str(raised.value)
    assert "round 1, client '0', train: its train handler raised Broken: cannot read the scanner" in text
    assert 'raise Broken("cannot read the scanner")' in text  # the line, from the client's traceback
    assert "umbel.rounds(quorum=" in text


def test_debug_lets_the_exception_through_where_it_was_raised():
    with pytest.raises(Broken) as raised:
        umbel.run(server, make_client(always), on=federation, debug=True)
    assert raised.traceback[-1].name == "always"


def test_ctrl_c_leaves_the_directory_resumable(tmp_path):
    asked = []

    def interrupted(ctx):
        asked.append(ctx.client.name)
        if len(asked) == 10:  # the second client of round 3
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as raised:
        umbel.run(server, make_client(interrupted), on=federation, seed=1, dir=tmp_path)
    assert "2 rounds are committed" in raised.value.__notes__[0]
    result = umbel.run(server, make_client(interrupted), on=federation, seed=1, dir=tmp_path)
    assert result.model["w"].tolist() == [4.0, 4.0]
    assert len(asked) == 10 + 8  # rounds 3 and 4; nobody trained the first two again


def test_the_model_that_arrives_is_not_changed_in_place():
    client = umbel.ClientApp()

    @client.train
    def train(model, ctx):
        w = model["w"]
        w -= 0.1
        return umbel.Update(model={"w": w})

    with pytest.raises(umbel.errors.QuorumMissed, match=r"read-only(?s:.*)What to do: (?s:.*)model\[name\]\.copy\(\)"):
        umbel.run(server, client, on=federation)


def test_integers_in_the_first_model_are_no_parameters():
    client = umbel.ClientApp()
    client.train(lambda *_: umbel.Update(model={"w": np.ones(2), "b": 1.0}))
    with pytest.raises(umbel.UmbelError, match=r"nothing in the model is trained: 'b' is I64(?s:.*)0\.0 and not 0"):
        umbel.run(server.with_(model={"b": 0}), client, on=federation)
    with pytest.raises(umbel.UmbelError, match=r"'b' was sent as an integer(?s:.*)0\.0 and not 0"):
        umbel.run(server.with_(model={"w": np.zeros(2), "b": 0}), client, on=federation)


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (None, r"returned nothing \(None\).*return umbel.Update"),
        ({"w": 1.0}, "returned a dict.*return umbel.Update"),
        (umbel.Metrics({"loss": 1.0}), "returned a Metrics.*return umbel.Update"),
        (umbel.Update(value={"w": 1.0}), "returned a value, but a model is aggregated"),
        (umbel.Update(model={"w": np.zeros(3)}), r"entry 'w' has shape \(3,\), \(2,\) was sent"),
        (umbel.Update(model={"w": np.zeros(2, np.float32)}), "entry 'w' has dtype F32, F64 was sent.*cast"),
        (umbel.Update(model={"w": [np.nan, 1]}), "entry 'w' is not finite: 1 of 2 elements.*learning rate"),
        (umbel.Update(model={}), "entry 'w' is missing"),
        (umbel.Update(model={"w": np.zeros(2), "v": 1.0}), "entry 'v' was not in the model that was sent"),
    ],
)
def test_what_makes_no_update_is_refused_with_what_to_do(returned, told):
    client = umbel.ClientApp()
    client.train(lambda *_: returned)
    with pytest.raises(umbel.errors.QuorumMissed, match=f"(?s){told}"):
        umbel.run(server, client, on=federation)
