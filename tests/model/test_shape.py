from pathlib import Path

import pytest
import torch

from tunesmith.core.errors import ResourceError
from tunesmith.model.adapter import add_lora, trainable_parameters
from tunesmith.model.load import load_model
from tunesmith.model.shape import (
    Shape,
    check_memory,
    flops_per_token,
    shape_of,
    stored_parameters,
    training_memory_gb,
)

BLOCKS = {  # weights of two layers, by hand: hidden 32, MLP 64 (GPT-2: 128), grouped keys and values of 16
    "gpt2": 2 * (32 * 96 + 32 * 32 + 2 * 32 * 128),
    "gpt_neox": 2 * (32 * 96 + 32 * 32 + 2 * 32 * 64),
    "llama": 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64),
    "qwen3": 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64),
}


def test_blocks_head_and_totals_are_counted_by_hand(any_model_dir: Path) -> None:
    model = load_model(any_model_dir, torch.float32)
    found = shape_of(model)
    assert found.blocks == BLOCKS[model.config.model_type]
    assert found.head == model.config.vocab_size * 32
    assert (found.trainable, found.total) == trainable_parameters(model)
    assert found.lora == 0


def test_an_adapter_is_counted_apart(any_model_dir: Path) -> None:
    model = load_model(any_model_dir, torch.float32)
    plain = shape_of(model)
    adapted = shape_of(add_lora(model, 4, 8, 0.0))
    assert (adapted.blocks, adapted.head) == (plain.blocks, plain.head)
    assert adapted.lora == adapted.trainable == adapted.total - plain.total > 0


def test_flops_follow_the_formulas() -> None:
    assert flops_per_token(Shape(1000, 1000, blocks=700, head=200, lora=0)) == 6 * 700 + 6 * 200
    assert flops_per_token(Shape(1000, 1000, blocks=700, head=200, lora=0), scored=0.5) == 6 * 700 + 3 * 200
    assert flops_per_token(Shape(1000, 10, blocks=700, head=200, lora=10), scored=0.5) == 4 * 700 + 2 * 200 + 60


def test_the_measured_products_of_a_training_step_are_those_of_the_formula(llama_dir: Path) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model = load_model(llama_dir, torch.float32)
    ids = torch.randint(400, (4, 16), generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.sum().backward()
    counts = counter.get_flop_counts()["Global"]
    products = sum(n for operation, n in counts.items() if "mm" in str(operation) and "bmm" not in str(operation))
    assert products == flops_per_token(shape_of(model)) * ids.numel()


def test_memory_terms_are_sixteen_bytes_a_trained_number_and_its_own_a_frozen_one() -> None:
    assert training_memory_gb(10**9, 10**9) == 16.0
    assert training_memory_gb(10**9, 0, frozen_bytes=2) == 2.0
    assert training_memory_gb(10**9, 10**7, frozen_bytes=2) == pytest.approx(1.98 + 0.16)


def test_stored_parameters_are_read_from_the_headers(llama_dir: Path, gpt2_dir: Path) -> None:
    for path in (llama_dir, gpt2_dir):
        assert stored_parameters(path) == shape_of(load_model(path, torch.float32)).total


@pytest.mark.parametrize(
    ("method", "frozen", "free", "fix"),
    [
        ("full", 4, 16.0, ""),
        ("full", 4, 15.0, "--method lora$"),
        ("full", 4, 3.0, "--method lora --dtype bfloat16$"),
        ("lora", 4, 4.1, ""),
        ("lora", 4, 3.0, "--method lora --dtype bfloat16$"),
        ("lora", 2, 3.0, ""),
        ("full", 4, 1.0, "a base of at most 480,769,230 parameters$"),
        ("lora", 2, 1.0, "a base of at most 480,769,230 parameters$"),
    ],
)
def test_too_little_memory_is_an_error_with_the_smallest_change_that_fits(
    method: str, frozen: int, free: float, fix: str
) -> None:
    if not fix:
        assert check_memory(10**9, method, free, frozen) <= free
        return
    with pytest.raises(ResourceError, match=fix) as caught:
        check_memory(10**9, method, free, frozen)
    assert caught.value.exit_code == 5
    assert f"{free:.1f} GB" in str(caught.value)


def test_the_base_that_is_offered_does_fit() -> None:
    check_memory(480_769_230, "lora", 1.0, 2)
    with pytest.raises(ResourceError):
        check_memory(480_800_000, "lora", 1.0, 2)
