"""train: a set and a base to a run. The recipe, in the order in which it happens."""

from __future__ import annotations

import shutil
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from tunesmith.core.artifact import Artifact
from tunesmith.core.config import to_toml
from tunesmith.core.errors import DataError
from tunesmith.core.jsonl import read_json, read_rows, write_json, write_jsonl
from tunesmith.core.project import cache_dir
from tunesmith.core.runlog import say
from tunesmith.model import device as machine
from tunesmith.model import load
from tunesmith.model.shape import stored_parameters
from tunesmith.text.length import Limit, decide_length
from tunesmith.text.render import Renderer
from tunesmith.text.tokenizer import Tokenizer
from tunesmith.train import checkpoint, export, trackers
from tunesmith.train.config import TrainConfig, decide, explain
from tunesmith.train.data import Data, answered, render, select
from tunesmith.train.find_lr import find_lr
from tunesmith.train.plan_memory import as_decided, compared, plan_memory, room
from tunesmith.train.session import fit_model, prepare_model, run_facts, settle
from tunesmith.train.tokens import tokenized
from tunesmith.train.unfinished import check_same, finish, unfinished

PROBES = 4  # rows that are asked before, during and after the training


@dataclass(frozen=True)
class TrainInputs:
    """What is trained on what: `base` as the user named it, `base_path` where the door has found it already.

    `template` as in the project's [task]. `tokens`: where token ids are kept for later runs; None for nowhere.
    """

    set_: Artifact
    base: str
    base_path: Path | None = None
    template: str = "auto"
    tokens: Path | None = None


def run(config: TrainConfig, inputs: TrainInputs, out: Path, *, resume: bool = False) -> Artifact:
    """Train and seal the run at `out`; until then it lies in `out`.partial, from where `resume` goes on.

    Raises Interrupted after Ctrl-C or SIGTERM, with the state saved.
    """
    machine.set_up()
    trackers.check(config.trackers)
    with unfinished(out, resume) as work:
        base = (inputs.base_path or load.resolve(inputs.base)).absolute()  # an adapter names it: from anywhere
        load.check_causal(base)
        tokenizer = Tokenizer.load(load.ensure_fast_tokenizer(base, cache_dir() / "tokenizers"))
        renderer = Renderer(tokenizer, inputs.template, config.train_on)
        context = load.context_length(AutoConfig.from_pretrained(base, local_files_only=True))
        data, limit = _data(config, inputs, renderer, context)
        config = config.model_copy(update={"max_length": limit.max_length})
        found = _found_before(work)
        asked, size = config, (len(data.train.kept), stored_parameters(base))
        config = as_decided(decide(asked, *size, data.train.tokens), found)
        config = settle(config, base, data)
        receipt = _receipt(config, inputs, base, renderer, data) | {"context": context, "longest_row": limit.longest}
        check_same(work, receipt)
        receipt |= found
        _say_rows(data, limit, config.over_length)
        say("\n".join(f"  {line}" for line in explain(asked, config, *size)))
        before_loading = room(base)
        model, computing = prepare_model(config, base, receipt)
        plan = plan_memory(
            config, computing, data.train.kept, tokenizer.pad_id, before_loading, settled="memory" in found
        )
        if plan:
            receipt |= {"memory": plan.facts(asked), "config": plan.config.model_dump(mode="json")}
            config, computing = plan.config, plan.computing
        _write_start(work, config, receipt, data)
        before = export.probe(model, renderer, data.probes)
        if config.find_lr:
            sweep = find_lr(config, model, data, computing, None if computing.packed else tokenizer.pad_id)
            config = config.model_copy(update={"find_lr": False, "learning_rate": sweep.taken.rate})
            receipt |= {"config": config.model_dump(mode="json"), "find_lr": sweep.facts}
            _write_start(work, config, receipt, data)
        machine.forget_peak(computing.device)
        began = checkpoint.newest_step(work / "checkpoints")
        state = fit_model(config, model, renderer, data, work, receipt, computing)
        if plan and state.step > began:  # else nothing was trained in this process
            receipt["memory"] = compared(receipt["memory"], machine.peak_memory_gb(computing.device))
        computing.end(model, base)
        checkpoint.restore_best(work / "checkpoints", model, state)
        shutil.rmtree(work / "model", ignore_errors=True)  # of an attempt that was killed while it wrote
        export.save_model(model.eval(), renderer, work / "model", load.stored_dtype(base))
        with computing.speaking():  # its layers are still compiled, for packed rows
            said = export.probe(model, renderer, data.probes)
        parity = export.verify(work / "model", said, before)
        receipt |= {"parity": parity, **run_facts(state, config, len(data.train.kept))}
        return finish(work, out, receipt)


def summary(run: Artifact) -> dict[str, Any]:
    """The object that `train --json` prints."""
    names = ("method", "base", "steps", "epochs", "train_loss", "val_loss", "trained_tokens", "tokens_per_second")
    more = ("trainable_parameters", "total_parameters", "seconds", "peak_memory_gb")
    facts = run.facts
    return {"run": run.name, "path": str(run.path)} | {name: facts[name] for name in (*names, *more)}


def _data(config: TrainConfig, inputs: TrainInputs, renderer: Renderer, context: int) -> tuple[Data, Limit]:
    """Every row rendered once; the limit is decided from the lengths of all of them."""
    set_ = inputs.set_
    rendered, held_out = (
        tokenized(set_, part, renderer, inputs.tokens)
        if inputs.tokens
        else render(read_rows(set_.path / f"{part}.jsonl"), renderer)
        for part in ("train", "valid")
    )
    limit = decide_length([one.tokens for one in (*rendered, *held_out)], context, config.max_length)
    train = select(rendered, renderer, limit.max_length, config.over_length)
    if not train.kept:
        reasons = ", ".join(sorted({s["reason"] for s in train.skipped})) or "the set is empty"
        what = f"no row of {set_.name} can be trained ({reasons})"
        raise DataError(what, fix="raise max_length, take a base with a longer context, or see the set's report")
    valid = select(held_out, renderer, limit.max_length, config.over_length)
    kept = {e.row_id for e in (*valid.kept, *train.kept)}
    probes = (answered(one.row) for one in (*held_out, *rendered) if one.row.id in kept)
    return Data(train, valid, list(islice(probes, PROBES))), limit


def _receipt(config: TrainConfig, inputs: TrainInputs, base: Path, renderer: Renderer, data: Data) -> dict[str, Any]:
    train, valid = data.train.rows, data.valid.rows
    skipped = {"skipped": _reasons(_skipped(data)), "fitted": _reasons(_fitted(data))}
    return {
        "base": inputs.base,
        "base_path": str(base),
        "base_hash": load.base_hash(base),
        "set": inputs.set_.name,
        "set_path": str(inputs.set_.path),
        "data_hash": inputs.set_.hash,
        "template_hash": renderer.hash,
        "config": config.model_dump(mode="json"),
        "rows": {"in": train + valid + len(_skipped(data)), "train": train, "valid": valid, **skipped},
        "tokens_an_epoch": data.train.tokens,
        "trained_tokens_an_epoch": data.train.trained_tokens,
        "machine": machine.machine_facts(),
    }


def _found_before(work: Path) -> dict[str, Any]:
    """What was found and decided before this run was interrupted: a rate by --find-lr, and how it fits in memory."""
    with suppress(DataError, OSError):
        before = read_json(work / "receipt.json")
        return {key: before[key] for key in ("find_lr", "memory") if key in before}
    return {}


def _skipped(data: Data) -> list[dict[str, Any]]:
    return [*data.train.skipped, *data.valid.skipped]


def _fitted(data: Data) -> list[dict[str, Any]]:
    return [*data.train.fitted, *data.valid.fitted]


def _reasons(notes: list[dict[str, Any]]) -> dict[str, int]:
    return dict(Counter(note["reason"] for note in notes))


def _write_start(work: Path, config: TrainConfig, receipt: dict[str, Any], data: Data) -> None:
    """What a killed run leaves for a reader: its config, its receipt so far, and which rows were skipped or cut."""
    (work / "config.toml").write_text(to_toml("train", config), encoding="utf-8")
    write_json(work / "receipt.json", receipt)
    write_jsonl(work / "skipped.jsonl", _skipped(data))
    write_jsonl(work / "fitted.jsonl", _fitted(data))


def _say_rows(data: Data, limit: Limit, policy: str) -> None:
    """The limit and why, what became of longer rows, and the first few that are not trained."""
    skipped, fitted = _skipped(data), _fitted(data)
    say(f"  {limit}")
    longer = _reasons([*fitted, *(one for one in skipped if one["reason"] == "too_long")])
    if longer:
        ways = ", ".join(f"{count} {'left out' if way == 'too_long' else way}" for way, count in longer.items())
        say(f"  {sum(longer.values())} rows are longer: {ways} (over_length = {policy})")
    for one in skipped[:5]:
        say(f"  skipped {one['source']}:{one['line']}: {one['reason']} ({one['detail']})")
    if len(skipped) > 5:
        say(f"  ... {len(skipped)} rows skipped in all; each is in skipped.jsonl")
    if fitted:
        say("  each row that was trimmed or split is in fitted.jsonl")
