"""The whole stage on each family: what it writes is what transformers and peft load, and says what was trained."""

import dataclasses
import fcntl
import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tunesmith.core.artifact import Artifact, open_artifact
from tunesmith.core.errors import DataError, ModelError, ResourceError, UsageError
from tunesmith.core.records import Message, Row, pair
from tunesmith.engine.base import Sampling
from tunesmith.engine.local import LocalEngine
from tunesmith.model.load import load_model, load_trained
from tunesmith.text.render import Renderer
from tunesmith.text.tokenizer import Tokenizer
from tunesmith.train import export, stage
from tunesmith.train.config import TrainConfig

ARCHS = ("gpt2", "neox", "llama", "qwen")
ASK = [Message("user", "What is 2 and 3?")]
QUICK: dict[str, Any] = {"max_steps": 2, "batch_size": 4, "learning_rate": 0.01, "dtype": "float32", "sample_every": 0}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft 0.21 with transformers 5.23
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("arch", ARCHS)
def test_the_saved_model_loads_elsewhere_and_gives_the_same_greedy_text(
    tuned: Callable[..., Any], arch: str, method: str
) -> None:
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made = tuned(arch, method)
    folder = made.run.path / "model"
    loader = AutoPeftModelForCausalLM if method == "lora" else AutoModelForCausalLM
    model, tokenizer = loader.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.apply_chat_template(
        [m.to_json() for m in ASK], add_generation_prompt=True, return_tensors="pt", return_dict=False
    )
    config = json.loads((folder / "generation_config.json").read_text())
    with torch.no_grad():
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=20,
            do_sample=False,
            eos_token_id=config["eos_token_id"],
            pad_token_id=config["pad_token_id"],
        )[0, ids.shape[1] :].tolist()
    renderer = Renderer(Tokenizer.load(folder))
    engine = LocalEngine(load_trained(folder, torch.float32), renderer.tokenizer, stop_ids=renderer.stop_ids)
    prompt = renderer.prompt(ASK)
    (found,) = engine.generate([prompt], Sampling(20))
    assert prompt == ids[0].tolist()
    assert list(found.ids) == [i for i in out if i not in renderer.stop_ids]
    assert set(renderer.stop_ids) <= set(config["eos_token_id"])
    base = LocalEngine(load_model(made.base, torch.float32), renderer.tokenizer)
    answer = renderer.tokenizer.encode("It is 5.", start=False)
    assert engine.score([(prompt, answer)])[0].total > base.score([(prompt, answer)])[0].total + 1


@pytest.mark.filterwarnings("ignore")  # of torch's own compiler
def test_a_compiled_run_is_sealed_with_as_many_layers_as_there_may_be(
    tuned: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What speaks after the training is not compiled: a graph for each layer of the cache ended real models."""
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 3)
    inputs = tuned("llama", "lora").inputs
    run = stage.run(TrainConfig(**QUICK | {"method": "lora", "compile": "on"}), inputs, tmp_path / "runs" / "a")
    assert run.facts["computing"]["compiled"]
    assert run.facts["parity"]["greedy_ids_equal"]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_receipt_says_all_that_the_door_prints_and_nothing_that_was_not_measured(
    tuned: Callable[..., Any], method: str
) -> None:
    made = tuned("llama", method)
    run = open_artifact(made.run.path, "run")
    facts, names = run.facts, {p.name for p in run.path.iterdir()}
    assert names == {
        *(
            "config.toml",
            "metrics.jsonl",
            "samples.jsonl",
            "skipped.jsonl",
            "fitted.jsonl",
            "curve.svg",
            "receipt.json",
            "model",
            "manifest.json",
        )
    }
    assert json.loads((run.path / "receipt.json").read_text()) == facts
    summary = stage.summary(run)
    assert all(value is not None for value in summary.values())
    assert (summary["run"], summary["method"], summary["steps"], summary["epochs"]) == (run.name, method, 6, 1.5)
    total = sum(p.numel() for p in load_model(made.base, torch.float32).parameters())
    if method == "full":
        assert summary["trainable_parameters"] == summary["total_parameters"] == total
    else:
        assert summary["trainable_parameters"] == summary["total_parameters"] - total > 0
    assert facts["rows"] == {"in": 20, "train": 14, "valid": 6, "skipped": {}, "fitted": {}}
    assert facts["data_hash"] == made.inputs.set_.hash
    assert facts["template_hash"] == Renderer(Tokenizer.load(run.path / "model")).hash
    assert facts["config"]["max_steps"] == 6
    parity = facts["parity"]
    assert (parity["prompts"], parity["prompt_ids_equal"], parity["greedy_ids_equal"]) == (4, True, True)
    assert parity["largest_logprob_change_from_base"] > 0.1


def test_metrics_and_samples_have_a_line_for_everything_that_happened(tuned: Callable[..., Any]) -> None:
    run = tuned("llama", "full").run
    metrics = lines(run.path / "metrics.jsonl")
    steps = [m for m in metrics if "train_loss" in m]
    validations = [m for m in metrics if "val_loss" in m]
    assert [m["step"] for m in steps] == [1, 2, 3, 4, 5, 6]
    assert all(m.keys() >= {"step", "train_loss", "learning_rate", "grad_norm", "tokens_per_second"} for m in steps)
    assert [m["step"] for m in validations] == [3, 6]
    assert run.facts["val_loss"] == min(m["val_loss"] for m in validations)
    assert run.facts["train_loss"] == validations[-1]["train_loss_mean"]
    assert [s["step"] for s in lines(run.path / "samples.jsonl")] == [4, 4, 4, 6, 6, 6]


def inputs(set_: Artifact, base: Path, **more: Any) -> stage.TrainInputs:
    return stage.TrainInputs(set_, str(base), **more)


def without_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the fresh process at the end: what it proves is tested above, and it takes seconds."""
    monkeypatch.setattr(export, "_ask_fresh", lambda folder, rows: fresh(folder, rows))


def fresh(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    renderer = Renderer(Tokenizer.load(folder))
    again = export.probe(load_trained(folder, torch.float32), renderer, [Row.from_json(r) for r in rows])
    return {"prompts": again.prompts, "outputs": again.outputs}


def test_rows_that_do_not_fit_are_skipped_listed_and_counted_and_never_cut(
    make_set: Callable[..., Artifact], gpt2_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_proof(monkeypatch)
    long = [pair("Why?", "So. " * 100), pair("Why not? " * 60, "So.")]
    rows = [pair(f"What is {n}?", f"It is {n}.") for n in range(6)]
    set_ = make_set([*long, *rows], [pair("And?", "Yes. " * 100), pair("Or?", "No.")])
    run = stage.run(TrainConfig(**QUICK), inputs(set_, gpt2_dir), tmp_path / "run-1")
    skipped = lines(run.path / "skipped.jsonl")
    assert [s["id"] for s in skipped] == [long[0].id, long[1].id, pair("And?", "Yes. " * 100).id]
    assert {s["reason"] for s in skipped} == {"too_long"}
    assert run.facts["rows"] == {"in": 10, "train": 6, "valid": 1, "skipped": {"too_long": 3}, "fitted": {}}
    tokenizer = Renderer(Tokenizer.load(gpt2_dir))
    assert run.facts["tokens_an_epoch"] == sum(len(tokenizer.render(row)[0].ids) for row in rows)


def test_the_limit_is_decided_from_all_rows_and_said_with_what_became_of_the_longer_ones(
    make_set: Callable[..., Artifact],
    llama_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    without_proof(monkeypatch)
    trimmed, whole = pair("Sum up.\n\n" + "the dog and the fox " * 20, "So."), pair("Why?", "So.")
    set_ = make_set([trimmed, whole, pair("And?", "Yes. " * 100)], [whole])
    config = TrainConfig(**QUICK, over_length="trim-context")
    run = stage.run(config, inputs(set_, llama_dir), tmp_path / "run-1")
    longest = max(len(e.ids) for row in (trimmed, whole) for e in Renderer(Tokenizer.load(llama_dir)).render(row))
    assert run.facts["longest_row"] > longest > 128 == run.facts["context"] == run.facts["config"]["max_length"]
    rows = {"in": 4, "train": 2, "valid": 1, "skipped": {"too_long": 1}, "fitted": {"trimmed": 1}}
    assert run.facts["rows"] == rows
    assert [one["id"] for one in lines(run.path / "fitted.jsonl")] == [trimmed.id]
    said = capsys.readouterr().err
    assert "max_length 128: all that the base takes (the longest of 4 rows has " in said
    assert "2 rows are longer: 1 trimmed, 1 left out (over_length = trim-context)" in said


def test_validation_rows_count_for_the_limit(
    make_set: Callable[..., Artifact], llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_proof(monkeypatch)
    set_ = make_set([pair("Why?", "So."), pair("Is it?", "No.")], [pair("And?", "Yes. " * 20)])
    run = stage.run(TrainConfig(**QUICK), inputs(set_, llama_dir), tmp_path / "run-1")
    assert (run.facts["config"]["max_length"], run.facts["rows"]["valid"]) == (128, 1)


def test_a_max_length_beyond_the_context_is_a_usage_error_and_leaves_nothing(
    small_set: Artifact, llama_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="max_length = 129 exceeds the base's context of 128 tokens"):
        stage.run(TrainConfig(**QUICK, max_length=129), inputs(small_set, llama_dir), tmp_path / "run-1")
    assert not list(tmp_path.iterdir())


def test_a_set_of_raw_text_is_trained_and_proved_too(
    make_set: Callable[..., Artifact], llama_dir: Path, tmp_path: Path
) -> None:
    rows = [Row(text=f"The capital of number {n} is Paris, and the dog does not mind.") for n in range(8)]
    run = stage.run(TrainConfig(**QUICK), inputs(make_set(rows[:6], rows[6:]), llama_dir), tmp_path / "run-1")
    assert run.facts["parity"]["prompts"] == 4
    assert run.facts["parity"]["largest_logprob_change_from_base"] > 0


def test_a_set_without_validation_rows_keeps_the_last_weights(
    make_set: Callable[..., Artifact], llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_proof(monkeypatch)
    run = stage.run(
        TrainConfig(**QUICK), inputs(make_set([pair("a", "b"), pair("c", "d")], []), llama_dir), tmp_path / "r"
    )
    assert (run.facts["val_loss"], run.facts["best_step"], run.facts["rows"]["valid"]) == (None, 2, 0)


def test_an_adapter_stops_at_the_templates_own_stop_token_when_it_is_loaded_afresh(
    make_set: Callable[..., Artifact], qwen_dir: Path, tmp_path: Path
) -> None:
    """The base and the tokenizer end with <|endoftext|>, the template with <|im_end|>: only the template knows."""
    base = tmp_path / "base"
    shutil.copytree(qwen_dir, base)
    for name in ("tokenizer_config.json", "config.json", "generation_config.json"):
        found = json.loads((base / name).read_text())
        found |= {"eos_token": "<|endoftext|>"} if name.startswith("tok") else {"eos_token_id": 1}
        (base / name).write_text(json.dumps(found))
    rows = [pair(f"{n}?", "Yes.") for n in range(8)]
    config = TrainConfig(**QUICK | {"method": "lora", "max_steps": 40, "learning_rate": 0.02})
    run = stage.run(config, inputs(make_set(rows, rows[:2]), base), tmp_path / "run-1")
    renderer = Renderer(Tokenizer.load(run.path / "model"))
    assert renderer.stop_ids != (renderer.tokenizer.eos_id,)
    model = load_trained(run.path / "model", torch.float32)
    engine = LocalEngine(model, renderer.tokenizer, stop_ids=renderer.stop_ids)
    (found,) = engine.generate([renderer.prompt([Message("user", "1?")])], Sampling(20))
    assert (found.text, found.finish) == ("Yes.", "stop")


def test_a_model_tuned_with_a_template_of_empty_thoughts_answers_without_them(
    make_set: Callable[..., Artifact], qwen_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_proof(monkeypatch)
    base = tmp_path / "base"
    shutil.copytree(qwen_dir, base)
    (base / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
        "{% if loop.last and m.role == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
        "{{ m.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    rows = [pair(f"{n}?", "Yes.") for n in range(8)]
    config = TrainConfig(**QUICK | {"max_steps": 40, "learning_rate": 0.02})
    run = stage.run(config, inputs(make_set(rows, rows[:2]), base), tmp_path / "run-1")
    renderer = Renderer(Tokenizer.load(run.path / "model"))
    model = load_trained(run.path / "model", torch.float32)
    engine = LocalEngine(model, renderer.tokenizer, stop_ids=renderer.stop_ids)
    (found,) = engine.generate([renderer.prompt([Message("user", "1?")])], Sampling(40))
    assert renderer.tokenizer.decode(found.ids) == "<think>\n\n</think>\n\nYes."
    assert (found.text, found.finish) == ("Yes.", "stop")


def test_an_adapter_names_its_base_by_a_path_that_holds_from_anywhere(
    small_set: Artifact, llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_proof(monkeypatch)
    monkeypatch.chdir(llama_dir.parent)
    run = stage.run(TrainConfig(**QUICK, method="lora"), inputs(small_set, Path(llama_dir.name)), tmp_path / "run-1")
    monkeypatch.chdir(tmp_path)
    assert load_trained(run.path / "model", torch.float32) is not None
    assert Path(run.facts["base_path"]).is_absolute()


def test_no_row_left_is_a_data_error(make_set: Callable[..., Artifact], llama_dir: Path, tmp_path: Path) -> None:
    for rows, reason in (([], "the set is empty"), ([pair("a", "b " * 200)], "too_long")):
        with pytest.raises(DataError, match=rf"no row of set-1 can be trained \({reason}\)"):
            stage.run(TrainConfig(**QUICK), inputs(make_set(rows, []), llama_dir), tmp_path / reason)


def test_preference_rows_are_a_data_error(make_set: Callable[..., Artifact], llama_dir: Path, tmp_path: Path) -> None:
    row = Row((Message("user", "a"),), chosen="b", rejected="c")
    with pytest.raises(DataError, match="preference rows"):
        stage.run(TrainConfig(**QUICK), inputs(make_set([row], []), llama_dir), tmp_path / "run-1")


@pytest.mark.parametrize("method", ["full", "lora"])
def test_training_that_changes_nothing_is_a_model_error(
    small_set: Artifact, llama_dir: Path, tmp_path: Path, method: str
) -> None:
    config = TrainConfig(**QUICK | {"learning_rate": 1e-30, "method": method, "weight_decay": 0.0})
    with pytest.raises(ModelError, match="training changed nothing"):
        stage.run(config, inputs(small_set, llama_dir), tmp_path / "run-1")
    assert not (tmp_path / "run-1").exists()


def test_a_saved_model_that_speaks_differently_is_a_model_error(
    small_set: Artifact, llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_ask_fresh", lambda folder, rows: fresh(folder, rows) | {"outputs": []})
    with pytest.raises(ModelError, match="its outputs differ when it is loaded again"):
        stage.run(TrainConfig(**QUICK), inputs(small_set, llama_dir), tmp_path / "run-1")


def test_a_model_that_cannot_be_loaded_again_is_a_model_error(llama_dir: Path, tmp_path: Path) -> None:
    renderer = Renderer(Tokenizer.load(llama_dir), "plain")
    model = load_model(llama_dir, torch.float32)
    before = export.probe(model, renderer, [pair("a", "b")])
    export.save_model(model, renderer, tmp_path / "model", torch.float32)
    (tmp_path / "model" / "model.safetensors").write_bytes(b"")
    changed = dataclasses.replace(before, logprobs=[lp - 1 for lp in before.logprobs])
    with pytest.raises(ModelError, match=r"the saved model cannot be loaded again: .*model.*cannot be loaded"):
        export.verify(tmp_path / "model", changed, before)


def test_a_name_that_is_taken_is_a_usage_error(tuned: Callable[..., Any], tmp_path: Path) -> None:
    made = tuned("llama", "full")
    with pytest.raises(UsageError, match="exists"):
        stage.run(made.config, made.inputs, made.run.path)
    (tmp_path / "run-1.partial").mkdir()
    with pytest.raises(UsageError, match="an unfinished run run-1 exists"):
        stage.run(made.config, made.inputs, tmp_path / "run-1")
    with pytest.raises(UsageError, match="no unfinished run run-2 to resume"):
        stage.run(made.config, made.inputs, tmp_path / "run-2", resume=True)


def test_a_run_that_another_process_trains_is_a_usage_error(
    small_set: Artifact, llama_dir: Path, tmp_path: Path
) -> None:
    work = tmp_path / "run-1.partial"
    work.mkdir()
    with (tmp_path / ".run-1.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="another process is training run-1"):
            stage.run(TrainConfig(**QUICK), inputs(small_set, llama_dir), tmp_path / "run-1", resume=True)


@pytest.mark.parametrize("at", ["model", "seal"])
def test_a_full_disk_at_the_end_keeps_the_checkpoints_and_resume_finishes(
    small_set: Artifact, llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    without_proof(monkeypatch)
    config = TrainConfig(**QUICK | {"method": "lora"})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    place, name = (stage.export, "save_model") if at == "model" else (stage, "finish")
    real = getattr(place, name)

    def limited(*arguments: Any) -> Any:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
        try:
            return real(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    with monkeypatch.context() as patch:
        patch.setattr(place, name, limited)
        with pytest.raises(ResourceError) as caught:
            stage.run(config, inputs(small_set, llama_dir), tmp_path / "run-1")
    assert caught.value.exit_code == 5
    assert not (tmp_path / "run-1").exists()
    assert [p.name for p in (tmp_path / "run-1.partial" / "checkpoints").iterdir()] == ["step-000002"]
    run = stage.run(config, inputs(small_set, llama_dir), tmp_path / "run-1", resume=True)
    assert run.facts["steps"] == 2
    assert "measured_gb" not in run.facts["memory"]  # nothing was trained in this attempt
    assert [p.name for p in tmp_path.iterdir()] == ["run-1"]


@pytest.mark.parametrize("change", [{"learning_rate": 0.02}, {"seed": 5}])
def test_resuming_with_other_settings_is_a_data_error_that_names_them_and_changes_nothing(
    small_set: Artifact, llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stage, "fit_model", stopped)
        with pytest.raises(KeyboardInterrupt):
            stage.run(TrainConfig(**QUICK), inputs(small_set, llama_dir), tmp_path / "run-1")
    before = (tmp_path / "run-1.partial" / "receipt.json").read_bytes()
    ((name, value),) = change.items()
    with pytest.raises(DataError, match=rf"other settings: {name} was .* and is {value}"):
        stage.run(TrainConfig(**QUICK | change), inputs(small_set, llama_dir), tmp_path / "run-1", resume=True)
    assert (tmp_path / "run-1.partial" / "receipt.json").read_bytes() == before
    with pytest.raises(DataError, match=r"other settings: .*the template is another one"):
        stage.run(
            TrainConfig(**QUICK), inputs(small_set, llama_dir, template="alpaca"), tmp_path / "run-1", resume=True
        )


def test_the_best_weights_are_what_is_saved_and_not_the_last(
    small_set: Artifact, llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.core.jsonl import read_rows
    from tunesmith.train import loop
    from tunesmith.train.data import build
    from tunesmith.train.plan_batches import cut

    without_proof(monkeypatch)
    worse = {"max_steps": 6, "learning_rate": 1.0, "lr_schedule": "constant", "eval_every": 1}
    config = TrainConfig(**QUICK | worse, early_stopping_patience=2)
    run = stage.run(config, inputs(small_set, llama_dir), tmp_path / "run-1")
    losses = [m["val_loss"] for m in lines(run.path / "metrics.jsonl") if "val_loss" in m]
    assert run.facts["best_step"] < run.facts["steps"] == len(losses) < 6
    renderer = Renderer(Tokenizer.load(run.path / "model"))
    held = build(read_rows(small_set.path / "valid.jsonl"), renderer, 128)
    found = loop.mean_loss(load_model(run.path / "model", torch.float32), cut(held.kept, 4096, 0))
    assert found == pytest.approx(min(losses), rel=1e-6) == run.facts["val_loss"]
