"""One training session: the model made ready, the loop run between its hooks, and what there is to say afterwards."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from tunesmith.core import curve
from tunesmith.core.errors import Interrupted, UsageError
from tunesmith.core.project import cache_dir
from tunesmith.core.records import Row
from tunesmith.core.runlog import Progress, RunLog, say
from tunesmith.engine.base import Sampling
from tunesmith.engine.local import LocalEngine
from tunesmith.model import device as machine
from tunesmith.model import load, optim
from tunesmith.model.adapter import add_lora, trainable_parameters
from tunesmith.model.compute import Computing, pick_compile, pick_packing
from tunesmith.model.peak import peak
from tunesmith.model.shape import check_memory, stored_parameters
from tunesmith.text.render import Renderer
from tunesmith.train import checkpoint, loop
from tunesmith.train.config import TrainConfig
from tunesmith.train.data import Data, question_and_answer
from tunesmith.train.monitor import watching
from tunesmith.train.objective import computed
from tunesmith.train.plan_batches import Ahead, ExampleSource
from tunesmith.train.trackers import Target, Trackers
from tunesmith.train.unfinished import run_hash


def settle(config: TrainConfig, base: Path, data: Data) -> TrainConfig:
    """Decide what must stay as it is when the run is resumed: whether to compile."""
    where = machine.pick_device()
    tokens = (config.max_steps or 0) * config.rows_a_step * data.train.tokens / len(data.train.kept)
    flops = tokens * stored_parameters(base) * (4 if config.method == "lora" else 6)
    dtype, _ = machine.pick_dtype(config.dtype, where)
    chosen, why = pick_compile(config.compile, where, flops, lambda: peak(dtype, where, cache_dir()).flops)
    say(f"  {'compiled' if chosen else 'not compiled'}: {why}")
    return config.model_copy(update={"compile": "on" if chosen else "off"})


def prepare_model(config: TrainConfig, base: Path, receipt: dict[str, Any]) -> tuple[PreTrainedModel, Computing]:
    """The model to train, in the format its weights are stored or trained in, and how it will compute."""
    where = machine.pick_device()
    dtype, why = machine.pick_dtype(config.dtype, where)
    stored = load.stored_dtype(base)
    frozen = stored if config.method == "lora" else torch.float32  # what is trained has float32 masters
    check_memory(stored_parameters(base), config.method, machine.available_memory_gb(where), frozen.itemsize)
    model = load.load_model(base, frozen)
    computing, reason = _computing(config, model, where, dtype)
    torch.manual_seed(config.seed)
    if config.method == "lora":
        model = add_lora(model, config.lora_rank, config.lora_alpha, config.lora_dropout, config.target_modules)
    trainable, total = trainable_parameters(model)
    receipt |= {
        "dtype": str(dtype).removeprefix("torch."),
        "trainable_parameters": trainable,
        "total_parameters": total,
        "computing": computing.facts,
    }
    say(f"  {config.method}: {trainable:,} of {total:,} parameters, {receipt['dtype']} ({why})")
    say(f"  {reason}")
    return model, computing


def _computing(
    config: TrainConfig, model: PreTrainedModel, where: torch.device, dtype: torch.dtype
) -> tuple[Computing, str]:
    kind, plain, reason = (None, False, "padded, as asked") if config.packing == "off" else pick_packing(model, where)
    if config.packing == "on" and kind is None:
        raise UsageError(f'packing = "on": {reason.removeprefix("padded: ")}', fix='packing = "auto"')
    compiled = config.compile == "on"
    if kind == "documents" and compiled and where.type == "cpu":
        kind = "bucketed"
    # Muon holds no masters: its weights stay float32 and are cast as they are used
    copies = dtype if dtype != torch.float32 and config.optimizer == "adamw" else None
    checkpointed = config.gradient_checkpointing == "on"
    return Computing(model, where, dtype, kind, compiled, copies, plain, checkpointed), reason


def fit_model(
    config: TrainConfig,
    model: PreTrainedModel,
    renderer: Renderer,
    data: Data,
    work: Path,
    receipt: dict[str, Any],
    computing: Computing,
) -> loop.State:
    """The loop between its hooks; the weights are in full precision after it. Raises Interrupted when asked to stop."""
    optimizers, settings = make_optimizers(config, model), _settings(config, computing, bool(data.valid.kept))
    folder, own = work / "checkpoints", run_hash(receipt)
    found = checkpoint.latest(folder, own) if folder.is_dir() else None
    if found is None:
        checkpoint.check_room(folder, model)
    state = checkpoint.load(found, model, optimizers) if found else loop.State()
    computing.begin(model, optimizers)
    micro, pad = config.micro_batch_tokens, None if computing.packed else renderer.tokenizer.pad_id
    valid = ExampleSource(data.valid.kept, config.rows_a_step, micro, pad).all() if data.valid.kept else []
    objective = computed(computing)

    def save(now: loop.State) -> bool:
        with optimizers.full_precision():
            return checkpoint.save(folder, model, optimizers, now, own)

    def roll_back() -> loop.State | None:
        with optimizers.full_precision():
            return checkpoint.roll_back(folder, model, optimizers, own)

    name = work.name.removesuffix(".partial")
    target = Target(work.parents[1].name, name, work.parents[1] / "trackers", receipt["config"], state.step)
    with (
        Trackers(config.trackers, target) as trackers,
        closing(RunLog(work / "metrics.jsonl", state.step)) as log,
        closing(RunLog(work / "samples.jsonl", state.step)) as samples,
        loop.stop_signals() as stop,
        Progress("training", settings.max_steps, state.step) as progress,
        closing(Ahead(ExampleSource(data.train.kept, config.rows_a_step, micro, pad, config.seed))) as source,
    ):
        highest = peak(computing.dtype, computing.device, cache_dir())
        monitor = watching(computing.model, work, settings.max_steps, highest, tell=progress.say, send=trackers.send)
        hooks = loop.Hooks(
            observe=monitor.observe,
            validate=(lambda: loop.mean_loss(model, valid, computing.measuring, stop, objective)) if valid else None,
            save=save,
            roll_back=roll_back,
            sample=lambda step: _sample(model, renderer, data.probes, step, samples, computing),
            log=log,
            progress=progress,
        )
        state = loop.fit(model, source, optimizers, settings, hooks=hooks, objective=objective, state=state, stop=stop)
    curve.write(work)
    optimizers.raise_precision()
    if stop.requested and state.step < settings.max_steps:
        saved = checkpoint.newest_step(folder)
        where = "saved" if saved == state.step else f"the newest checkpoint is of step {saved}"
        fix = f"tunesmith train --resume --name {name}"
        raise Interrupted(f"stopped at step {state.step}; {where}", fix=fix)
    return state


def make_optimizers(config: TrainConfig, model: nn.Module) -> optim.Optimizers:
    """Fresh optimizers of a config that is decided, and their schedule."""
    assert config.learning_rate is not None  # `decide` filled both in
    assert config.max_steps is not None
    rate, steps = config.learning_rate, config.max_steps
    parts: list[torch.optim.Optimizer] = (
        optim.muon_adamw(model, rate, rate / 3, config.weight_decay)
        if config.optimizer == "muon"
        else [optim.adamw(model.parameters(), rate, config.weight_decay)]
    )
    warmup = int(config.warmup_ratio * steps)
    return optim.Optimizers(parts, lambda step: optim.lr_factor(config.lr_schedule, step, steps, warmup))


def _settings(config: TrainConfig, computing: Computing, validated: bool) -> loop.Settings:
    assert config.max_steps is not None
    return loop.Settings(
        max_steps=config.max_steps,
        grad_clip=config.grad_clip,
        eval_every=config.eval_every or 0 if validated else 0,
        save_every=config.save_every or (0 if validated else config.eval_every or 0),
        sample_every=config.sample_every or 0,
        patience=config.early_stopping_patience,
        computing=computing.training,
    )


def _sample(
    model: PreTrainedModel, renderer: Renderer, rows: list[Row], step: int, log: RunLog, computing: Computing
) -> None:
    engine = LocalEngine(model, renderer.tokenizer, stop_ids=renderer.stop_ids)
    asked = [question_and_answer(row, renderer) for row in rows[:3]]
    with computing.speaking():
        found = engine.generate([prompt for prompt, _ in asked], Sampling(64))
    for row, (prompt, answer), one in zip(rows[:3], asked, found, strict=True):
        texts = (renderer.tokenizer.decode(prompt), renderer.tokenizer.decode(answer))
        question, reference = texts if row.text else (row.question, row.answer)
        log.write({"step": step, "prompt": question, "reference": reference, "sample": one.text})


def run_facts(state: loop.State, config: TrainConfig, rows: int) -> dict[str, Any]:
    epoch = -(-rows // config.rows_a_step)
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
