"""Every field of TrainConfig changes a run. Run below the stage, whose proof at the end takes seconds."""

import hashlib
import json
import shutil
import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tunesmith.core.errors import Interrupted
from tunesmith.core.records import Row, pair
from tunesmith.model.device import fast_bfloat16
from tunesmith.model.head import decoder_of
from tunesmith.text.render import Renderer
from tunesmith.text.tokenizer import Tokenizer
from tunesmith.train import session
from tunesmith.train.config import TrainConfig, decide
from tunesmith.train.data import Data, build

ROWS = [pair(f"What is {a} and {b}?", f"It is {a + b}." + " Sure." * (a % 3)) for a in range(4) for b in range(5)]
PLAIN: dict[str, Any] = {"max_steps": 4, "batch_size": 4, "learning_rate": 0.01, "dtype": "float32", "eval_every": 4}
LORA = {"method": "lora", "learning_rate": 0.05}


def weights_hash(model: nn.Module) -> str:
    blob = hashlib.sha256()
    for name, value in model.state_dict().items():
        blob.update(name.encode() + value.detach().float().numpy().tobytes())
    return blob.hexdigest()


def run(base: Path, work: Path, values: dict[str, Any], rows: list[Row] | None = None) -> dict[str, Any]:
    """What a run with these settings leaves, by name."""
    config = TrainConfig(**values)
    renderer = Renderer(Tokenizer.load(base), train_on=config.train_on)
    limit, rows = min(config.max_length or 128, 128), ROWS if rows is None else rows
    train, valid = (build(part, renderer, limit, config.over_length) for part in (rows[:14], rows[14:]))
    data = Data(train, valid, rows[14:])
    config = decide(config, len(data.train.kept), 10**6, data.train.tokens)
    receipt: dict[str, Any] = {"rows": {"train": 1}, "config": config.model_dump(), "data_hash": "", "base_hash": ""}
    receipt["template_hash"] = ""
    model, computing = session.prepare_model(config, base, receipt)
    forwards = []
    decoder_of(computing.model).register_forward_hook(lambda *_: forwards.append(1) if model.training else None)
    state = session.fit_model(config, model, renderer, data, work, receipt, computing)
    metrics = [json.loads(line) for line in (work / "metrics.jsonl").read_text().splitlines()]
    return {
        "weights": weights_hash(model),
        "steps": state.step,
        "validations": sum("val_loss" in line for line in metrics),
        "rates": [line["learning_rate"] for line in metrics if "learning_rate" in line],
        "samples": len((work / "samples.jsonl").read_text().splitlines()),
        "checkpoints": sorted(p.name for p in (work / "checkpoints").iterdir()),
        "trainable": receipt["trainable_parameters"],
        "dtype": receipt["dtype"],
        "attention": receipt["computing"]["attention"],
        "checkpointed": receipt["computing"]["checkpointed"],
        "skipped": len(data.train.skipped),
        "trained_tokens": state.trained_tokens,
        "forwards": len(forwards),
    }


@pytest.fixture(scope="module")
def outcome(llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    @cache
    def plain(more: str) -> dict[str, Any]:
        return run(llama_dir, tmp_path_factory.mktemp("plain"), json.loads(more))

    return lambda values: plain(json.dumps(values))


# field -> (what the run is compared with, the changed value, what must differ, what must not)
FIELDS: dict[str, tuple[dict[str, Any], Any, str, str]] = {
    "method": ({}, "lora", "trainable", "steps"),
    "optimizer": ({}, "muon", "weights", "steps"),
    "num_epochs": ({"max_steps": None, "num_epochs": 1}, 2, "steps", "trainable"),
    "max_steps": ({}, 5, "steps", "trainable"),
    "learning_rate": ({}, 0.02, "rates", "steps"),
    "lr_schedule": ({}, "linear", "rates", "steps"),
    "warmup_ratio": ({}, 0.5, "rates", "steps"),
    "weight_decay": ({}, 0.5, "weights", "rates"),
    "grad_clip": ({}, 0.01, "weights", "rates"),
    "batch_size": ({}, 2, "weights", "rates"),
    "batch_tokens": ({"batch_size": None, "batch_tokens": 150}, 60, "weights", "rates"),
    "micro_batch_tokens": ({}, 40, "forwards", "rates"),
    "max_length": ({}, 35, "skipped", "rates"),
    "train_on": ({}, "all", "trained_tokens", "rates"),
    "lora_rank": (LORA, 4, "trainable", "rates"),
    "lora_alpha": (LORA, 64.0, "weights", "trainable"),
    "lora_dropout": (LORA, 0.5, "weights", "trainable"),
    "target_modules": (LORA, ["q_proj"], "trainable", "rates"),
    "eval_every": ({}, 1, "validations", "weights"),
    "save_every": ({}, 3, "checkpoints", "weights"),
    "sample_every": ({}, 1, "samples", "weights"),
    "seed": ({}, 1, "weights", "rates"),
    "dtype": ({}, "bfloat16", "dtype", "rates"),
    "packing": ({}, "off", "attention", "rates"),
    "gradient_checkpointing": ({}, "on", "checkpointed", "rates"),
}


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_changes_the_run(
    field: str, outcome: Callable[..., dict[str, Any]], llama_dir: Path, tmp_path: Path
) -> None:
    more, value, differs, same = FIELDS[field]
    base = {k: v for k, v in (PLAIN | more).items() if v is not None}
    changed = run(llama_dir, tmp_path, base | {field: value})
    assert changed[differs] != outcome(base)[differs]
    assert changed[same] == outcome(base)[same]


def test_the_table_holds_every_field() -> None:
    elsewhere = {"early_stopping_patience", "find_lr", "over_length", "compile", "trackers"}
    assert FIELDS.keys() | elsewhere == TrainConfig.model_fields.keys()


def test_over_length_decides_whether_a_long_prompt_is_skipped_or_trimmed(llama_dir: Path, tmp_path: Path) -> None:
    long = [pair("What is it?\n\n" + "the dog and the fox " * 20, f"It is number {n}.") for n in range(4)]
    rows = [*ROWS[:10], *long, *ROWS[14:]]
    found = {}
    for policy in ("skip", "trim-context"):
        (tmp_path / policy).mkdir()
        found[policy] = run(llama_dir, tmp_path / policy, PLAIN | {"over_length": policy, "max_length": 90}, rows)
    assert [found[policy]["skipped"] for policy in found] == [4, 0]
    assert found["skip"]["weights"] != found["trim-context"]["weights"]


@pytest.mark.parametrize(("patience", "steps"), [(1, 2), (2, 3), (0, 6)])
def test_patience_ends_a_run_that_gets_worse(llama_dir: Path, tmp_path: Path, patience: int, steps: int) -> None:
    values = PLAIN | {
        "max_steps": 6,
        "learning_rate": 1.0,
        "warmup_ratio": 0.0,
        "eval_every": 1,
        "lr_schedule": "constant",
    }
    assert run(llama_dir, tmp_path, values | {"early_stopping_patience": patience})["steps"] == steps


def test_the_same_settings_give_the_same_run(
    outcome: Callable[..., dict[str, Any]], llama_dir: Path, tmp_path: Path
) -> None:
    assert run(llama_dir, tmp_path, PLAIN) == outcome(PLAIN)


def test_micro_batches_change_speed_and_not_what_is_learnt(llama_dir: Path, tmp_path: Path) -> None:
    models = []
    for size in (40, 4096):
        config = decide(TrainConfig(**PLAIN | {"micro_batch_tokens": size}), 14, 10**6)
        optimizer_input = tmp_path / str(size)
        optimizer_input.mkdir()
        renderer = Renderer(Tokenizer.load(llama_dir))
        data = Data(build(ROWS[:14], renderer, 128), build([], renderer, 128), ROWS[14:])
        receipt: dict[str, Any] = {"rows": {"train": 14}, "config": {}, "data_hash": "", "base_hash": ""}
        model, dtype = session.prepare_model(config, llama_dir, receipt)
        receipt["template_hash"] = ""
        session.fit_model(config, model, renderer, data, optimizer_input, receipt, dtype)
        models.append(model)
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_without_validation_rows_a_checkpoint_is_saved_each_epoch(llama_dir: Path, tmp_path: Path) -> None:
    found = run(llama_dir, tmp_path, PLAIN | {"eval_every": 2}, rows=ROWS[:14])
    assert found["checkpoints"] == ["step-000002", "step-000004"]
    assert found["validations"] == 0


def test_muon_and_lora_go_together(llama_dir: Path, tmp_path: Path) -> None:
    assert run(llama_dir, tmp_path, PLAIN | LORA | {"optimizer": "muon"})["steps"] == 4


def test_what_is_trained_has_float32_masters_under_bfloat16(llama_dir: Path, tmp_path: Path) -> None:
    receipt: dict[str, Any] = {"rows": {"train": 1}}
    config = decide(TrainConfig(**PLAIN | {"dtype": "bfloat16"}), 14, 10**6)
    model, computing = session.prepare_model(config, llama_dir, receipt)
    assert computing.copies == torch.bfloat16
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert run(llama_dir, tmp_path, PLAIN | {"dtype": "auto"})["dtype"] == (
        "bfloat16" if fast_bfloat16(torch.device("cpu")) else "float32"
    )


def test_samples_are_greedy_answers_to_fixed_prompts_beside_the_true_ones(llama_dir: Path, tmp_path: Path) -> None:
    run(llama_dir, tmp_path, PLAIN)
    samples = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert [s["prompt"] for s in samples] == [r.question for r in ROWS[14:17]]
    assert [s["reference"] for s in samples] == [r.answer for r in ROWS[14:17]]
    assert {s["step"] for s in samples} == {4}


def test_samples_of_raw_text_go_on_from_its_first_half(llama_dir: Path, tmp_path: Path) -> None:
    rows = [Row(text=f"The capital of number {n} is Paris, and the dog does not mind.") for n in range(16)]
    run(llama_dir, tmp_path, PLAIN, rows)
    sample = json.loads((tmp_path / "samples.jsonl").read_text().splitlines()[0])
    assert sample["prompt"] + sample["reference"] == rows[14].text


@pytest.mark.parametrize(
    ("full", "told"), [(False, "stopped at step 2; saved"), (True, "newest checkpoint is of step 0")]
)
def test_an_interrupted_run_says_what_was_really_saved(
    llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: bool, told: str
) -> None:
    def interrupt(*_: Any) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(session, "_sample", interrupt)
    if full:
        monkeypatch.setattr(session.checkpoint, "check_room", lambda *_: None)  # full only later
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    with pytest.raises(Interrupted, match=told) as caught:
        run(llama_dir, tmp_path, PLAIN | {"sample_every": 2})
    assert caught.value.exit_code == 130
    assert "tunesmith train --resume --name" in caught.value.fix
