from typing import Any

import pytest

from tunesmith.core.config import make
from tunesmith.core.errors import UsageError
from tunesmith.train.config import PretrainConfig, TrainConfig, decide, explain


@pytest.mark.parametrize(
    ("values", "rows", "steps"),
    [
        ({"max_steps": 7}, 100, 7),
        ({"num_epochs": 3, "batch_size": 16}, 100, 21),
        ({"batch_size": 16}, 100, 42),  # 7 steps an epoch: 6 epochs at most
        ({"batch_size": 16}, 2000, 500),  # 125 an epoch: 4 epochs reach 400
        ({"batch_size": 16}, 100_000, 12_500),  # 2 epochs at least
        ({"batch_size": 16}, 1, 6),
        ({}, 100, 150),  # batches of 4, 6 epochs
        ({"method": "lora"}, 100, 300),  # on a small base it learns slowly
        ({"method": "lora", "batch_size": 16}, 2000, 875),  # 125 an epoch: 7 epochs reach 800
        ({"method": "lora", "batch_size": 16}, 100_000, 12_500),
    ],
)
def test_the_number_of_steps_is_given_or_decided_by_the_rows(values: dict[str, Any], rows: int, steps: int) -> None:
    found = decide(TrainConfig(**values), rows, 10**6)
    assert (found.max_steps, found.num_epochs) == (steps, None)


@pytest.mark.parametrize(
    ("values", "parameters", "rate"),
    [
        ({}, 1_000_000, 3.1e-3),
        ({}, 2_000_000, 3.1e-3),
        ({}, 134_515_008, 1.2e-4),  # 3.1e-3 * 67.26**-0.78 = 1.16e-4; 5e-5 * 7.434**0.42 = 1.161e-4
        ({}, 8_000_000_000, 2.1e-5),  # 5e-5 * 8**-0.42 = 2.09e-5
        ({"method": "lora"}, 134_515_008, 1.2e-3),
        ({"method": "lora"}, 8_000_000_000, 2.1e-4),
        ({"method": "lora"}, 2_000_000, 5e-3),
        ({"optimizer": "muon"}, 2_000_000, 2e-2),
        ({"learning_rate": 0.5}, 2_000_000, 0.5),
        ({"method": "lora", "lora_rank": 2}, 2_000_000, 5e-3),  # the rank changes nothing
        ({"method": "lora", "lora_alpha": 128.0}, 2_000_000, 2.5e-3),  # four times the scale, half the rate
        ({"method": "lora", "lora_alpha": 8.0}, 8_000_000_000, 4.2e-4),
        ({"method": "lora", "optimizer": "muon"}, 2_000_000, 5e-3),
    ],
)
def test_the_learning_rate_is_given_or_decided_by_size_and_method(
    values: dict[str, Any], parameters: int, rate: float
) -> None:
    assert decide(TrainConfig(**values), 100, parameters).learning_rate == rate


@pytest.mark.parametrize(
    ("values", "rows", "tokens", "size"),
    [
        ({}, 1, 10, 4),
        ({}, 300, 0, 4),
        ({}, 400, 0, 8),
        ({}, 1053, 0, 16),
        ({}, 100_000, 0, 16),
        ({"batch_size": 3}, 100, 1000, 3),
        ({"batch_tokens": 2000}, 100, 25_000, 8),  # 250 tokens a row
        ({"batch_tokens": 10}, 100, 25_000, 1),
    ],
)
def test_the_batch_is_given_in_rows_or_in_tokens_or_decided_by_the_rows(
    values: dict[str, Any], rows: int, tokens: int, size: int
) -> None:
    found = decide(TrainConfig(**values), rows, 10**6, tokens)
    assert (found.rows_a_step, found.batch_tokens) == (size, None)


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        (
            {},
            [
                "100 rows: 4 rows a step (few rows need steps more than large ones); 150 steps, 6 epochs "
                "(for 400 steps, in 2 to 6 epochs)",
                "learning rate 0.0031 (usual for every weight and 2 million parameters)",
            ],
        ),
        (
            {"method": "lora", "batch_tokens": 100, "max_steps": 5},
            [
                "100 rows: 10 rows a step (about 100 tokens); 5 steps, 0.5 epochs",
                "learning rate 0.005 (usual for LoRA and 2 million parameters)",
            ],
        ),
        (
            {"batch_size": 16, "num_epochs": 2, "learning_rate": 0.1},
            ["100 rows: 16 rows a step; 14 steps, 2 epochs", "learning rate 0.1"],
        ),
    ],
)
def test_what_is_decided_is_said_with_its_reason_and_what_is_given_without(
    values: dict[str, Any], lines: list[str]
) -> None:
    asked = TrainConfig(**values)
    assert explain(asked, decide(asked, 100, 2 * 10**6, 1000), 100, 2 * 10**6) == lines


@pytest.mark.parametrize(("parameters", "steps"), [(10**7 - 1, 800), (10**7, 400)])
def test_lora_is_given_more_passes_on_a_small_base(parameters: int, steps: int) -> None:
    asked = TrainConfig(method="lora")
    made = decide(asked, 400, parameters)
    assert made.max_steps == steps * 3 // 4  # 50 an epoch
    assert f"(for {steps} steps, in 2 to {steps * 6 // 400} epochs)" in explain(asked, made, 400, parameters)[0]


def test_a_large_set_has_the_usual_batch_and_muon_its_own_rate() -> None:
    asked = TrainConfig(optimizer="muon")
    first, second = explain(asked, decide(asked, 10_000, 10**6), 10_000, 10**6)
    assert "16 rows a step (usual); 1250 steps, 2 epochs" in first
    assert second == "learning rate 0.02 (usual for every weight with Muon and 1 million parameters)"


def test_cadences_are_an_epoch_and_never_longer_than_the_run() -> None:
    found = decide(TrainConfig(batch_size=10), 100, 1)
    assert (found.eval_every, found.sample_every, found.save_every) == (10, 10, None)
    found = decide(TrainConfig(batch_size=10, max_steps=4), 100, 1)
    assert (found.eval_every, found.sample_every) == (4, 4)
    found = decide(TrainConfig(eval_every=3, sample_every=0, save_every=2), 100, 1)
    assert (found.eval_every, found.sample_every, found.save_every) == (3, 0, 2)


def test_what_is_decided_is_decided_once() -> None:
    once = decide(TrainConfig(), 100, 10**7)
    assert decide(once, 100, 10**7) == once


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (TrainConfig, {"num_epochs": 1, "max_steps": 2}, "give num_epochs or max_steps, not both"),
        (TrainConfig, {"batch_size": 1, "batch_tokens": 2}, "give batch_size or batch_tokens, not both"),
        (TrainConfig, {"learning_rate": 0}, "learning_rate = 0"),
        (TrainConfig, {"warmup_ratio": 1.0}, "warmup_ratio"),
        (TrainConfig, {"batch_size": 0}, "batch_size"),
        (TrainConfig, {"lr_schedule": "cosin"}, "cosine"),
        (TrainConfig, {"learning_rat": 1}, "did you mean 'learning_rate'"),
        (PretrainConfig, {"vocab_size": 256}, "vocab_size"),
        (PretrainConfig, {"dim": 50, "num_heads": 4}, "dim / num_heads must be a whole, even number"),
        (PretrainConfig, {"block": 600}, "block must not exceed context"),
    ],
)
def test_settings_that_cannot_be_are_usage_errors(kind: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make(kind, values)
