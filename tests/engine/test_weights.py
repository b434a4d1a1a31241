"""Weights in another form: packed says the same, 8 bits nearly the same, and what they change is measured."""

from pathlib import Path

import pytest
import torch
from torch import nn

from tunesmith.core.errors import ModelError
from tunesmith.engine import weights
from tunesmith.engine.weights import FEW, Int8, Packed, Quality, pack, round_to_int8
from tunesmith.model.adapter import add_lora
from tunesmith.model.load import load_model

IDS = [[1, 5, 9, 30, 70, 2], [8, 8, 3]]


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([model(torch.tensor([ids]), use_cache=False).logits[0] for ids in IDS]).float()


def test_packed_weights_say_what_the_plain_ones_say(any_model_dir: Path) -> None:
    model = load_model(any_model_dir, torch.bfloat16)
    before = logits(model)
    assert pack(model)
    assert sum(isinstance(part, Packed) for part in model.modules()) >= 9
    assert float((logits(model) - before).square().mean().sqrt()) < 0.02 * float(before.std())


def test_float32_weights_are_left_alone(gpt2_dir: Path) -> None:
    model = load_model(gpt2_dir, torch.float32)
    assert not pack(model)
    assert not any(isinstance(part, Packed) for part in model.modules())


def test_eight_bits_are_within_half_a_step_of_each_channel() -> None:
    weight = torch.randn(7, 33, generator=torch.Generator().manual_seed(0))
    layer = Int8(weight, None)
    step = weight.abs().amax(1) / 127
    assert layer.weight.dtype == torch.int8
    assert bool(((layer(torch.eye(33)).T - weight).abs() <= step[:, None] * 0.501).all())
    assert int(layer.weight.abs().amax()) == 127
    assert Int8(torch.zeros(2, 3), None)(torch.ones(1, 3)).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("rows", [1, FEW, FEW + 1])
@pytest.mark.parametrize("biased", [True, False])
def test_few_rows_and_many_are_the_same_product(rows: int, biased: bool) -> None:
    made = torch.Generator().manual_seed(0)
    weight, x = torch.randn(32, 64, generator=made).bfloat16(), torch.randn(1, rows, 64, generator=made).bfloat16()
    bias = torch.randn(32, generator=made).bfloat16() if biased else None
    layer = Int8(weight, bias)
    wide = layer.weight.float() * layer.scale.float()[:, None]
    want = nn.functional.linear(x.float(), wide, None if bias is None else bias.float())
    assert layer(x).shape == (1, rows, 32)
    assert float((layer(x).float() - want).abs().max()) < 0.02 * float(want.abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_rounding_changes_is_measured(any_model_dir: Path, dtype: torch.dtype) -> None:
    model = load_model(any_model_dir, dtype)
    before = logits(model).log_softmax(-1)
    quality = round_to_int8(model, IDS)
    after = logits(model).log_softmax(-1)
    kl = float((before.exp() * (before - after)).sum(-1).mean())
    assert quality == Quality(
        9, pytest.approx(kl, abs=1e-6), float((before.argmax(-1) == after.argmax(-1)).float().mean())
    )
    assert 0 < quality.kl < weights.MOST_KL
    assert f"KL {quality.kl:.5f} nats" in str(quality)


def test_weights_that_do_not_bear_rounding_are_refused(llama_dir: Path) -> None:
    model = load_model(llama_dir, torch.float32)
    for part in model.modules():
        if isinstance(part, nn.Linear):
            part.weight.data[:, 0] = 60.0  # an outlier in each channel takes all 8 bits
    with pytest.raises(ModelError, match="change this model too much"):
        round_to_int8(model, IDS)


def test_an_adapter_stays_as_it_is_on_rounded_weights(llama_dir: Path) -> None:
    model = add_lora(load_model(llama_dir, torch.float32), 4, 8, 0.0)
    round_to_int8(model, IDS)
    kinds = {name: type(part) for name, part in model.named_modules()}
    assert {kind for name, kind in kinds.items() if "lora_A.default" in name or "lora_B.default" in name} == {nn.Linear}
    assert {kind for name, kind in kinds.items() if name.endswith("base_layer")} == {Int8}
