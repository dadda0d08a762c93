"""Softmax regression, whose gradient has a closed form: stacks of it need neither autograd nor ``torch.func.vmap``.

A module with one linear layer and cross-entropy is what many small clients train, and there most of a step goes to
recording and batching a dozen little operations. That a module is one is read off the graph of a trial: where the loss
came from tells all that was done to a batch, and that the module can be batched at all shows that nothing in it depends
on values. So what a user's class is called, and what it is derived from, plays no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

_MEAN = 1  # how PyTorch numbers reductions
_IGNORED = -100  # the target that cross-entropy passes over if nothing else is said
_WORD = 1 << 64


@final
@dataclass(frozen=True, slots=True)
class Softmax:
    """Where the parameters of softmax regression stand among all that are trained.

    Attributes:
        weight, bias: their numbers; None: there is no bias.
    """

    weight: int
    bias: int | None

    def step(self, params: Sequence[Tensor], x: Tensor, y: Tensor, rate: float) -> Tensor:
        """Make one step of SGD, in place; the loss of each client before it."""
        values, outward, inputs = self._outward(params, x, y)
        params[self.weight].baddbmm_(outward.transpose(1, 2), inputs, alpha=-rate / x.shape[1])
        if self.bias is not None:
            params[self.bias].add_(outward.sum(1), alpha=-rate / x.shape[1])
        return values

    def gradients(self, params: Sequence[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The loss of each client and its gradients."""
        values, outward, inputs = self._outward(params, x, y)
        outward.div_(x.shape[1])
        made = [torch.bmm(outward.transpose(1, 2), inputs)] * len(params)
        if self.bias is not None:
            made[self.bias] = outward.sum(1)
        return values, tuple(made)

    def _outward(self, params: Sequence[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The mean losses, the gradient of their sums by what the layer puts out, and what goes into it.

        Raises:
            RuntimeError: a target is no class, or one to be passed over: such clients are trained one by one.
        """
        inputs, targets = x.reshape(*x.shape[:2], -1), y.unsqueeze(2)
        into = params[self.weight].transpose(1, 2)
        if self.bias is None:
            scores = torch.bmm(inputs, into)
        else:
            scores = torch.baddbmm(params[self.bias].unsqueeze(1), inputs, into)
        logs = torch.log_softmax(scores, 2)
        values = logs.gather(2, targets).squeeze(2).mean(1).neg_()
        outward = logs.exp_().scatter_(2, targets, -1.0, reduce="add")
        return values, outward, inputs


def softmax(loss: Tensor, params: Sequence[Tensor], x: Tensor, y: Tensor) -> Softmax | None:
    """What a loss shows: it is the mean cross-entropy of one linear layer of a batch as it is; or None.

    Args:
        loss: of a batch that was not changed on the way.
        params: all that is trained.
        x: the batch's inputs, which are contiguous.
        y: its targets.
    """
    picked = _node(loss.grad_fn, "NllLossBackward0")
    logs = _node(_source(picked, 0), "LogSoftmaxBackward0")
    if picked is None or logs is None or logs._saved_dim % 2 != 1:  # 1 or -1
        return None
    plain = picked._saved_weight is None and unsigned(picked._saved_ignore_index) == unsigned(_IGNORED)
    if not plain or picked._saved_reduction != _MEAN or not _same(picked._saved_target, y):
        return None
    layer = _source(logs, 0)
    biased = _node(layer, "AddmmBackward0")
    if biased is not None and not biased._saved_alpha == biased._saved_beta == 1:
        return None
    linear = biased or _node(layer, "MmBackward0")
    if linear is None or _source(linear, -2) is not None:  # something that is trained comes before it
        return None
    inputs = linear._saved_mat1 if biased else linear._saved_self
    weight = _number(_source(_node(_source(linear, -1), "TBackward0"), 0), params)
    bias = _number(_source(biased, 0), params)
    if inputs is None or not _same(inputs, x.reshape(len(x), -1)) or weight is None or (biased and bias is None):
        return None
    if len(params) != 1 + (bias is not None) or params[weight].dtype not in (torch.float32, torch.float64):
        return None
    return Softmax(weight, bias)


def unsigned(number: int) -> int:
    """A whole number as nodes tell it: negative ones as if they had no sign."""
    return number % _WORD


def _node(node: Any, name: str) -> Any:
    """The node, if it is of this kind."""
    return node if node is not None and node.name() == name else None


def _source(node: Any, number: int) -> Any:
    """The node that made an operand of this one."""
    return None if node is None else node.next_functions[number][0]


def _number(node: Any, params: Sequence[Tensor]) -> int | None:
    """Which parameter a leaf of the graph is."""
    found = getattr(node, "variable", None)
    return next((i for i, p in enumerate(params) if p is found), None)


def _same(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride() and a.dtype == b.dtype


__all__ = ["Softmax", "softmax", "unsigned"]
