"""What is minimised. An objective returns a sum over trained tokens: the loop alone divides, once a step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tunesmith.model.compute import Computing
from tunesmith.train.plan_batches import IGNORE, MicroBatch

Objective = Callable[[nn.Module, MicroBatch], Tensor]


def next_token(model: nn.Module, micro: MicroBatch) -> Tensor:
    """Sum of the negative log-likelihood (nats, at least float32) of every labelled token, given all before it."""
    device = next(model.parameters()).device
    ids = torch.from_numpy(micro.input_ids).to(device)
    labels = torch.from_numpy(micro.labels).to(device)
    padded = bool((micro.lengths != micro.input_ids.shape[1]).any())
    mask = torch.from_numpy(micro.attention_mask).to(device) if padded else None
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    targets = labels[:, 1:]
    chosen = targets != IGNORE
    if not bool(chosen.all()):  # float32 softmax only where a token is trained: the rest would be thrown away
        logits, targets = logits[chosen], targets[chosen]
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="sum")


def within(context: Callable[[], AbstractContextManager[Any]]) -> Objective:
    """`next_token` whose forward pass runs in a context, such as autocast."""

    def objective(model: nn.Module, micro: MicroBatch) -> Tensor:
        with context():
            return next_token(model, micro)

    return objective


def computed(computing: Computing) -> Objective:
    """`next_token` for micro-batches that may be packed: logits are made for trained tokens only."""

    def objective(model: nn.Module, micro: MicroBatch) -> Tensor:
        if not micro.packed:
            with computing.format():
                return next_token(model, micro)
        ids = torch.from_numpy(micro.input_ids).to(computing.device)
        labels = torch.from_numpy(micro.labels[0, 1:])
        at = (labels != IGNORE).nonzero().squeeze(1)
        with computing.format():
            return computing.nll(ids, micro.lengths.tolist(), at.to(computing.device), labels[at].to(computing.device))

    return objective
