"""How a model directory becomes an engine."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tunesmith import bases, loop
from tunesmith.engine.weights import Int8, Packed
from tunesmith.model.adapter import add_lora
from tunesmith.model.load import load_model


def kinds(engine: Any) -> set[type]:
    return {type(part) for part in engine.model.modules()}


@pytest.fixture
def narrow_dir(qwen_dir: Path, tmp_path: Path) -> Path:
    """A model that is stored in bfloat16."""
    folder = tmp_path / "narrow"
    AutoModelForCausalLM.from_pretrained(qwen_dir, dtype=torch.bfloat16).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_bytes((qwen_dir / name).read_bytes())
    return folder


def test_bfloat16_weights_are_packed_and_rounded_ones_say_what_that_changed(
    narrow_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine, renderer = bases.load_engine(narrow_dir)
    assert Packed in kinds(engine)
    assert capsys.readouterr().err == ""
    rounded, _ = bases.load_engine(narrow_dir, renderer, int8=True)
    assert Int8 in kinds(rounded)
    assert "8-bit weights of narrow: KL 0.0" in capsys.readouterr().err


def run_of(base: Path, model: Path) -> Any:
    return SimpleNamespace(name="run-1", path=model.parent, facts={"base_path": str(base), "base": "x"})


@pytest.mark.parametrize("int8", [False, True])
def test_an_adapter_and_its_base_are_one_model_in_memory(qwen_dir: Path, tmp_path: Path, int8: bool) -> None:
    model = add_lora(load_model(qwen_dir, torch.float32), 2, 4, 0.0)
    model.peft_config["default"].base_model_name_or_path = str(qwen_dir)
    model.save_pretrained(tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / "model" / name).write_bytes((qwen_dir / name).read_bytes())
    base, tuned, _ = loop.engines(run_of(qwen_dir, tmp_path / "model"), int8=int8)
    assert base.engine is tuned  # type: ignore[attr-defined]
    assert (Int8 in kinds(tuned)) == int8


@pytest.mark.parametrize("int8", [False, True])
def test_whole_models_are_loaded_apart_and_rounded_alike(qwen_dir: Path, tmp_path: Path, int8: bool) -> None:
    (tmp_path / "model").symlink_to(qwen_dir)
    base, tuned, _ = loop.engines(run_of(qwen_dir, tmp_path / "model"), int8=int8)
    assert (Int8 in kinds(base), Int8 in kinds(tuned)) == (int8, int8)
    assert base is not tuned
