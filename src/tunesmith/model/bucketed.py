"""Exact attention within documents, for CPUs: documents of like length are one batched product.

Softmax attention on short documents is bound by passes over the scores, not by products: torch's CPU kernel spends
three quarters of its time in the backward pass. Here the products are oneDNN's batched bfloat16 ones and everything
between two products is one compiled loop. Nothing of size length x length is kept: the backward pass makes the
probabilities again from the log-sum-exp, as Dao et al. 2022 (FlashAttention) do.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import Library

Where = tuple[Tensor, Tensor, Tensor]  # order, inverse, shapes: see `plan`
How = tuple[float, int]  # the scores' scale, and the window in tokens
QUANTUM = 32  # tokens; lengths are rounded up to it: whole AMX tiles, and few buckets
BLOCK = 512  # queries at a time of a longer document, so that scores stay small and the causal half is skipped
_MOST_BUCKETS = 64  # rows of the shape table; a fixed number, so that compiled blocks see one shape


def plan(lengths: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """How a flat row of T = sum(lengths) tokens becomes padded buckets, and comes back.

    order (S,): the token of each bucket slot, T where it is padding. inverse (T,): the slot of each token.
    shapes (64, 2): documents and slots a document of each bucket, then zeros.
    """
    total, starts = sum(lengths), [0]
    for length in lengths:
        starts.append(starts[-1] + length)
    buckets: dict[int, list[int]] = {}
    for i, length in enumerate(lengths):
        buckets.setdefault(_rounded(length), []).append(i)
    order: list[int] = []
    inverse = torch.empty(total, dtype=torch.int64)
    shapes = torch.zeros(_MOST_BUCKETS, 2, dtype=torch.int64)
    for n, (width, members) in enumerate(sorted(buckets.items())):
        shapes[n] = torch.tensor([len(members), width])
        for i in members:
            inverse[starts[i] : starts[i + 1]] = len(order) + torch.arange(lengths[i])
            order += [*range(starts[i], starts[i + 1]), *[total] * (width - lengths[i])]
    return torch.tensor(order), inverse, shapes


def _rounded(length: int) -> int:
    """Up to a multiple of the quantum, which doubles with the length: at most 64 sizes below 2**20 tokens."""
    step = QUANTUM
    while length > 8 * step:
        step *= 2
    return -(-length // step) * step


def _heads(x: Tensor, at: Tensor, kv: int) -> Tensor:
    """Rows `at` (B, L) of x (T, H, D), as (B * kv, H / kv * L, D): the queries of a key's head are one block."""
    (b, length), h, d = at.shape, x.shape[1], x.shape[2]
    return x[at].view(b, length, kv, h // kv, d).permute(0, 2, 3, 1, 4).reshape(b * kv, h // kv * length, d)


def _per_query(x: Tensor, at: Tensor, kv: int) -> Tensor:
    """Rows `at` (B, L) of x (T, H) beside the scores: (B * kv, H / kv, L, 1)."""
    (b, length), h = at.shape, x.shape[1]
    return x[at].view(b, length, kv, h // kv).permute(0, 2, 3, 1).reshape(b * kv, h // kv, length, 1)


def _rows(x: Tensor, b: int, length: int) -> Tensor:
    """(B * kv, g * L, D) back to (B, L, kv * g, D)."""
    kv, g, d = x.shape[0] // b, x.shape[1] // length, x.shape[2]
    return x.view(b, kv, g, length, d).permute(0, 3, 1, 2, 4).reshape(b, length, kv * g, d)


def _seen(first: int, queries: int, keys: int, window: int, device: torch.device) -> Tensor:
    """(queries, keys): whether key j is at or before query `first` + i, and nearer than the window."""
    gap = first + torch.arange(queries, device=device)[:, None] - torch.arange(keys, device=device)[None, :]
    return (gap >= 0) & (gap < window)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def forward_bucket(
    q: Tensor, k: Tensor, v: Tensor, rows: Tensor, cols: Tensor, scale: float, window: int
) -> tuple[Tensor, Tensor]:
    """Queries `rows` (B, Lq) on keys `cols` (B, Lk) of one bucket; both end at the same token of the document."""
    t, h, _ = q.shape
    (b, queries), keys, kv = rows.shape, cols.shape[1], k.shape[1]
    queried, keyed = _heads(q, rows.clamp(max=t - 1), kv), _heads(k, cols.clamp(max=t - 1), kv)
    scores = torch.bmm(queried, keyed.transpose(1, 2)).view(b * kv, h // kv, queries, keys).to(_wide(q.dtype)) * scale
    scores = torch.where(_seen(keys - queries, queries, keys, window, q.device), scores, -math.inf)
    lse = torch.logsumexp(scores, -1)
    p = torch.exp(scores - lse.unsqueeze(-1)).to(q.dtype).reshape(b * kv, h // kv * queries, keys)
    out = _rows(torch.bmm(p, _heads(v, cols.clamp(max=t - 1), kv)), b, queries)
    return out, lse.view(b, kv, h // kv, queries).permute(0, 3, 1, 2).reshape(b, queries, h)


def backward_bucket(
    grad: Tensor,
    qkv: tuple[Tensor, Tensor, Tensor],
    saved: tuple[Tensor, Tensor],
    rows: Tensor,
    cols: Tensor,
    scale: float,
    window: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the bucket's queries, and what they add to its keys' and values'. saved: (lse, delta), (T, H)."""
    q, k, v = qkv
    t, h, _ = q.shape
    (b, queries), keys, kv = rows.shape, cols.shape[1], k.shape[1]
    at, at_keys = rows.clamp(max=t - 1), cols.clamp(max=t - 1)
    queried, keyed, valued = _heads(q, at, kv), _heads(k, at_keys, kv), _heads(v, at_keys, kv)
    lse, delta = (_per_query(x, at, kv) for x in saved)
    out_grad = _heads(grad, at, kv)
    scores = torch.bmm(queried, keyed.transpose(1, 2)).view(b * kv, h // kv, queries, keys)
    dp = torch.bmm(out_grad, valued.transpose(1, 2)).view(b * kv, h // kv, queries, keys)
    real = _per_query(
        (rows < t).view(-1, 1).expand(-1, h), torch.arange(b * queries, device=q.device).view(b, queries), kv
    )
    keep = _seen(keys - queries, queries, keys, window, q.device) & real
    p = torch.where(keep, torch.exp(scores.to(_wide(q.dtype)) * scale - lse), 0.0)
    ds = (p * (dp.to(_wide(q.dtype)) - delta) * scale).to(q.dtype).reshape(b * kv, h // kv * queries, keys)
    p = p.to(q.dtype).reshape(b * kv, h // kv * queries, keys)
    dv, dk = torch.bmm(p.transpose(1, 2), out_grad), torch.bmm(ds.transpose(1, 2), queried)
    return _rows(torch.bmm(ds, keyed), b, queries), _rows(dk, b, keys), _rows(dv, b, keys)


def _delta(grad: Tensor, out: Tensor) -> Tensor:
    """(T, H): what the softmax's backward pass subtracts; the probabilities' mean gradient."""
    return (grad.to(_wide(grad.dtype)) * out.to(_wide(out.dtype))).sum(-1)


EAGER = (forward_bucket, backward_bucket, _delta)


@functools.cache
def compiled() -> tuple[Callable[..., Any], ...]:
    """The three kernels with everything between two products fused. The first call of each shape class compiles."""
    # one document or several, as wide as a head or not, one block or more: some ten kernels each, and torch stops at 8
    compile_ = functools.partial(torch.compile, dynamic=True, fullgraph=True)
    return tuple(compile_(kernel, recompile_limit=32) for kernel in EAGER)


Kernels = tuple[Callable[..., Any], ...]


def _buckets(shapes: Tensor) -> Iterator[tuple[slice, int, int]]:
    """The slots, documents and slots a document of each bucket."""
    first = 0
    for count, width in shapes.tolist():
        if count:
            yield slice(first, first + count * width), count, width
        first += count * width


def _blocks(width: int) -> list[tuple[int, int]]:
    """Query blocks of a bucket, the last first: its keys are all keys, so it writes where the others add."""
    return [(first, min(first + BLOCK, width)) for first in range(0, width, BLOCK)][::-1]


def _fresh(index: Tensor) -> Tensor:
    """In memory of its own: the compiler makes another kernel for each offset and stride, and for one tensor twice."""
    return index.clone(memory_format=torch.contiguous_format)


def attend(q: Tensor, k: Tensor, v: Tensor, where: Where, how: How, kernels: Kernels = EAGER) -> tuple[Tensor, Tensor]:
    """Output (T, H, Dv) and log-sum-exp (T, H) of q (T, H, D), k (T, kv, D), v (T, kv, Dv)."""
    order, inverse, shapes = where
    out, lse = (
        q.new_empty(len(order), q.shape[1], v.shape[2]),
        q.new_empty(len(order), q.shape[1], dtype=_wide(q.dtype)),
    )
    for slots, count, width in _buckets(shapes):
        index = order[slots].view(count, width)
        bucket_out, bucket_lse = (x[slots].view(count, width, *x.shape[1:]) for x in (out, lse))
        for first, last in _blocks(width):
            found = kernels[0](q, k, v, _fresh(index[:, first:last]), _fresh(index[:, :last]), *how)
            bucket_out[:, first:last], bucket_lse[:, first:last] = found
    return out.index_select(0, inverse), lse.index_select(0, inverse)


def attend_backward(
    grad: Tensor,
    qkv: tuple[Tensor, Tensor, Tensor],
    saved: tuple[Tensor, Tensor],
    where: Where,
    how: How,
    kernels: Kernels = EAGER,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, given the output's and (out, lse) of `attend`."""
    order, inverse, shapes = where
    grads = tuple(x.new_empty(len(order), *x.shape[1:]) for x in qkv)
    statistics = saved[1], kernels[2](grad, saved[0])
    for slots, count, width in _buckets(shapes):
        index = order[slots].view(count, width)
        dq, dk, dv = (x[slots].view(count, width, *x.shape[1:]) for x in grads)
        for first, last in _blocks(width):
            found = kernels[1](grad, qkv, statistics, _fresh(index[:, first:last]), _fresh(index[:, :last]), *how)
            dq[:, first:last] = found[0]
            for total, part in ((dk, found[1]), (dv, found[2])):
                if last == width:
                    total.copy_(part)
                else:
                    total[:, :last] += part
    dq, dk, dv = (x.index_select(0, inverse) for x in grads)
    return dq, dk, dv


def _op(*given: Any) -> tuple[Tensor, Tensor]:
    """`attend`, compiled; its arguments are those of the operator's schema below."""
    *tensors, scale, window = given
    with torch.no_grad():  # and without history, which the compiler would look at
        q, k, v, *where = (x.detach() for x in tensors)
        return attend(q, k, v, (where[0], where[1], where[2]), (scale, window), compiled())


def _op_backward(*given: Any) -> tuple[Tensor, Tensor, Tensor]:
    *tensors, scale, window = given
    with torch.no_grad():
        grad, q, k, v, out, lse, *where = (x.detach() for x in tensors)
        how = (scale, window)
        return attend_backward(grad, (q, k, v), (out, lse), (where[0], where[1], where[2]), how, compiled())


_TENSORS = "Tensor q, Tensor k, Tensor v, Tensor order, Tensor inverse, Tensor shapes, float scale, int window"
_LIBRARY = Library("tunesmith", "DEF")  # an operator is opaque to torch.compile: a block around it is one whole graph
_LIBRARY.define(f"attention({_TENSORS}) -> (Tensor, Tensor)")
_MADE = _TENSORS.replace("Tensor v,", "Tensor v, Tensor out, Tensor lse,")
_LIBRARY.define(f"attention_backward(Tensor grad, {_MADE}) -> (Tensor, Tensor, Tensor)")
_LIBRARY.impl("attention", _op, "CPU")
_LIBRARY.impl("attention_backward", _op_backward, "CPU")


def _shapes(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape[0], q.shape[1], v.shape[2]), q.new_empty(q.shape[0], q.shape[1], dtype=_wide(q.dtype))


def _shapes_backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in (q, k, v))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.scale, ctx.window = inputs
    ctx.save_for_backward(*tensors[:3], *output, *tensors[3:])


def _differentiate(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
    grads = torch.ops.tunesmith.attention_backward(grad.contiguous(), *ctx.saved_tensors, ctx.scale, ctx.window)
    return *grads, None, None, None, None, None


torch.library.register_fake("tunesmith::attention", _shapes)
torch.library.register_fake("tunesmith::attention_backward", _shapes_backward)
torch.library.register_autograd("tunesmith::attention", _differentiate, setup_context=_save)
