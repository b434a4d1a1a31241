from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tunesmith.model import head
from tunesmith.model.load import load_model


def problem(rows: int = 7, width: int = 5, vocabulary: int = 11) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    made = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, width, generator=made, dtype=torch.float64) for n in (rows, vocabulary))
    return hidden.requires_grad_(), weight.requires_grad_(), torch.randint(0, vocabulary, (rows,), generator=made)


@pytest.mark.parametrize("budget", [1, 3 * 11 * 8, 1 << 20])
def test_loss_and_gradients_are_those_of_cross_entropy_whatever_the_chunk(
    budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "BUDGET", budget)
    hidden, weight, targets = problem()
    found = head.summed_nll(hidden, weight, targets)
    (found / 7).backward()
    mine = hidden.grad, weight.grad
    hidden.grad = weight.grad = None
    wanted = F.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    (wanted / 7).backward()
    assert found.item() == pytest.approx(wanted.item(), rel=1e-14)
    for x, y in zip(mine, (hidden.grad, weight.grad), strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-6 if budget < 1 << 20 else 1e-14)  # chunks add up in float32
    with torch.no_grad():
        assert head.summed_nll(hidden, weight, targets).item() == pytest.approx(wanted.item(), rel=1e-14)


def test_huge_logits_do_not_overflow() -> None:
    hidden = torch.tensor([[1000.0, 0.0]], requires_grad=True)
    loss = head.summed_nll(hidden, torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([1]))
    loss.backward()
    assert loss.item() == 2000.0
    assert torch.isfinite(hidden.grad).all()


def test_a_frozen_head_gets_no_gradient_and_no_rows_cost_nothing() -> None:
    hidden, weight, targets = problem()
    loss = head.summed_nll(hidden, weight.detach(), targets)
    loss.backward()
    assert hidden.grad is not None
    assert weight.grad is None
    empty = head.summed_nll(hidden[:0], weight, targets[:0])
    empty.backward()
    assert empty.item() == 0.0


def test_a_head_with_a_soft_cap_is_not_plain(llama_dir: Path) -> None:
    model = load_model(llama_dir, torch.float32)
    ids = torch.arange(5).unsqueeze(0)
    hidden, logits = head.decoder_of(model)(ids).last_hidden_state, model(ids).logits
    assert head.is_plain(model, hidden, logits)
    assert not head.is_plain(model, hidden, 30 * torch.tanh(logits / 30))
