import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from tunesmith.core.records import pair
from tunesmith.model.adapter import add_lora
from tunesmith.model.compute import Computing
from tunesmith.model.load import load_model
from tunesmith.text.render import Example, Renderer
from tunesmith.text.tokenizer import Tokenizer
from tunesmith.train.loop import Settings, backward
from tunesmith.train.objective import computed, next_token
from tunesmith.train.plan_batches import MicroBatch, collate, cut, halve, pack


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
            return SimpleNamespace(logits=self.weight.bfloat16().expand(*input_ids.shape, 1000))

    nll = next_token(Half(), collate([Example([1] * 9, [True] * 9, "a")], 0))
    torch.testing.assert_close(nll, torch.tensor(8 * math.log(1000)))


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


ROWS = [pair(f"What is {a} and {b}?", f"It is {a + b}." + " Sure." * (a % 3)) for a in range(3) for b in range(3)]


def ways_to_cut(examples: list[Example]) -> dict[str, list[MicroBatch]]:
    """The same step, padded and packed, whole and in pieces."""
    return {
        "one by one": [collate([example], 0) for example in examples],
        "padded": [collate(examples, 0)],
        "padded with another token, in two": [collate(examples[:4], 7), collate(examples[4:], 7)],
        "packed": [pack(examples)],
        "packed the other way round": [pack(examples[::-1])],
        "packed by room": cut(examples, 60, None),
        "packed and halved": halve(pack(examples)),
    }


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_gradient_of_a_step_is_the_same_however_it_is_packed_padded_and_cut(
    any_model_dir: Path, method: str
) -> None:
    model: Any = load_model(any_model_dir, torch.float64)
    computing = Computing(model, torch.device("cpu"), torch.float32, "documents", False, None, True)
    renderer = Renderer(Tokenizer.load(any_model_dir))
    examples = [example for row in ROWS for example in renderer.render(row)]
    tuned = add_lora(model, 4, 8.0, 0.0).double() if method == "lora" else model
    found = {}
    for name, micros in ways_to_cut(examples).items():
        tuned.zero_grad()
        how = computing if micros[0].packed else replace(computing, packed=None)
        loss, _ = backward(tuned, micros, computed(how), Settings(1, 0.0, computing=how.training))
        found[name] = loss, {key: p.grad.clone() for key, p in tuned.named_parameters() if p.grad is not None}
    loss, wanted = found.pop("one by one")
    assert wanted
    for name, (other, grads) in found.items():
        assert other == pytest.approx(loss, rel=1e-12), name
        assert grads.keys() == wanted.keys()
        for key, gradient in wanted.items():
            torch.testing.assert_close(
                grads[key], gradient, rtol=0, atol=1e-10, msg=lambda m, at=(name, key): f"{at}: {m}"
            )
