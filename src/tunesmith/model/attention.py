"""Attention over packed rows: documents side by side in one flat row, none of which sees another.

A packed row wastes nothing on padding, but plain causal attention would let a document read the one before it. Three
exact ways, each registered with transformers as an attention function: `varlen` (CUDA, torch's own kernel),
`bucketed` (CPU, compiled: documents of like length as one batched product, see bucketed.py) and `documents` (anywhere:
one call of scaled_dot_product_attention a document).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from tunesmith.model import bucketed

Kind = Literal["varlen", "bucketed", "documents"]
NO_WINDOW = 1 << 30  # tokens; larger than any document
# What a model's own code may raise where it is asked for what its author did not foresee.
STRANGE = (AttributeError, KeyError, RuntimeError, TypeError, ValueError)
_GRID = 512  # tokens; the longest document is rounded up to it, so that a compiled block sees few values


class Documents(NamedTuple):
    """Where the documents of a flat row of T tokens lie; made once a micro-batch, used by every layer.

    bounds: (documents + 1,) int32, the first token of each and T. order, inverse, shapes: see `bucketed.plan`.
    longest: tokens of the longest one, rounded up.
    """

    bounds: Tensor
    order: Tensor
    inverse: Tensor
    shapes: Tensor
    longest: int


def documents(lengths: Sequence[int], device: torch.device) -> Documents:
    """Describe a flat row that holds documents of these lengths (tokens), one after the other."""
    bounds = torch.tensor([0, *lengths]).cumsum(0)
    order, inverse, shapes = bucketed.plan(lengths)
    longest = -(-max(lengths) // _GRID) * _GRID
    return Documents(bounds.to(device, torch.int32), order.to(device), inverse.to(device), shapes, longest)


def positions(lengths: Sequence[int], device: torch.device) -> Tensor:
    """(1, T) positions that begin at 0 in each document."""
    return torch.cat([torch.arange(n) for n in lengths]).unsqueeze(0).to(device)


@contextmanager
def using(model: PreTrainedModel, kind: Kind | Literal["slots"]) -> Iterator[None]:
    """`model` attends within documents (or slots) inside; the implementation that it had comes back after."""
    before = model.config._attn_implementation
    model.set_attn_implementation(f"tunesmith_{kind}")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _varlen(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **given: Any
) -> tuple[Tensor, None]:
    from torch.nn.attention.varlen import varlen_attn

    where: Documents = given["documents"]
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
    window = given.get("sliding_window")
    out = varlen_attn(
        *(q, k, v, where.bounds, where.bounds, where.longest, where.longest),
        scale=given.get("scaling"),
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=q.shape[1] != k.shape[1],
    )
    assert isinstance(out, Tensor)  # a tuple only where more is asked for
    return out.unsqueeze(0), None


def _bucketed(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **given: Any
) -> tuple[Tensor, None]:
    where: Documents = given["documents"]
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
    scale = given.get("scaling") or q.shape[-1] ** -0.5
    window = given.get("sliding_window") or NO_WINDOW
    out, _ = torch.ops.tunesmith.attention(q, k, v, where.order, where.inverse, where.shapes, scale, window)
    return out.unsqueeze(0), None


def _documents(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **given: Any
) -> tuple[Tensor, None]:
    bounds = given["documents"].bounds.tolist()
    window = given.get("sliding_window") or NO_WINDOW
    parts = []
    for first, last in pairwise(bounds):
        q, k, v = (part[:, :, first:last] for part in (query, key, value))
        near = None
        if last - first > window:
            at = torch.arange(last - first, device=q.device)
            near = (at[:, None] >= at[None, :]) & (at[:, None] - at[None, :] < window)
        gqa = q.shape[1] != k.shape[1]
        parts.append(
            F.scaled_dot_product_attention(
                q, k, v, near, is_causal=near is None, scale=given.get("scaling"), enable_gqa=gqa
            )
        )
    return torch.cat(parts, dim=2).transpose(1, 2), None


for _name, _function in (("varlen", _varlen), ("bucketed", _bucketed), ("documents", _documents)):
    AttentionInterface.register(f"tunesmith_{_name}", _function)
