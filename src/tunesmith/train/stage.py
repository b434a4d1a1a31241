"""train: a set and a base to a run. The recipe, in the order in which it happens."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from tunesmith.core.artifact import Artifact
from tunesmith.core.config import to_toml
from tunesmith.core.errors import DataError
from tunesmith.core.jsonl import read_rows, write_json, write_jsonl
from tunesmith.core.project import cache_dir
from tunesmith.core.runlog import say
from tunesmith.model import device as machine
from tunesmith.model import load
from tunesmith.model.shape import stored_parameters
from tunesmith.text.length import OverLength
from tunesmith.text.render import Renderer
from tunesmith.text.tokenizer import Tokenizer
from tunesmith.train import checkpoint, export
from tunesmith.train.config import TrainConfig, decide
from tunesmith.train.data import Data, answered, build
from tunesmith.train.session import fit_model, prepare_model, run_facts
from tunesmith.train.unfinished import check_same, finish, unfinished


@dataclass(frozen=True)
class TrainInputs:
    """What is trained on what: `base` as the user named it, `base_path` where the door has found it already.

    `template` as in the project's [task].
    """

    set_: Artifact
    base: str
    base_path: Path | None = None
    template: str = "auto"


def run(config: TrainConfig, inputs: TrainInputs, out: Path, *, resume: bool = False) -> Artifact:
    """Train and seal the run at `out`; until then it lies in `out`.partial, from where `resume` goes on.

    Raises Interrupted after Ctrl-C or SIGTERM, with the state saved.
    """
    machine.set_threads()
    with unfinished(out, resume) as work:
        base = (inputs.base_path or load.resolve(inputs.base)).absolute()  # an adapter names it: from anywhere
        load.check_causal(base)
        tokenizer = Tokenizer.load(load.ensure_fast_tokenizer(base, cache_dir() / "tokenizers"))
        renderer = Renderer(tokenizer, inputs.template, config.train_on)
        context = load.context_length(AutoConfig.from_pretrained(base, local_files_only=True))
        data = _data(inputs.set_, renderer, min(config.max_length or context, context), config.over_length)
        config = decide(config, len(data.train.kept), stored_parameters(base))
        receipt = _receipt(config, inputs, base, renderer, data)
        check_same(work, receipt)
        _write_start(work, config, receipt, data)
        model, dtype = prepare_model(config, base, receipt)
        before = export.probe(model, renderer, data.probes)
        state = fit_model(config, model, renderer, data, work, receipt, dtype)
        checkpoint.restore_best(work / "checkpoints", model, state)
        shutil.rmtree(work / "model", ignore_errors=True)  # of an attempt that was killed while it wrote
        export.save_model(model.eval(), renderer, work / "model", load.stored_dtype(base))
        parity = export.verify(work / "model", export.probe(model, renderer, data.probes), before)
        receipt |= {"parity": parity, **run_facts(state, config, len(data.train.kept))}
        return finish(work, out, receipt)


def summary(run: Artifact) -> dict[str, Any]:
    """The object that `train --json` prints."""
    names = ("method", "base", "steps", "epochs", "train_loss", "val_loss", "trained_tokens", "tokens_per_second")
    more = ("trainable_parameters", "total_parameters", "seconds", "peak_memory_gb")
    facts = run.facts
    return {"run": run.name, "path": str(run.path)} | {name: facts[name] for name in (*names, *more)}


def _data(set_: Artifact, renderer: Renderer, max_length: int, policy: OverLength) -> Data:
    rows = list(read_rows(set_.path / "train.jsonl"))
    train = build(rows, renderer, max_length, policy)
    if not train.kept:
        reasons = ", ".join(sorted({s["reason"] for s in train.skipped})) or "the set is empty"
        what = f"no row of {set_.name} can be trained ({reasons})"
        raise DataError(what, fix="raise max_length, take a base with a longer context, or see the set's report")
    valid_rows = list(read_rows(set_.path / "valid.jsonl"))
    valid = build(valid_rows, renderer, max_length, policy)
    kept = {e.row_id for e in (*valid.kept, *train.kept)}
    probes = [answered(row) for row in (*valid_rows, *rows) if row.id in kept]
    return Data(train, valid, probes)


def _receipt(config: TrainConfig, inputs: TrainInputs, base: Path, renderer: Renderer, data: Data) -> dict[str, Any]:
    skipped: dict[str, int] = {}
    for one in (*data.train.skipped, *data.valid.skipped):
        skipped[one["reason"]] = skipped.get(one["reason"], 0) + 1
    return {
        "base": inputs.base,
        "base_path": str(base),
        "base_hash": load.base_hash(base),
        "set": inputs.set_.name,
        "set_path": str(inputs.set_.path),
        "data_hash": inputs.set_.hash,
        "template_hash": renderer.hash,
        "config": config.model_dump(mode="json"),
        "rows": {"train": data.train.rows, "valid": data.valid.rows, "skipped": skipped, "fitted": len(_fitted(data))},
        "tokens_an_epoch": data.train.tokens,
        "trained_tokens_an_epoch": data.train.trained_tokens,
        "machine": machine.machine_facts(),
    }


def _fitted(data: Data) -> list[dict[str, Any]]:
    return [*data.train.fitted, *data.valid.fitted]


def _write_start(work: Path, config: TrainConfig, receipt: dict[str, Any], data: Data) -> None:
    """What a killed run leaves for a reader: its config, its receipt so far, and what was skipped."""
    (work / "config.toml").write_text(to_toml("train", config), encoding="utf-8")
    write_json(work / "receipt.json", receipt)
    skipped = [*data.train.skipped, *data.valid.skipped]
    write_jsonl(work / "skipped.jsonl", skipped)
    write_jsonl(work / "fitted.jsonl", _fitted(data))
    if fitted := _fitted(data):
        say(f"  {len(fitted)} rows were too long and were trimmed or split; each is in fitted.jsonl")
    for one in skipped[:5]:
        say(f"  skipped {one['source']}:{one['line']}: {one['reason']} ({one['detail']})")
    if len(skipped) > 5:
        say(f"  ... {len(skipped)} rows skipped in all; each is in skipped.jsonl")
