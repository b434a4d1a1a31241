"""One training session: the model made ready, the loop run between its hooks, and what there is to say afterwards."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from tunesmith.core.errors import Interrupted
from tunesmith.core.records import Row
from tunesmith.core.runlog import Progress, RunLog, say
from tunesmith.engine.base import Sampling
from tunesmith.engine.local import LocalEngine
from tunesmith.model import device as machine
from tunesmith.model import load, optim
from tunesmith.model.adapter import add_lora, trainable_parameters
from tunesmith.model.shape import check_memory, stored_parameters
from tunesmith.text.render import Renderer
from tunesmith.train import checkpoint, loop
from tunesmith.train.config import TrainConfig
from tunesmith.train.data import Data, question_and_answer
from tunesmith.train.plan_batches import ExampleSource
from tunesmith.train.unfinished import run_hash


def prepare_model(config: TrainConfig, base: Path, receipt: dict[str, Any]) -> tuple[PreTrainedModel, torch.dtype]:
    where = machine.pick_device()
    dtype, why = machine.pick_dtype(config.dtype, where)
    stored = load.stored_dtype(base)
    frozen = stored if config.method == "lora" else torch.float32  # what is trained has float32 masters
    check_memory(stored_parameters(base), config.method, machine.available_memory_gb(where), frozen.itemsize)
    model = load.load_model(base, frozen)
    torch.manual_seed(config.seed)
    if config.method == "lora":
        model = add_lora(model, config.lora_rank, config.lora_alpha, config.lora_dropout, config.target_modules)
    trainable, total = trainable_parameters(model)
    receipt |= {
        "dtype": str(dtype).removeprefix("torch."),
        "trainable_parameters": trainable,
        "total_parameters": total,
    }
    say(f"  {config.method}: {trainable:,} of {total:,} parameters, {receipt['dtype']} ({why})")
    rows = receipt["rows"]
    say(
        f"  {rows['train']} rows, {config.max_steps} steps of {config.batch_size}, learning rate {config.learning_rate}"
    )
    return model, dtype


def fit_model(
    config: TrainConfig,
    model: PreTrainedModel,
    renderer: Renderer,
    data: Data,
    work: Path,
    receipt: dict[str, Any],
    dtype: torch.dtype,
) -> loop.State:
    """The loop between its hooks. Raises Interrupted when it was asked to stop."""
    optimizers, settings = _optimizers(config, model), _settings(config, dtype, bool(data.valid.kept))
    folder, own = work / "checkpoints", run_hash(receipt)
    found = checkpoint.latest(folder, own) if folder.is_dir() else None
    if found is None:
        checkpoint.check_room(folder, model)
    state = checkpoint.load(found, model, optimizers) if found else loop.State()
    micro, pad = config.micro_batch_tokens, renderer.tokenizer.pad_id
    valid = ExampleSource(data.valid.kept, config.batch_size, micro, pad).all() if data.valid.kept else []
    with (
        closing(RunLog(work / "metrics.jsonl", state.step)) as log,
        closing(RunLog(work / "samples.jsonl", state.step)) as samples,
        loop.stop_signals() as stop,
        Progress("training", settings.max_steps, state.step) as progress,
    ):
        hooks = loop.Hooks(
            validate=(lambda: loop.mean_loss(model, valid, settings.autocast, stop)) if valid else None,
            save=lambda now: checkpoint.save(folder, model, optimizers, now, own),
            roll_back=lambda: checkpoint.roll_back(folder, model, optimizers, own),
            sample=lambda step: _sample(model, renderer, data.probes, step, samples),
            log=log,
            progress=progress,
        )
        source = ExampleSource(data.train.kept, config.batch_size, micro, pad, config.seed)
        state = loop.fit(model, source, optimizers, settings, hooks=hooks, state=state, stop=stop)
    if stop.requested and state.step < settings.max_steps:
        name = work.name.removesuffix(".partial")
        saved = checkpoint.newest_step(folder)
        where = "saved" if saved == state.step else f"the newest checkpoint is of step {saved}"
        fix = f"tunesmith train --resume --name {name}"
        raise Interrupted(f"stopped at step {state.step}; {where}", fix=fix)
    return state


def _optimizers(config: TrainConfig, model: PreTrainedModel) -> optim.Optimizers:
    assert config.learning_rate is not None  # `decide` filled both in
    assert config.max_steps is not None
    rate, steps = config.learning_rate, config.max_steps
    parts = (
        optim.muon_adamw(model, rate, rate / 3, config.weight_decay)
        if config.optimizer == "muon"
        else [optim.adamw(model.parameters(), rate, config.weight_decay)]
    )
    warmup = int(config.warmup_ratio * steps)
    return optim.Optimizers(parts, lambda step: optim.lr_factor(config.lr_schedule, step, steps, warmup))


def _settings(config: TrainConfig, dtype: torch.dtype, validated: bool) -> loop.Settings:
    assert config.max_steps is not None
    where = machine.pick_device()
    return loop.Settings(
        max_steps=config.max_steps,
        grad_clip=config.grad_clip,
        eval_every=config.eval_every or 0 if validated else 0,
        save_every=config.save_every or (0 if validated else config.eval_every or 0),
        sample_every=config.sample_every or 0,
        patience=config.early_stopping_patience,
        autocast=lambda: machine.autocast(dtype, where),
    )


def _sample(model: PreTrainedModel, renderer: Renderer, rows: list[Row], step: int, log: RunLog) -> None:
    engine = LocalEngine(model, renderer.tokenizer, stop_ids=renderer.stop_ids)
    asked = [question_and_answer(row, renderer) for row in rows[:3]]
    found = engine.generate([prompt for prompt, _ in asked], Sampling(64))
    for row, (prompt, answer), one in zip(rows[:3], asked, found, strict=True):
        texts = (renderer.tokenizer.decode(prompt), renderer.tokenizer.decode(answer))
        question, reference = texts if row.text else (row.question, row.answer)
        log.write({"step": step, "prompt": question, "reference": reference, "sample": one.text})


def run_facts(state: loop.State, config: TrainConfig, rows: int) -> dict[str, Any]:
    epoch = -(-rows // config.batch_size)
    return {
        "method": config.method,
        "steps": state.step,
        "steps_skipped": state.steps_skipped,
        "rollbacks": state.rollbacks,
        "best_step": state.best_step or state.step,
        "epochs": round(state.step / epoch, 2),
        "train_loss": state.train_loss,
        "val_loss": state.best_val_loss,
        "trained_tokens": state.trained_tokens,
        "tokens_per_second": round(state.tokens / max(state.seconds, 1e-9), 1),
        "seconds": round(state.seconds, 2),
        "peak_memory_gb": round(machine.peak_memory_gb(machine.pick_device()), 3),
    }
