"""pretrain: raw text to a base model, from zero: a BPE tokenizer, a small Llama, next-token prediction.

The defaults are for the standard library's documentation and a CPU: two million parameters, half a thousand steps,
Muon on the matrices and AdamW on the rest.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from tunesmith.core import curve
from tunesmith.core.artifact import Artifact, seal, writing
from tunesmith.core.config import to_toml
from tunesmith.core.errors import DataError, Interrupted
from tunesmith.core.jsonl import write_json
from tunesmith.core.project import cache_dir
from tunesmith.core.runlog import Progress, RunLog, say
from tunesmith.engine.base import Sampling
from tunesmith.engine.local import LocalEngine
from tunesmith.model import device as machine
from tunesmith.model import optim
from tunesmith.model.load import quiet
from tunesmith.model.peak import peak
from tunesmith.text.tokenizer import Tokenizer, train_bpe
from tunesmith.train import loop
from tunesmith.train.config import PretrainConfig
from tunesmith.train.monitor import watching
from tunesmith.train.objective import within
from tunesmith.train.plan_batches import BlockSource, permutation

_PROMPTS = ("Return the ", "The file ", "If the ")  # what the samples before and after go on from
_MEASURED = 6  # steps timed before the real ones; the first is a warm-up


def run(config: PretrainConfig, documents: Sequence[str], out: Path, facts: dict[str, Any] | None = None) -> Artifact:
    """Train tokenizer and model, and seal a run at `out` whose model/ is a plain Hugging Face directory."""
    machine.set_up()
    where = machine.pick_device()
    dtype, why = machine.pick_dtype(config.dtype, where)
    tokenizer = _tokenizer(documents, config)
    train, valid = _streams(documents, tokenizer, config)
    model = build_model(config, tokenizer).to(where)
    parameters = sum(p.numel() for p in model.parameters())
    say(f"  {len(train) + len(valid):,} tokens, vocabulary {tokenizer.vocab_size}, {parameters:,} parameters ({why})")

    def autocast() -> AbstractContextManager[Any]:
        return machine.autocast(dtype, where)

    source = BlockSource(train, config.block, config.batch_size, _micro_tokens(config), config.seed)
    per_step = _seconds_a_step(config, tokenizer, source, autocast)
    steps = max(1, min(config.max_steps, int(config.max_seconds / per_step)))
    capped = (
        f", capped from {config.max_steps} to stay within {config.max_seconds:.0f} s"
        if steps < config.max_steps
        else ""
    )
    say(f"  measured {1 / per_step:.1f} steps/s on this machine: {steps} steps{capped}")
    with writing(out) as work:
        state = _fit(config, steps, model, tokenizer, source, valid, autocast, work)
        with quiet():
            model.save_pretrained(_made(work / "model"))
        tokenizer.save(work / "model")
        (work / "config.toml").write_text(to_toml("pretrain", config), encoding="utf-8")
        receipt = {
            "method": "pretrain",
            "config": config.model_dump(mode="json"),
            "steps": state.step,
            "steps_asked": config.max_steps,
            "steps_skipped": state.steps_skipped,
            "train_loss": state.train_loss,
            "val_loss": state.val_loss,
            "val_bpb": _bits_per_byte(state.val_loss, valid, tokenizer),
            "tokens": len(train) + len(valid),
            "tokens_per_second": round(state.tokens / max(state.seconds, 1e-9), 1),
            "measured_tokens_per_second": round(config.batch_size * config.block / per_step, 1),
            "total_parameters": parameters,
            "seconds": round(state.seconds, 2),
            "peak_memory_gb": round(machine.peak_memory_gb(where), 3),
            "dtype": str(dtype).removeprefix("torch."),
            "machine": machine.machine_facts(),
            **(facts or {}),
        }
        write_json(work / "receipt.json", receipt)
        return seal(work, out, "run", receipt)


def build_model(config: PretrainConfig, tokenizer: Tokenizer) -> PreTrainedModel:
    """A Llama with tied embeddings: weights ~ N(0, 0.6/sqrt(fan-in)), projections into the residual stream at 0."""
    shape = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=config.dim,
        intermediate_size=config.ffn_dim,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_heads,
        max_position_embeddings=config.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_id,
        pad_token_id=tokenizer.pad_id,
        dtype="float32",
    )
    torch.manual_seed(config.seed)
    model = LlamaForCausalLM(shape)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim < 2:
                continue
            into_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
            weight.normal_(std=0.0 if into_residual else 0.6 / math.sqrt(weight.shape[1]))
    return model


def _tokenizer(documents: Sequence[str], config: PretrainConfig) -> Tokenizer:
    if not any(text.strip() for text in documents):
        raise DataError("there is no text to pretrain on", expected="documents with text")
    return train_bpe(documents, config.vocab_size)


def _streams(
    documents: Sequence[str], tokenizer: Tokenizer, config: PretrainConfig
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """The documents in a seeded order, each ended by the end-of-text token; the last part is for validation."""
    order = permutation(len(documents), config.seed, 0)
    ids = tokenizer.encode_many([documents[i] for i in order])
    stream = np.fromiter((i for document in ids for i in (*document, tokenizer.eos_id)), dtype=np.int32)
    blocks = max(1, round(config.valid_fraction * len(stream) / config.block))
    kept = len(stream) - blocks * config.block
    if kept < 2 * config.block:
        what = f"the text is too short: {len(stream)} tokens"
        raise DataError(what, expected=f"at least {4 * config.block} tokens", fix="more text, or a smaller block")
    return stream[:kept], stream[kept - 1 :]


def _micro_tokens(config: PretrainConfig) -> int:
    return min(config.batch_size, 16) * (config.block + 1)


def _optimizers(config: PretrainConfig, model: PreTrainedModel, steps: int) -> optim.Optimizers:
    warmup = int(config.warmup_ratio * steps)
    parts = optim.muon_adamw(model, config.muon_lr, config.adam_lr)
    return optim.Optimizers(parts, lambda step: optim.lr_factor(config.lr_schedule, step, steps, warmup))


def _seconds_a_step(config: PretrainConfig, tokenizer: Tokenizer, source: BlockSource, autocast: Any) -> float:
    """The fastest of a few real steps of a throw-away model: what other processes take is not the machine's."""
    model = build_model(config, tokenizer).to(machine.pick_device())
    settings = loop.Settings(_MEASURED)
    optimizers, times = _optimizers(config, model, _MEASURED), []
    for step in range(_MEASURED):
        began = time.monotonic()
        loop.backward(model, source.step(step), within(autocast), settings)
        optimizers.step(step)
        times.append(time.monotonic() - began)
    return min(times[1:])


def _fit(
    config: PretrainConfig,
    steps: int,
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    source: BlockSource,
    valid: npt.NDArray[np.int32],
    autocast: Any,
    work: Path,
) -> loop.State:
    dtype, _ = machine.pick_dtype(config.dtype, model.device)
    highest = peak(dtype, model.device, cache_dir())
    held = BlockSource(valid, config.block, config.batch_size, _micro_tokens(config)).all()
    settings = loop.Settings(steps, eval_every=min(config.eval_every, steps))
    with (
        closing(RunLog(work / "metrics.jsonl")) as log,
        closing(RunLog(work / "samples.jsonl")) as samples,
        loop.stop_signals() as stop,
        Progress("pretraining", steps) as progress,
    ):
        _sample(model, tokenizer, 0, samples)
        monitor = watching(model, work, steps, highest, tell=progress.say)
        hooks = loop.Hooks(
            observe=monitor.observe,
            validate=lambda: loop.mean_loss(model, held, stop=stop, objective=within(autocast)),
            log=log,
            progress=progress,
        )
        objective = within(autocast)
        state = loop.fit(
            model, source, _optimizers(config, model, steps), settings, hooks=hooks, objective=objective, stop=stop
        )
        _sample(model.eval(), tokenizer, state.step, samples)
    curve.write(work)
    if stop.requested and state.step < steps:
        raise Interrupted(
            f"stopped at step {state.step} of {steps}; nothing was kept", fix="run the same command again"
        )
    return state


def _sample(model: PreTrainedModel, tokenizer: Tokenizer, step: int, log: RunLog) -> None:
    """Temperature 0.7: a model this small loops when it is greedy."""
    prompts = [tokenizer.encode(text) for text in _PROMPTS]
    found = LocalEngine(model, tokenizer).generate(prompts, Sampling(24, temperature=0.7))
    for text, one in zip(_PROMPTS, found, strict=True):
        log.write({"step": step, "prompt": text, "sample": one.text})


def _bits_per_byte(loss: float | None, valid: npt.NDArray[np.int32], tokenizer: Tokenizer) -> float | None:
    """The validation loss in bits a byte of text: comparable between tokenizers."""
    if loss is None:
        return None
    count = len(tokenizer.decode(valid[1:].tolist()).encode())
    return loss / math.log(2) * (len(valid) - 1) / max(1, count)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
