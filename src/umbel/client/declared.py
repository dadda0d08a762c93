"""Local training that is declared and not written as a loop, so that many clients can be computed at once.

What a framework's ``local_sgd`` returns is registered as a train handler and can be called like one, a client at a
time. It also has `Declared.many`, which `umbel.client.work.Bench.do_many` uses for a whole group of clients.

What may come out depends on the group, in the last bits: stacked arithmetic rounds otherwise than a client's own. So
everything that decides how a group is computed is a function of the group and of the module, never of a clock, of the
worker, or of what this process did before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final, runtime_checkable

from umbel.aggregate.expected import FOLDED
from umbel.arguments import number, whole
from umbel.arrays import Array, Arrays
from umbel.client.context import Context
from umbel.errors import UsageError
from umbel.spec import ALIGN, Spec, aligned, layout
from umbel.update import Update

# What bounds a stack; measured, see docs/adr/0019-declared-local-training.md.
WIDEST = 64  # clients: as many as a shard has places, and beyond it nothing was gained
NARROWEST = 16  # clients; what leaves room for fewer is not faster
PARAMETERS = 8 << 20  # bytes of parameters; beyond it they leave the cache, and the loop is faster
DATA = 8 << 20  # bytes of the clients' data, which are copied side by side


@runtime_checkable
class Declared(Protocol):
    """A train handler that can also train a group of clients at once."""

    def __call__(self, model: Arrays, ctx: Context) -> Update:
        """Train one client: the reference form."""

    def many(self, models: Sequence[Arrays], contexts: Sequence[Context]) -> Sequence[Update] | None:
        """Train a group at once, with the same results up to rounding; None: it is better done one by one.

        Args:
            models: what each client starts from; all of one spec, and mostly the same object.
            contexts: of each client, all of one question.
        """


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """The local steps of SGD.

    Attributes:
        lr: the learning rate, or the name of the setting in ``ctx.config`` that holds it.
        batch: samples per step; the last batch of an epoch has what is left.
        epochs: passes over the client's data.
        shuffle: are the samples of each epoch in an order drawn from ``ctx.rng``, or as they are?
    """

    lr: float | str
    batch: int
    epochs: int
    shuffle: bool

    def __post_init__(self) -> None:
        if not isinstance(self.lr, str):
            object.__setattr__(self, "lr", number(self.lr, "local_sgd(): lr", least=0))
        object.__setattr__(self, "batch", whole(self.batch, "local_sgd(): batch"))
        object.__setattr__(self, "epochs", whole(self.epochs, "local_sgd(): epochs"))
        if not isinstance(self.shuffle, bool):
            raise UsageError(f"local_sgd(): shuffle is {self.shuffle!r}", advice="give True or False")

    def rate(self, config: Mapping[str, Any]) -> float:
        """The learning rate of this round.

        Raises:
            UsageError: the config has no such setting, or it is no number.
        """
        if not isinstance(self.lr, str):
            return self.lr
        if self.lr not in config:
            raise UsageError(
                f"local_sgd() takes lr from ctx.config[{self.lr!r}], which the strategy does not send",
                advice=f"give the strategy config={{{self.lr!r}: 0.1}}, or local_sgd() a number",
            )
        return number(config[self.lr], f"ctx.config[{self.lr!r}]", least=0)

    def orders(self, ctx: Context, size: int) -> list[Array] | None:
        """The order of the samples in each epoch; None: as they are."""
        return [ctx.rng.permutation(size) for _ in range(self.epochs)] if self.shuffle else None

    def count(self, size: int) -> int:
        """How many steps a client with so many samples makes."""
        return self.epochs * -(-size // self.batch)


def pair(ctx: Context) -> tuple[Any, Any]:
    """Inputs and targets of a client, as ``@client.data`` returned them.

    Raises:
        UsageError: ``ctx.data`` is no pair of two equally long things, and has no ``.train`` that is.
    """
    data = ctx.data
    if type(data) is tuple and len(data) == 2:  # as mostly
        return data
    data = getattr(data, "train", data)
    if not isinstance(data, Sequence) or isinstance(data, str | bytes) or len(data) != 2:
        raise UsageError(
            f"local_sgd() needs a pair (inputs, targets), and @client.data returned a {type(ctx.data).__name__}",
            advice="return a tuple of two arrays or tensors, or an object whose .train is one",
        )
    inputs, targets = data
    return inputs, targets


def check_lengths(inputs: Any, targets: Any) -> int:
    """How many samples there are.

    Raises:
        UsageError: the two have not one length.
    """
    mine, its = inputs.shape, targets.shape
    if not mine or not its or mine[0] != its[0]:
        raise UsageError(
            f"inputs have shape {tuple(mine)} and targets {tuple(its)}",
            advice="let both have one row for each sample",
        )
    return int(mine[0])


def width_of(parameters: int, data: Sequence[int]) -> int:
    """How many clients make a stack; 0: they are better trained one by one.

    Args:
        parameters: bytes of one client's.
        data: bytes of each client's.
    """
    width = min(WIDEST, PARAMETERS // max(1, parameters), DATA * len(data) // max(1, sum(data)))
    return width if width >= NARROWEST else 0


def parts(order: Sequence[int], nbytes: Sequence[int], width: int) -> list[list[int]]:
    """Clients, in an order, as stacks of at most ``width``, whose data are not too large together.

    Args:
        order: the clients, by number.
        nbytes: how large the data of each client are.
        width: how many may be in a stack.
    """
    made: list[list[int]] = []
    held = 0
    for k in order:
        if not made or len(made[-1]) == width or held + nbytes[k] > DATA:
            made.append([])
            held = 0
        made[-1].append(k)
        held += nbytes[k]
    return made


def returned(spec: Spec) -> Spec:
    """What an update of a model holds: the entries that are folded, and those that stay at the client."""
    kept = [e for e in spec.entries if e.role in FOLDED or e.role == "local"]
    if len(kept) == len(spec.entries):
        return spec
    stored = {e.name for e in kept}
    aliases = {a: t for a, t in spec.aliases if t in stored}
    return layout(kept, aliases, names=[n for n in spec.names if n in stored or n in aliases])


def side_by_side(spec: Spec, count: int) -> tuple[list[Arrays], Array]:
    """Arrays of one spec, one for each client of a stack, that are written at once.

    Returns:
        The arrays, not yet frozen, which share one block of memory; and that block without headers, uint8 of shape
        ``(count, spec.nbytes)``. Entry ``e`` of all is ``block[:, e.offset : e.offset + e.nbytes]``.
    """
    size = len(spec.header) + spec.nbytes
    stride = -(-size // ALIGN) * ALIGN
    files = aligned(count * stride).reshape(count, stride)[:, :size]
    return [Arrays.blank(spec, file) for file in files], files[:, len(spec.header) :]


def made_of(total: float, size: int, steps: Steps) -> dict[str, Any]:
    """What an update of declared training says besides its arrays.

    Args:
        total: the sum of the loss over all samples of all epochs.
        size: how many samples the client has.
        steps: what was done.
    """
    metrics = {"loss": total / (size * steps.epochs)} if size else {}
    return {"weight": float(size), "metrics": metrics, "steps": steps.count(size)}


__all__ = [
    "DATA",
    "NARROWEST",
    "PARAMETERS",
    "WIDEST",
    "Declared",
    "Steps",
    "check_lengths",
    "made_of",
    "pair",
    "parts",
    "returned",
    "side_by_side",
    "width_of",
]
