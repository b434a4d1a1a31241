"""From a trained model to a directory that any other tool loads, and the proof that it is what was trained."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import GenerationConfig, PreTrainedModel

from tunesmith.core.errors import ModelError, TunesmithError
from tunesmith.core.jsonl import read_json, write_json
from tunesmith.core.records import Row
from tunesmith.engine.base import Sampling
from tunesmith.engine.local import LocalEngine
from tunesmith.model.load import quiet
from tunesmith.text.render import Renderer
from tunesmith.train.data import question_and_answer

_PROBES = 4  # prompts compared between trainer, base and the fresh process
_PROBE_TOKENS = 24


@dataclass(frozen=True)
class Probe:
    """What a model says to fixed prompts: greedy token ids, and log-probabilities of the true answers."""

    rows: list[dict[str, Any]]
    prompts: list[list[int]]
    outputs: list[list[int]]
    logprobs: list[float]


def probe(model: PreTrainedModel, renderer: Renderer, rows: Sequence[Row]) -> Probe:
    """Ask the model the first few prompts."""
    engine = LocalEngine(model, renderer.tokenizer, stop_ids=renderer.stop_ids)
    asked = [question_and_answer(row, renderer) for row in rows[:_PROBES]]
    prompts = [prompt for prompt, _ in asked]
    outputs = engine.generate(prompts, Sampling(max_new_tokens=_PROBE_TOKENS))
    scores = engine.score([(prompt, answer[:_PROBE_TOKENS]) for prompt, answer in asked])
    logprobs = [lp for s in scores for lp in s.logprobs]
    return Probe([r.to_json() for r in rows[:_PROBES]], prompts, [list(o.ids) for o in outputs], logprobs)


def save_model(model: PreTrainedModel | PeftModel, renderer: Renderer, folder: Path, dtype: torch.dtype) -> None:
    """Write weights in `dtype` (adapters in float32), tokenizer with its template, and a generation config that stops.

    The weights are rounded in place, so that what is asked of `model` afterwards is what was saved.
    """
    folder.mkdir()
    config = GenerationConfig.from_model_config(model.config)
    config.eos_token_id = sorted({*renderer.stop_ids, renderer.tokenizer.eos_id})
    config.pad_token_id = renderer.tokenizer.pad_id
    with quiet():
        if isinstance(model, PeftModel):
            model.get_base_model().generation_config = config
        else:
            model.to(dtype)
            model.generation_config = config
        model.save_pretrained(folder)
        config.save_pretrained(folder)
    renderer.tokenizer.save(folder)


def verify(folder: Path, trained: Probe, before: Probe) -> dict[str, Any]:
    """Load the directory in a fresh process and compare. Returns the parity receipt.

    Raises ModelError when the artifact speaks differently from the trainer, or exactly like the base.
    """
    change = max((abs(a - b) for a, b in zip(trained.logprobs, before.logprobs, strict=True)), default=0.0)
    if change == 0.0:
        what = "training changed nothing: the tuned model gives exactly the base's probabilities"
        raise ModelError(what, fix="raise --learning-rate or --max-steps")
    fresh = _ask_fresh(folder, trained.rows)
    same_prompts, same_outputs = fresh["prompts"] == trained.prompts, fresh["outputs"] == trained.outputs
    if not (same_prompts and same_outputs):
        part = "outputs" if same_prompts else "prompt ids"
        raise ModelError(f"the saved model is not the trained one: its {part} differ when it is loaded again")
    return {
        "prompts": len(trained.prompts),
        "prompt_ids_equal": same_prompts,
        "greedy_ids_equal": same_outputs,
        "largest_logprob_change_from_base": change,
        "outputs_that_differ_from_base": sum(a != b for a, b in zip(trained.outputs, before.outputs, strict=True)),
    }


def _ask_fresh(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        ask, answer = Path(scratch, "ask.json"), Path(scratch, "answer.json")
        write_json(ask, {"rows": rows, "threads": torch.get_num_threads()})
        command = [sys.executable, "-m", "tunesmith.train.export", str(folder), str(ask), str(answer)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ModelError(f"the saved model cannot be loaded again: {last}")
        found: dict[str, Any] = json.loads(answer.read_text("utf-8"))
        return found


def _answer_fresh(folder: Path, ask: Path, answer: Path) -> None:
    """The other side of `verify`: load what was saved, as a stranger would, and say what it says."""
    from tunesmith.model.device import set_up
    from tunesmith.model.load import load_trained, stored_dtype
    from tunesmith.text.tokenizer import Tokenizer

    asked = read_json(ask)
    set_up()
    torch.set_num_threads(asked["threads"])
    renderer = Renderer(Tokenizer.load(folder))
    prompts = [question_and_answer(Row.from_json(row), renderer)[0] for row in asked["rows"]]
    model = load_trained(folder, stored_dtype(folder))
    engine = LocalEngine(model, renderer.tokenizer, stop_ids=renderer.stop_ids)
    outputs = engine.generate(prompts, Sampling(max_new_tokens=_PROBE_TOKENS))
    answer.write_text(json.dumps({"prompts": prompts, "outputs": [list(o.ids) for o in outputs]}), encoding="utf-8")


if __name__ == "__main__":
    try:
        _answer_fresh(*map(Path, sys.argv[1:4]))
    except TunesmithError as error:
        sys.exit(error.what)
