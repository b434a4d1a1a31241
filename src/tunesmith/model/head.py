"""The output head and its loss, on trained tokens only and a budget's worth of logits at a time.

The vocabulary is the widest product of a small model: 49,152 columns against 576 in SmolLM2-135M. A prompt's logits
would be thrown away, and float32 logits of all the rest would be the largest thing in memory. The gradient of a
chunk is made while its logits are at hand, so that they are made once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

Loss = Callable[[Tensor, Tensor], Tensor]  # of logits, which become their gradient, and targets
BUDGET = 256 << 20  # bytes of logits at a time: 2,700 rows of 49,152 in bfloat16


def decoder_of(model: PreTrainedModel) -> nn.Module:
    """What turns ids into hidden states: all but the head."""
    found: nn.Module = model.base_model
    return found


def nll_and_gradient(logits: Tensor, targets: Tensor) -> Tensor:
    """Summed negative log-likelihood (nats) of `targets` (N,). Its gradient takes the place of `logits` (N, V)."""
    wide = logits.to(torch.float64 if logits.dtype == torch.float64 else torch.float32)
    highest = wide.amax(-1, keepdim=True)
    total = torch.exp(wide - highest).sum(-1, keepdim=True)
    wanted = wide.gather(1, targets.unsqueeze(1)) - highest
    nll = (total.log() - wanted).sum()
    logits.copy_(torch.exp(wide - highest) / total)
    logits.scatter_(1, targets.unsqueeze(1), (torch.exp(wanted) / total - 1).to(logits.dtype))
    return nll


@functools.cache
def compiled_nll() -> Loss:
    """`nll_and_gradient` with its passes over the logits fused."""
    return torch.compile(nll_and_gradient, dynamic=True, fullgraph=True)


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, loss: Loss) -> Tensor:
        rows = max(1, BUDGET // (weight.shape[0] * weight.element_size()))
        total: Tensor | float = 0.0
        for_hidden, for_weight = torch.empty_like(hidden), None
        for first in range(0, len(hidden), rows):
            part = hidden[first : first + rows]
            gradient = part @ weight.T  # the logits, until their loss is known
            total = total + loss(gradient, targets[first : first + rows])
            for_hidden[first : first + rows] = gradient @ weight
            if ctx.needs_input_grad[1]:
                product = gradient.T @ part
                for_weight = product if for_weight is None else for_weight.float().add_(product)
        ctx.save_for_backward(for_hidden, for_weight)
        return torch.as_tensor(total)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        for_hidden, for_weight = ctx.saved_tensors
        scaled = None if for_weight is None else (for_weight * grad).to(for_hidden.dtype)
        return (for_hidden * grad).to(for_hidden.dtype), scaled, None, None


def summed_nll(hidden: Tensor, weight: Tensor, targets: Tensor, loss: Loss = nll_and_gradient) -> Tensor:
    """Summed negative log-likelihood (nats) of `targets` (N,) under hidden states (N, d) and a head's weight (V, d)."""
    if torch.is_grad_enabled():
        total: Tensor = _HeadLoss.apply(hidden, weight, targets, loss)
        return total
    rows = max(1, BUDGET // (4 * weight.shape[0]))
    parts = zip(hidden.split(rows), targets.split(rows), strict=True)
    wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    losses = [F.cross_entropy((part @ weight.T).to(wide), wanted, reduction="sum") for part, wanted in parts]
    return torch.stack(losses).sum()


def is_plain(model: PreTrainedModel, hidden: Tensor, logits: Tensor) -> bool:
    """Whether the head is one bias-free product: no soft cap, no scale. Told by trying, on one forward pass."""
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear) or head.bias is not None:
        return False
    return bool(torch.equal(head(hidden), logits))
