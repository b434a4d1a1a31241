from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tunesmith.model import bucketed

NO_WINDOW = 1 << 30
CASES = {  # lengths, heads, heads of keys, width, window
    "grouped heads": ([5, 33, 64, 1, 40], 4, 2, 8, NO_WINDOW),
    "a document of three blocks": ([1100, 3], 2, 1, 8, NO_WINDOW),
    "a sliding window": ([600, 40], 2, 2, 8, 17),
    "one document": ([70], 2, 2, 4, NO_WINDOW),
}


def tensors(lengths: list[int], heads: int, kv: int, width: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    made = torch.Generator().manual_seed(0)
    shapes = [(sum(lengths), n, width) for n in (heads, kv, kv, heads)]
    return tuple(torch.randn(shape, generator=made, dtype=torch.float64).to(dtype) for shape in shapes)


def one_by_one(q: Tensor, k: Tensor, v: Tensor, lengths: list[int], scale: float, window: int) -> Tensor:
    """Each document by torch's own attention."""
    outs, bounds = [], torch.tensor([0, *lengths]).cumsum(0).tolist()
    for first, last in pairwise(bounds):
        at = torch.arange(last - first)
        seen = (at[:, None] >= at) & (at[:, None] - at < window)
        part = (x[first:last].transpose(0, 1).unsqueeze(0) for x in (q, k, v))
        outs.append(F.scaled_dot_product_attention(*part, seen, scale=scale, enable_gqa=True)[0].transpose(0, 1))
    return torch.cat(outs)


@pytest.mark.parametrize("case", CASES)
def test_output_and_gradients_are_those_of_each_document_alone(case: str) -> None:
    lengths, heads, kv, width, window = CASES[case]
    q, k, v, grad = tensors(lengths, heads, kv, width, torch.float64)
    where, how = bucketed.plan(lengths), (0.3, window)
    out, lse = bucketed.attend(q, k, v, where, how)
    found = bucketed.attend_backward(grad, (q, k, v), (out, lse), where, how)
    for x in (q, k, v):
        x.requires_grad_()
    wanted = one_by_one(q, k, v, lengths, *how)
    wanted.backward(grad)
    torch.testing.assert_close(out, wanted, rtol=0, atol=1e-13)
    for mine, x in zip(found, (q, k, v), strict=True):
        torch.testing.assert_close(mine, x.grad, rtol=0, atol=1e-13)


def test_the_operator_is_differentiable_and_as_exact_as_bfloat16_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucketed, "compiled", lambda: bucketed.EAGER)
    lengths, heads, kv, width, window = CASES["grouped heads"]
    exact = [x.requires_grad_() for x in tensors(lengths, heads, kv, width, torch.float64)]
    rounded = [x.detach().bfloat16().requires_grad_() for x in exact]
    wanted = one_by_one(*exact[:3], lengths, 0.3, window)
    wanted.backward(exact[3].detach())
    out, _ = torch.ops.tunesmith.attention(*rounded[:3], *bucketed.plan(lengths), 0.3, window)
    out.backward(rounded[3].detach())
    torch.testing.assert_close(out.double(), wanted, rtol=0, atol=0.03)
    for mine, x in zip(rounded[:3], exact[:3], strict=True):
        assert mine.grad is not None
        assert x.grad is not None
        torch.testing.assert_close(mine.grad.double(), x.grad, rtol=0, atol=0.05 * float(x.grad.abs().max()))


def test_what_the_operator_saves_has_no_size_of_length_by_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucketed, "compiled", lambda: bucketed.EAGER)
    saved: list[Any] = []
    q, k, v, _ = (x.requires_grad_() for x in tensors([300, 200], 2, 1, 8, torch.float32))
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        torch.ops.tunesmith.attention(q, k, v, *bucketed.plan([300, 200]), 0.3, NO_WINDOW)
    assert max(saved) == 500 * 2 * 8


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=12))
def test_a_plan_holds_every_token_once_and_brings_it_back(lengths: list[int]) -> None:
    order, inverse, shapes = bucketed.plan(lengths)
    total = sum(lengths)
    assert torch.equal(order[inverse], torch.arange(total))
    assert int((order < total).sum()) == total
    assert int((shapes[:, 0] * shapes[:, 1]).sum()) == len(order)
    assert int(shapes[:, 0].sum()) == len(lengths)
    assert len(order) <= sum(max(32, 1.3 * n + 32) for n in lengths)


def test_lengths_up_to_a_million_tokens_fit_the_table() -> None:
    assert len({bucketed._rounded(n) for n in range(1, 1 << 20, 7)}) <= 64
