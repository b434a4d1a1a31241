import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tunesmith.core.errors import UsageError
from tunesmith.model.adapter import add_lora
from tunesmith.model.load import load_model
from tunesmith.model.optim import Optimizers, adamw, lr_factor, muon_adamw


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        ("cosine", [0.5, 1, *(0.5 * (1 + math.cos(math.pi * k / 8)) for k in range(8))]),
        ("wsd", [0.5, 1, 1, 1, 1, 1, 1, 1, 1, 5 / 8]),
    ],
)
def test_each_schedule_has_the_values_of_its_formula(schedule: str, expected: list[float]) -> None:
    found = [lr_factor(schedule, step, total=10, warmup=2) for step in range(10)]
    assert found == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "wsd"])
def test_a_schedule_without_warm_up_begins_at_the_full_rate_and_never_reaches_zero(schedule: str) -> None:
    for total in (1, 2, 7):
        factors = [lr_factor(schedule, step, total, 0) for step in range(total)]
        assert factors[0] == 1.0
        assert all(0 < factor <= 1 for factor in factors)
        assert factors == sorted(factors, reverse=True)


def test_an_unknown_schedule_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="unknown lr_schedule 'cosin'"):
        lr_factor("cosin", 0, 1, 0)


def layer() -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(3, 2)


def stepped(model: nn.Linear, optimizers: Optimizers, step: int = 0) -> float:
    model(torch.ones(1, 3)).sum().backward()
    return optimizers.step(step)


def test_the_first_adamw_step_is_the_rate_and_only_matrices_decay() -> None:
    model = layer()
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
    stepped(model, Optimizers([adamw(model.parameters(), 0.1, 0.5)], lambda step: 1.0))
    torch.testing.assert_close(model.weight.detach(), weight * (1 - 0.1 * 0.5) - 0.1)
    torch.testing.assert_close(model.bias.detach(), bias - 0.1)


def test_a_step_takes_its_rate_from_the_schedule_and_clears_the_gradients() -> None:
    model = layer()
    optimizers = Optimizers([adamw(model.parameters(), 0.1, 0.0)], lambda step: [1.0, 0.5, 0.25][step])
    assert [stepped(model, optimizers, step) for step in range(3)] == pytest.approx([0.1, 0.05, 0.025])
    assert all(p.grad is None for p in model.parameters())


def test_frozen_parameters_are_not_optimized() -> None:
    model = layer()
    model.bias.requires_grad_(False)
    assert Optimizers([adamw(model.parameters(), 0.1, 0.0)], lambda step: 1.0).parameters == [model.weight]


def parts_of(model: nn.Module, **more: Any) -> list[set[int]]:
    return [{id(p) for g in part.param_groups for p in g["params"]} for part in muon_adamw(model, 0.1, 0.01, **more)]


def test_muon_takes_the_matrices_inside_and_adamw_embeddings_head_and_vectors(any_model_dir: Path) -> None:
    model = load_model(any_model_dir, torch.float32)
    muon, rest = parts_of(model)
    head, table = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    assert {id(head), id(table)} <= rest
    inner = {id(p) for n, p in model.named_parameters() if p.ndim == 2 and id(p) not in (id(head), id(table))}
    inner -= {id(p) for n, p in model.named_parameters() if "wpe" in n}
    assert muon == inner
    assert muon | rest == {id(p) for p in model.parameters()}
    assert not muon & rest


def test_muon_trains_an_adapter_which_has_nothing_for_adamw(llama_dir: Path) -> None:
    model = add_lora(load_model(llama_dir, torch.float32), 2, 4.0, 0.0)
    (muon,) = parts_of(model)
    assert muon == {id(p) for p in model.parameters() if p.requires_grad}


def test_weight_decay_reaches_muon_and_its_adamw() -> None:
    model = layer()
    groups = [g for part in muon_adamw(model, 0.1, 0.01, 0.5) for g in part.param_groups]
    assert [(g["weight_decay"], g["lr"]) for g in groups] == [(0.5, 0.1), (0.0, 0.01)]


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_saved_state_goes_on_bit_for_bit(kind: str) -> None:
    def make(model: nn.Module) -> Optimizers:
        parts = [adamw(model.parameters(), 0.1, 0.1)] if kind == "adamw" else muon_adamw(model, 0.1, 0.1)
        return Optimizers(parts, lambda step: 1 / (step + 1))

    model, other = layer(), layer()
    optimizers, resumed = make(model), make(other)
    for step in range(3):
        stepped(model, optimizers, step)
    other.load_state_dict(model.state_dict())
    resumed.load({name: value.clone() for name, value in optimizers.tensors().items()})
    assert resumed.tensors().keys() == optimizers.tensors().keys()
    for step in range(3, 6):
        assert stepped(model, optimizers, step) == stepped(other, resumed, step)
    assert torch.equal(model.weight, other.weight)
    assert torch.equal(model.bias, other.bias)
