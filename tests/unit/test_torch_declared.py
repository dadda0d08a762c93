"""Declared local training with PyTorch: lean steps, stacks, and what is refused."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

import torch
from torch import Tensor, nn

import umbel
import umbel.torch
from umbel.arrays import Arrays
from umbel.client.context import ClientInfo
from umbel.client.declared import Declared
from umbel.client.work import Bench, Done
from umbel.correction import Correction, LocalRule, LocalTask, Proximal
from umbel.engine.question import Question
from umbel.errors import EntryError, Failure, UsageError
from umbel.recipe import code_digest
from umbel.torch.stack import Stacks
from umbel.transforms import Chain

cross_entropy = nn.functional.cross_entropy
Data = dict[str, tuple[Any, Any]]


class Push(LocalRule):
    """A pull of 0.3, and an offset of each client's own."""

    def correction(self, task: LocalTask) -> Correction:
        offset = task.model.zeros() + 0.01 * (1 + int(task.client) % 3)
        return Correction(pull=0.3, anchor=task.model, offset=offset)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4, bias=False)
        self.second = nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))  # type: ignore[no-any-return]  # a module's own


class Head(nn.Module):
    """A frozen body, a constant buffer, and a head that is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 5).requires_grad_(False)
        self.shift: Tensor
        self.register_buffer("shift", torch.arange(5.0))
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.body(x)) + self.shift)  # type: ignore[no-any-return]  # a module's own


NETS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(4, 4),
    "unbiased": lambda: nn.Linear(4, 4, bias=False),
    "deep": lambda: nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 4)),
    "tied": Tied,
    "head": Head,
    "scaled": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
}
LONELY: dict[str, Callable[[], nn.Module]] = {
    "batch norm": lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 4)),
    "dropout": lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 4)),
    "convolution": lambda: nn.Sequential(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 1, 3, padding=1)).append(nn.Flatten()),
}


def made(net: Callable[[], nn.Module], seed: int = 0) -> Arrays:
    torch.manual_seed(seed)
    return umbel.torch.arrays(net())


def drawn(sizes: Sequence[int], seed: int = 0) -> Data:
    rng = np.random.default_rng(seed)
    return {f"{i:03}": (rng.normal(size=(n, 4)).astype(np.float32), rng.integers(0, 4, n)) for i, n in enumerate(sizes)}


def bench(net: Any, data: Data, **options: Any) -> Bench:
    client = umbel.ClientApp()
    client.train(umbel.torch.local_sgd(net, options.pop("loss", cross_entropy), **{"lr": 0.1, "batch": 4} | options))
    client.data(lambda ctx: data[ctx.client.name])
    return Bench(client, seed=1)


def asked(model: Arrays, **options: Any) -> Question:
    mean = umbel.aggregate.mean()
    common: dict[str, Any] = {"kind": "train", "name": "train", "seed": 1, "round": 1, "call": 1}
    return Question(**common, model=model, aggregator=mean, expected=mean.expects(model), **options)


def infos(data: Data) -> list[ClientInfo]:
    return [ClientInfo(name=name) for name in data]


def alone(at: Bench, question: Question, data: Data) -> list[Done | Failure]:
    return [at.do(question, c, {}) for c in infos(data)]


def together(at: Bench, question: Question, data: Data) -> list[Done | Failure]:
    return list(at.do_many(question, infos(data), lambda _: {}))


def update_of(done: Done | Failure) -> umbel.Update:
    assert isinstance(done, Done), done
    assert isinstance(done.update, umbel.Update)
    return done.update


def arrays_of(done: Sequence[Done | Failure]) -> list[Arrays]:
    return [update_of(d).arrays for d in done]


def assert_same(many: Sequence[Done | Failure], one: Sequence[Done | Failure], tolerance: float = 2e-5) -> None:
    for a, b in zip(arrays_of(many), arrays_of(one), strict=True):
        assert a.spec == b.spec
        assert a.difference(b, rtol=tolerance, atol=tolerance) == ""
    for m, o in zip(many, one, strict=True):
        mine, its = update_of(m), update_of(o)
        assert (mine.weight, mine.steps) == (its.weight, its.steps)
        assert mine.metrics == pytest.approx(its.metrics, rel=1e-4)


def stacked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many clients make each step, from now on."""
    widths: list[int] = []
    step = Stacks._step

    def counted(self: Stacks, training: Any, x: Tensor, y: Tensor, rows: Any) -> None:
        widths.append(len(x))
        step(self, training, x, y, rows)

    monkeypatch.setattr(Stacks, "_step", counted)
    return widths


# --- the reference form ---------------------------------------------------------------------------


def by_hand(net: nn.Module, model: Arrays, data: tuple[Any, Any], correction: Correction | None) -> Arrays:
    class Ctx:
        def __init__(self) -> None:
            self.correction = correction

    x, y = data
    with umbel.torch.local(net, model, Ctx()) as local:
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(2):
            for i in range(0, len(x), 4):
                optimizer.zero_grad()
                cross_entropy(net(torch.from_numpy(x[i : i + 4])), torch.from_numpy(y[i : i + 4])).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    update = local.update()
    return update.arrays.select(lambda e: e.role in ("trained", "buffer"))


@pytest.mark.parametrize("rule", [None, Push(), Proximal(mu=0.5)])
@pytest.mark.parametrize("net", [*NETS, *LONELY])
def test_it_does_what_a_loop_with_an_optimizer_does(net: str, rule: LocalRule | None) -> None:
    factory = NETS.get(net) or LONELY[net]
    model, data = made(factory), drawn([9, 4, 1] if net != "batch norm" else [10, 4, 6])
    question = asked(model, rule=rule)
    done = arrays_of(alone(bench(factory, data, epochs=2), question, data)) if net != "dropout" else []
    for found, (name, mine) in zip(done, data.items(), strict=bool(done)):
        task = LocalTask(client=name, round=1, model=model, extra={}, config={}, state={})
        expected = by_hand(factory(), model, mine, rule.correction(task) if rule else None)
        assert found.difference(expected, rtol=1e-5, atol=1e-6) == ""


def test_it_does_what_sgd_is_in_float64() -> None:
    """Softmax regression, against its own gradient, written out."""
    factory: Callable[[], nn.Module] = lambda: nn.Linear(4, 4, dtype=torch.float64)  # noqa: E731
    model, data = made(factory), drawn([7])
    x, y = data["000"]
    data = {"000": (x.astype(np.float64), y)}
    w, b = model["weight"].copy(), model["bias"].copy()
    total = 0.0
    for i in range(0, 7, 4):
        xs, ys = x[i : i + 4].astype(np.float64), y[i : i + 4]
        scores = xs @ w.T + b
        p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        total -= np.log(p[np.arange(len(ys)), ys]).sum()
        p[np.arange(len(ys)), ys] -= 1
        w, b = w - 0.1 * p.T @ xs / len(ys), b - 0.1 * p.mean(0)
    (done,) = alone(bench(factory, data), asked(model), data)
    update = update_of(done)
    np.testing.assert_allclose(update.arrays["weight"], w, rtol=1e-12)
    np.testing.assert_allclose(update.arrays["bias"], b, rtol=1e-12)
    assert update.metrics["loss"] == pytest.approx(total / 7)
    assert (update.weight, update.steps) == (7, 2)


def test_neither_form_imports_dynamo() -> None:
    program = """
import sys, numpy as np, torch, umbel
client = umbel.ClientApp()
client.train(umbel.torch.local_sgd(torch.nn.Linear(3, 2), torch.nn.functional.cross_entropy, lr=0.1, batch=2))
client.data(lambda ctx: (np.ones((4, 3), np.float32), np.zeros(4, int)))
from umbel.client.context import ClientInfo
from umbel.client.work import Bench, Done
from umbel.engine.question import Question
model, mean = umbel.torch.arrays(torch.nn.Linear(3, 2)), umbel.aggregate.mean()
question = Question(kind="train", name="train", seed=1, round=1, call=1, model=model, expected=mean.expects(model))
bench = Bench(client, 1)
assert isinstance(bench.do(question, ClientInfo(name="0"), {}), Done)
done = list(bench.do_many(question, [ClientInfo(name=str(i)) for i in range(9)], lambda _: {}))
assert all(isinstance(d, Done) for d in done)
assert "torch._functorch.vmap" in sys.modules
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_given_module_is_left_alone() -> None:
    net = nn.Linear(4, 4)
    before = umbel.torch.arrays(net)
    data = drawn([8] * 9)
    at = bench(net, data)
    arrays_of(alone(at, asked(made(NETS["linear"], 5)), data) + together(at, asked(before), data))
    assert umbel.torch.arrays(net) == before


def test_the_learning_rate_may_be_a_setting() -> None:
    model, data = made(NETS["linear"]), drawn([8])
    named = alone(bench(NETS["linear"], data, lr="lr"), asked(model, config={"lr": 0.05}), data)
    assert arrays_of(named) == arrays_of(alone(bench(NETS["linear"], data, lr=0.05), asked(model), data))
    (missing,) = alone(bench(NETS["linear"], data, lr="lr"), asked(model), data)
    assert isinstance(missing, Failure)
    assert "ctx.config['lr'], which the strategy does not send" in missing.message


def test_shuffled_batches_come_from_the_clients_own_stream() -> None:
    model, data = made(NETS["linear"]), drawn([16] * 3)
    at = bench(NETS["linear"], data, shuffle=True)
    once, again = (arrays_of(alone(at, asked(model), data)) for _ in range(2))
    assert once == again
    in_order = arrays_of(alone(bench(NETS["linear"], data), asked(model), data))
    assert all(a != b for a, b in zip(once, in_order, strict=True))


def test_data_may_have_a_train_part_and_be_read_only() -> None:
    class Split:
        def __init__(self, train: Any) -> None:
            self.train = train

    model, data = made(NETS["linear"]), drawn([8])
    plain = arrays_of(alone(bench(NETS["linear"], data), asked(model), data))
    x, y = data["000"]
    x.flags.writeable = False
    for form in (Split((x, y)), [torch.tensor(x), torch.tensor(y)], (np.asfortranarray(x), y)):
        given: Any = {"000": form}
        assert arrays_of(alone(bench(NETS["linear"], given), asked(model), given)) == plain


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([1, 2, 3], "needs a pair (inputs, targets), and @client.data returned a list"),
        (np.zeros((2, 4)), "returned a ndarray"),
        ((np.zeros((3, 4), np.float32), np.zeros(2, int)), "inputs have shape (3, 4) and targets (2,)"),
    ],
)
def test_data_that_are_no_pair_are_refused(data: Any, said: str) -> None:
    given: Any = {"000": data}
    (failure,) = alone(bench(NETS["linear"], given), asked(made(NETS["linear"])), given)
    assert isinstance(failure, Failure)
    assert said in failure.message


def test_a_client_without_samples_changes_nothing() -> None:
    model, data = made(NETS["linear"]), drawn([0] + [5] * 9)
    for done in (alone, together):
        first = update_of(done(bench(NETS["linear"], data), asked(model), data)[0])
        assert (first.weight, first.metrics, first.steps) == (0, {}, 0)
        assert first.arrays == model


def test_a_parameter_that_the_model_lacks_is_refused() -> None:
    model, data = made(NETS["deep"]).select(umbel.entries("*", but="3.*")), drawn([4])
    (failure,) = alone(bench(NETS["deep"], data), asked(model), data)
    assert isinstance(failure, Failure)
    assert "'3.weight' of Sequential would be trained, and the model does not have it" in failure.message


def test_what_the_model_lacks_is_the_same_in_every_process_and_for_every_client() -> None:
    def factory() -> nn.Module:
        norm = nn.BatchNorm1d(5, momentum=0.9)
        return nn.Sequential(nn.Linear(4, 5).requires_grad_(False), norm, nn.Linear(5, 4))

    model = umbel.torch.arrays(factory(), only=umbel.entries("1.weight", "1.bias", "2.*"))
    data = drawn([8] * 3)
    forwards = arrays_of(alone(bench(factory, data), asked(model), data))
    torch.manual_seed(99)
    backwards = arrays_of(alone(bench(factory, data), asked(model), dict(reversed(data.items()))))
    assert forwards == backwards[::-1]


def test_two_entries_that_are_one_tensor_are_refused() -> None:
    tied = made(Tied)
    apart = Arrays({"first.weight": tied["first.weight"], "second.weight": tied["first.weight"] + 1})
    data = drawn([4])
    (failure,) = alone(bench(Tied, data), asked(apart), data)
    assert isinstance(failure, Failure)
    assert failure.code == EntryError.code
    assert "are one tensor in Tied and two entries of the model" in failure.message


def test_a_client_keeps_entries_that_are_not_shared() -> None:
    model = made(NETS["deep"]).with_roles(umbel.entries("3.*", role="local"))
    data = drawn([8] * 9)
    one, two = (done(bench(NETS["deep"], data), asked(model), data) for done in (alone, together))
    assert_same(two, one)
    states = []
    for a, b in zip(one, two, strict=True):
        assert isinstance(a, Done)
        assert isinstance(b, Done)
        assert a.state
        assert b.state
        kept, its = a.state["umbel.local"], b.state["umbel.local"]
        assert set(kept) == {"3.weight", "3.bias"}
        assert kept.difference(its, rtol=1e-5, atol=1e-6) == ""
        states.append(a.state)
    at = bench(NETS["deep"], data)
    question = dataclasses.replace(asked(model), round=2)
    again = [at.do(question, c, s) for c, s in zip(infos(data), states, strict=True)]
    kept = {info.name: state for info, state in zip(infos(data), states, strict=True)}
    assert_same(list(at.do_many(question, infos(data), kept.__getitem__)), again)


class Leaving(dict[str, tuple[Any, Any]]):
    def __missing__(self, name: str) -> Any:
        sys.exit(name)


# --- stacks ----------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    sizes=st.lists(st.integers(0, 13), min_size=2, max_size=14),
    steps=st.fixed_dictionaries({"batch": st.integers(1, 6), "epochs": st.integers(1, 3), "shuffle": st.booleans()}),
    rule=st.sampled_from([None, Push(), Proximal(mu=0.5)]),
    net=st.sampled_from(sorted(NETS)),
)
def test_together_as_alone(sizes: list[int], steps: dict[str, Any], rule: LocalRule | None, net: str) -> None:
    model, data = made(NETS[net]), drawn(sizes)
    at, question = bench(NETS[net], data, **steps), asked(model, rule=rule)
    assert_same(together(at, question, data), alone(at, question, data))


@pytest.mark.parametrize("net", sorted(NETS.keys() - {"scaled"}))  # PyTorch cannot batch its fused weight norm
def test_small_dense_modules_are_stacked(net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = drawn([8] * 70)
    at = bench(NETS[net], data)
    widths = stacked(monkeypatch)
    arrays_of(together(at, asked(made(NETS[net])), data))
    assert widths == [64, 64, 6, 6]  # two steps of each stack


@pytest.mark.parametrize("net", sorted(LONELY))
def test_others_are_not(net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = drawn([8] * 9)
    at = bench(LONELY[net], data)
    widths = stacked(monkeypatch)
    question = asked(made(LONELY[net]))
    many = together(at, question, data)
    assert widths == []
    assert arrays_of(many) == arrays_of(alone(at, question, data))


def test_large_modules_are_not_stacked(monkeypatch: pytest.MonkeyPatch) -> None:
    def large() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 40_000), nn.Linear(40_000, 4))

    data = drawn([2] * 3)
    at = bench(large, data)
    widths = stacked(monkeypatch)
    arrays_of(together(at, asked(made(large)), data))
    assert widths == []


def test_clients_whose_loss_passes_over_samples_are_trained_all_the_same() -> None:
    data = {name: (x, np.where(np.arange(len(y)) % 3, y, -100)) for name, (x, y) in drawn([8] * 9).items()}
    at, question = bench(NETS["linear"], data), asked(made(NETS["linear"]))
    assert_same(together(at, question, data), alone(at, question, data))


def test_a_loss_that_cannot_be_batched_is_trained_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(outputs, targets) * (2.0 if float(outputs.detach().sum()) > 0 else 1.0)

    data = drawn([8] * 9)
    at = bench(NETS["linear"], data, loss=loss)
    question = asked(made(NETS["linear"]))
    assert arrays_of(together(at, question, data)) == arrays_of(alone(at, question, data))


def test_bits_do_not_depend_on_who_does_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups are formed by the cohort; whatever a process did before, a group comes out the same."""
    data = drawn([7, 3, 12, 8] * 40)
    question = asked(made(NETS["deep"]), rule=Push())
    names = list(data)
    groups = [{n: data[n] for n in names[i : i + 64]} for i in range(0, len(names), 64)]
    inline = bench(NETS["deep"], data, shuffle=True)
    expected = [arrays_of(together(inline, question, g)) for g in groups]
    for workers in (1, 2, 5):
        crew = [bench(NETS["deep"], data, shuffle=True) for _ in range(workers)]
        for i in reversed(range(len(groups))):  # in another order than inline
            torch.manual_seed(i)
            at = crew[i % workers]
            if i:
                alone(at, question, groups[0])
            assert arrays_of(together(at, question, groups[i])) == expected[i]


class Scaled(nn.Module):
    """A parameter without dimensions, and one without elements."""

    def __init__(self) -> None:
        super().__init__()
        self.by, self.none = nn.Parameter(torch.tensor(1.5)), nn.Parameter(torch.zeros(0, 4))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.by + self.none.sum()


def test_odd_parameters_are_stacked(monkeypatch: pytest.MonkeyPatch) -> None:
    data = drawn([8] * 20)
    at, question = bench(Scaled, data), asked(made(Scaled))
    widths = stacked(monkeypatch)
    assert_same(together(at, question, data), alone(at, question, data))
    assert widths == [20, 20]


def test_a_stack_that_diverges_fails_as_its_clients_do() -> None:
    data = drawn([8] * 9)
    data["004"] = data["004"][0] * np.float32(1e25), data["004"][1]
    at, question = bench(NETS["linear"], data, lr=1e8), asked(made(NETS["linear"]))
    many, one = together(at, question, data), alone(at, question, data)
    said = [[d.message.split(":")[0] for d in each if isinstance(d, Failure)] for each in (many, one)]
    assert said[0] == said[1] != []


@pytest.mark.parametrize("bad", ["target", "nan", "shape", "raises", "exits"])
def test_a_client_with_bad_data_fails_alone(bad: str) -> None:
    data = drawn([8] * 9)
    x, y = data["004"]
    if bad == "target":
        data["004"] = x, y + 9
    elif bad == "nan":
        data["004"] = x * np.float32("nan"), y
    elif bad == "shape":
        data["004"] = x[:, :3], y
    else:
        del data["004"]
    clients = [ClientInfo(name=f"{i:03}") for i in range(9)]
    at, question = bench(NETS["linear"], data), asked(made(NETS["linear"]))
    if bad == "exits":
        at = bench(NETS["linear"], Leaving(data))
    many = list(at.do_many(question, clients, lambda _: {}))
    one = [at.do(question, c, {}) for c in clients]
    assert [type(d) for d in many] == [type(d) for d in one]
    failed = [d for d in many if isinstance(d, Failure)]
    assert [f.client for f in failed] == ["004"]
    assert failed[0].message == next(d for d in one if isinstance(d, Failure)).message
    assert_same([d for d in many if isinstance(d, Done)], [d for d in one if isinstance(d, Done)])


def test_middleware_and_debugging_see_one_client_after_the_other() -> None:
    data = drawn([8] * 9)
    client = umbel.ClientApp()
    client.train(umbel.torch.local_sgd(NETS["linear"], cross_entropy, lr=0.1, batch=4))
    client.data(lambda ctx: data[ctx.client.name])
    seen = []

    @client.use
    def watch(model: Arrays, ctx: Any, call: Any) -> Any:
        seen.append(ctx.client.name)
        return call(model, ctx)

    arrays_of(together(Bench(client, seed=1), asked(made(NETS["linear"])), data))
    assert seen == list(data)
    x, y = data["004"]
    data["004"] = x, y + 9
    at = bench(NETS["linear"], data)
    with pytest.raises(IndexError):
        list(at.do_many(asked(made(NETS["linear"])), infos(data), lambda _: {}, debug=True))


def test_the_chain_of_transforms_runs_after_it() -> None:
    data, model = drawn([8] * 9), made(NETS["linear"])
    at, question = bench(NETS["linear"], data), asked(model, chain=Chain((umbel.transforms.clip(0.01),)), plans=(None,))
    many = together(at, question, data)
    assert_same(many, alone(at, question, data))
    assert all(a.norm() == pytest.approx(0.01, rel=1e-3) for a in arrays_of(many))


# --- the value --------------------------------------------------------------------------------------


def test_it_is_a_frozen_value_that_travels() -> None:
    declared = umbel.torch.local_sgd(nn.Linear(4, 4), cross_entropy, lr=0.1, batch=4, epochs=2, shuffle=True)
    assert isinstance(declared, Declared)
    assert pickle.loads(pickle.dumps(declared)).steps == declared.steps  # noqa: S301  # our own bytes
    with pytest.raises(dataclasses.FrozenInstanceError):
        declared.steps = declared.steps  # type: ignore[misc]  # what is tested


def test_the_recipe_notices_what_was_declared_otherwise() -> None:
    def digest(**options: Any) -> str:
        loss = options.pop("loss", cross_entropy)
        return code_digest(umbel.torch.local_sgd(Tied, loss, **{"lr": 0.1, "batch": 4} | options))

    others = [
        digest(lr=0.2),
        digest(batch=5),
        digest(shuffle=True),
        digest(loss=nn.functional.mse_loss),
    ]
    assert digest() == digest()
    assert len({digest(), *others}) == 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": -1.0},
        {"lr": float("nan")},
        {"batch": 0},
        {"batch": 2.5},
        {"epochs": 0},
        {"shuffle": 1},
        {"loss": 3},
        {"module": "Net"},
        {"module": dict},
    ],
)
def test_arguments_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    options: dict[str, Any] = {"module": nn.Linear(2, 2), "loss": cross_entropy, "lr": 0.1, "batch": 1} | wrong
    with pytest.raises(UsageError, match="local_sgd"):
        umbel.torch.local_sgd(options.pop("module"), options.pop("loss"), **options)


def test_a_federation_with_declared_training_runs_as_it_stands() -> None:
    data = drawn([12] * 8)
    client = umbel.ClientApp()
    client.train(umbel.torch.local_sgd(NETS["linear"], cross_entropy, lr="lr", batch=4))
    client.data(lambda ctx: data[ctx.client.name])
    server = umbel.ServerApp(
        model=lambda: umbel.torch.arrays(NETS["linear"]()),
        strategy=umbel.fed_prox(mu=0.1, config={"lr": umbel.schedule.cosine(0.5, rounds=4)}),
        rounds=4,
    )
    result = umbel.run(server, client, on=umbel.Simulation(clients=list(data)), seed=1)
    assert result.history["loss"][-1] < result.history["loss"][0]
