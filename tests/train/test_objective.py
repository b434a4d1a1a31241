from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from tunesmith.text.render import Example
from tunesmith.train.objective import next_token
from tunesmith.train.plan_batches import collate


def by_hand(model: Any, examples: list[Example]) -> torch.Tensor:
    """Each row alone, without padding: minus log p of each trained token but the first."""
    total = torch.zeros((), dtype=torch.float64)
    for e in examples:
        logits = model(torch.tensor([e.ids])).logits[0].double().log_softmax(-1)
        total = total - sum(logits[i - 1, e.ids[i]] for i in range(1, len(e.ids)) if e.mask[i])
    return total


@pytest.mark.parametrize("pad", [0, 3, 10])
def test_the_objective_is_the_sum_over_trained_tokens_whatever_the_padding(
    bigram: Any, examples: list[Example], pad: int
) -> None:
    model = bigram(dtype=torch.float64)
    found = next_token(model, collate(examples, pad))
    assert found.item() == pytest.approx(by_hand(model, examples).item(), rel=1e-12)


def test_rows_that_are_trained_whole_give_the_same_sum_by_the_short_way(bigram: Any) -> None:
    rows = [Example([1, 2, 3], [True] * 3, "a"), Example([4, 5, 6], [True] * 3, "b")]
    model = bigram(dtype=torch.float64)
    assert next_token(model, collate(rows, 0)).item() == pytest.approx(by_hand(model, rows).item(), rel=1e-12)


def test_a_batch_without_trained_tokens_costs_nothing_and_has_no_gradient(bigram: Any) -> None:
    model = bigram()
    loss = next_token(model, collate([Example([1, 2], [True, False], "a")], 0))
    loss.backward()
    assert loss.item() == 0.0
    assert not model.table.grad.any()


def test_half_precision_logits_are_summed_in_float32() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, input_ids: Any, **_: Any) -> Any:
            return SimpleNamespace(logits=torch.zeros(*input_ids.shape, 1000, dtype=torch.bfloat16) + self.weight)

    assert next_token(Half(), collate([Example([1] * 9, [True] * 9, "a")], 0)).dtype == torch.float32


def test_the_attention_mask_is_given_only_where_something_is_padded(examples: list[Example]) -> None:
    seen: list[Any] = []

    class Spy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, input_ids: Any, attention_mask: Any, use_cache: bool) -> Any:
            seen.append(None if attention_mask is None else attention_mask.tolist())
            return SimpleNamespace(logits=torch.zeros(*input_ids.shape, 11) + self.weight)

    next_token(Spy(), collate(examples[:1], 0))
    next_token(Spy(), collate(examples[:2], 0))
    assert seen == [None, [[1, 1, 0], [1, 1, 1]]]
