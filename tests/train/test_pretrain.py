import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tunesmith.core.artifact import open_artifact
from tunesmith.core.errors import DataError, Interrupted, ResourceError
from tunesmith.text.tokenizer import Tokenizer
from tunesmith.train import loop, pretrain
from tunesmith.train.config import PretrainConfig
from tunesmith.train.objective import next_token
from tunesmith.train.plan_batches import BlockSource

TEXTS = [
    f"def load_{n}(path):\n    '''Return the {word} of the file, or None if the {word} is missing.'''\n"
    f"The {word} number {n} is read from the file. If the file is empty, the {word} is {n * 7}."
    for n in range(14)
    for word in ("name", "size", "owner")
]
TINY: dict[str, Any] = {
    **{"vocab_size": 300, "dim": 16, "num_layers": 1, "num_heads": 2, "ffn_dim": 16, "context": 64, "block": 16},
    **{"batch_size": 4, "max_steps": 3, "max_seconds": 1e6, "valid_fraction": 0.05, "eval_every": 3},
    "dtype": "float32",
}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def outcome(folder: Path, values: dict[str, Any]) -> dict[str, Any]:
    run = pretrain.run(PretrainConfig(**values), TEXTS, folder / "run")
    metrics = lines(run.path / "metrics.jsonl")
    rates = [m["learning_rate"] for m in metrics if "learning_rate" in m]
    names = ("steps", "total_parameters", "dtype", "val_loss", "train_loss")
    config = json.loads((run.path / "model" / "config.json").read_text())
    return {
        **{name: run.facts[name] for name in names},
        "vocabulary": Tokenizer.load(run.path / "model").vocab_size,
        "shape": {k: v for k, v in config.items() if k in ("num_attention_heads", "max_position_embeddings")},
        "rates": rates,
        "losses": [m["train_loss"] for m in metrics if "train_loss" in m],
        "validations": sum("val_loss" in m for m in metrics),
        "tokens": run.facts["tokens"],
    }


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return outcome(tmp_path_factory.mktemp("plain"), TINY)


# field -> (the changed value, what must differ, what must not)
FIELDS: dict[str, tuple[Any, str, str]] = {
    "vocab_size": (280, "vocabulary", "steps"),
    "dim": (32, "total_parameters", "vocabulary"),
    "num_layers": (2, "total_parameters", "vocabulary"),
    "num_heads": (4, "shape", "total_parameters"),
    "ffn_dim": (32, "total_parameters", "vocabulary"),
    "context": (128, "shape", "losses"),
    "block": (32, "losses", "total_parameters"),
    "batch_size": (2, "losses", "rates"),
    "max_steps": (4, "steps", "total_parameters"),
    "max_seconds": (1e-9, "steps", "total_parameters"),
    "muon_lr": (0.001, "losses", "vocabulary"),
    "adam_lr": (0.001, "losses", "rates"),
    "lr_schedule": ("linear", "rates", "steps"),
    "warmup_ratio": (0.7, "rates", "steps"),
    "valid_fraction": (0.3, "val_loss", "rates"),
    "eval_every": (1, "validations", "losses"),
    "seed": (1, "losses", "rates"),
    "dtype": ("bfloat16", "dtype", "rates"),
}


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_changes_the_run(field: str, plain: dict[str, Any], tmp_path: Path) -> None:
    value, differs, same = FIELDS[field]
    changed = outcome(tmp_path, TINY | {field: value})
    assert changed[differs] != plain[differs]
    assert changed[same] == plain[same]


def test_the_table_holds_every_field() -> None:
    assert FIELDS.keys() == PretrainConfig.model_fields.keys()


def test_the_same_settings_give_the_same_base(plain: dict[str, Any], tmp_path: Path) -> None:
    assert outcome(tmp_path, TINY) == plain


def test_the_result_is_a_run_whose_model_transformers_loads(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made = pretrain.run(PretrainConfig(**TINY), TEXTS, tmp_path / "base", {"base": "", "set": "s"})
    run = open_artifact(made.path, "run")
    assert (run.facts["method"], run.facts["set"], run.facts["steps"], run.facts["steps_asked"]) == (
        "pretrain",
        "s",
        3,
        3,
    )
    model, tokenizer = (a.from_pretrained(run.path / "model") for a in (AutoModelForCausalLM, AutoTokenizer))
    assert tokenizer.decode(tokenizer("The file")["input_ids"]) == "The file"
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.config.tie_word_embeddings
    assert sum(p.numel() for p in model.parameters()) == run.facts["total_parameters"]
    samples = lines(run.path / "samples.jsonl")
    assert [s["step"] for s in samples] == [0, 0, 0, 3, 3, 3]
    assert [s["sample"] for s in samples[:3]] != [s["sample"] for s in samples[3:]]
    assert len({s["prompt"] for s in samples}) == 3


def test_bits_per_byte_are_nats_over_the_held_out_text_counted_by_hand(tmp_path: Path) -> None:
    config = PretrainConfig(**TINY)
    run = pretrain.run(config, TEXTS, tmp_path / "base")
    tokenizer = Tokenizer.load(run.path / "model")
    _, valid = pretrain._streams(TEXTS, tokenizer, config)
    from tunesmith.model.load import load_model

    model = load_model(run.path / "model", torch.float32)
    nats = sum(next_token(model, m).item() for m in BlockSource(valid, config.block, 4, 10**6).all())
    predicted = valid[1:].tolist()
    size = sum(len(tokenizer.decode([i]).encode()) for i in predicted)
    assert len(predicted) % config.block == 0
    assert run.facts["val_loss"] == pytest.approx(nats / len(predicted), rel=1e-5)
    assert run.facts["val_bpb"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)


def test_training_and_validation_text_share_one_border_token_and_nothing_more() -> None:
    config = PretrainConfig(**TINY)
    tokenizer = pretrain._tokenizer(TEXTS, config)
    train, valid = pretrain._streams(TEXTS, tokenizer, config)
    whole = [i for ids in tokenizer.encode_many(TEXTS) for i in (*ids, tokenizer.eos_id)]
    assert len(train) + len(valid) - 1 == len(whole)
    assert train[-1] == valid[0]
    assert sorted([*train, *valid[1:]]) == sorted(whole)
    assert list(train).count(tokenizer.eos_id) + list(valid[1:]).count(tokenizer.eos_id) == len(TEXTS)


def test_a_new_model_predicts_nothing_yet() -> None:
    """With the projections into the residual stream at zero, the untrained loss is near that of chance."""
    config = PretrainConfig(**TINY)
    tokenizer = pretrain._tokenizer(TEXTS, config)
    model = pretrain.build_model(config, tokenizer)
    assert all(not p.any() for n, p in model.named_parameters() if n.endswith(("o_proj.weight", "down_proj.weight")))
    _, valid = pretrain._streams(TEXTS, tokenizer, config)
    loss = loop.mean_loss(model, BlockSource(valid, config.block, 4, 10**6).all())
    assert loss == pytest.approx(math.log(tokenizer.vocab_size), rel=0.15)


def test_fewer_steps_on_a_slower_machine_are_said_and_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = pretrain.run(PretrainConfig(**TINY | {"max_seconds": 1e-9}), TEXTS, tmp_path / "base")
    assert (run.facts["steps"], run.facts["steps_asked"]) == (1, 3)
    assert "1 steps, capped from 3 to stay within" in capsys.readouterr().err


@pytest.mark.parametrize(("texts", "message"), [([], "no text"), (["", " \n"], "no text"), (["Hi."], "too short")])
def test_too_little_text_is_a_data_error(texts: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        pretrain.run(PretrainConfig(**TINY), texts, tmp_path / "base")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_pretraining_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os
    import signal

    real = loop.mean_loss

    def interrupting(*arguments: Any, **named: Any) -> float:
        os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments, **named)

    monkeypatch.setattr(loop, "mean_loss", interrupting)
    with pytest.raises(Interrupted, match="stopped at step 1 of 3"):
        pretrain.run(PretrainConfig(**TINY | {"eval_every": 1}), TEXTS, tmp_path / "base")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_resource_error_and_leaves_nothing(tmp_path: Path) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
    try:
        with pytest.raises(ResourceError):
            pretrain.run(PretrainConfig(**TINY), TEXTS, tmp_path / "base")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_pretraining_is_watched_as_any_training_is(tmp_path: Path) -> None:
    run = pretrain.run(PretrainConfig(**TINY), TEXTS, tmp_path / "run")
    steps = [m for m in lines(run.path / "metrics.jsonl") if "train_loss" in m]
    assert all(m["mfu"] > 0 and m["peak_memory_gb"] > 0 and m["padding_share"] == 0 for m in steps)
    assert (run.path / "curve.svg").read_text().startswith("<svg")
