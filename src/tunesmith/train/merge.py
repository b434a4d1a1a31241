"""A run's adapter added into its base: a plain model directory, as fast as the base, and what the rounding changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tunesmith.core.artifact import Artifact, seal, writing
from tunesmith.core.errors import ModelError, UsageError
from tunesmith.core.records import Row
from tunesmith.core.runlog import say
from tunesmith.model import load
from tunesmith.model.adapter import merged
from tunesmith.text.render import Renderer
from tunesmith.text.tokenizer import Tokenizer
from tunesmith.train.data import question_and_answer
from tunesmith.train.export import save_model

TOLERANCE = 0.01  # nats a token: a hundredth of perplexity
ROWS, TOKENS = 8, 32  # held-out rows that are compared, and tokens of each answer


def merge(run: Artifact, rows: Sequence[Row], out: Path, tolerance: float = TOLERANCE) -> Artifact:
    """Seal at `out` a run like `run` whose model is one piece. `rows`: what both are compared on.

    Compared is what was saved, loaded again. Raises UsageError where there is no adapter, and ModelError where the
    mean divergence KL(adapter || merged) of the next-token distributions is above `tolerance` (nats a token).
    """
    folder = run.path / "model"
    if not (folder / "adapter_config.json").is_file():
        raise UsageError(f"{run.name} has no adapter to merge", fix=f"use it as it is: {folder}")
    renderer = Renderer(Tokenizer.load(folder))
    dtype = load.stored_dtype(folder)
    model = load.load_trained(folder, dtype)
    asked = [question_and_answer(row, renderer) for row in rows[:ROWS]]
    with writing(out) as work:
        before = [_answer_logprobs(model, *one) for one in asked]
        save_model(merged(model), renderer, work / "model", dtype)
        plain = load.load_model(work / "model", dtype)
        facts = _compare(before, [_answer_logprobs(plain, *one) for one in asked])
        say(f"  merged: KL {facts['kl_mean']:.1e} nats a token on average, {facts['kl_max']:.1e} at most")
        if not facts["kl_mean"] <= tolerance:
            what = f"merging {run.name} changes what it says: {facts['kl_mean']:.2g} nats a token"
            fix = "serve the adapter unmerged, or train on a base that is stored in float32"
            raise ModelError(what, expected=f"at most {tolerance:g}", fix=fix)
        return seal(work, out, "run", {**run.facts, "method": "merged", "merged_from": run.name, "merge": facts})


def _compare(before: list[Tensor], after: list[Tensor]) -> dict[str, Any]:
    """Of log-probabilities (tokens, vocabulary): the divergence of each position, and how often the first choice stays.

    Raises ModelError where there is nothing to compare on: an unmeasured merge is not written.
    """
    one, other = torch.cat(before or [torch.empty(0, 1)]), torch.cat(after or [torch.empty(0, 1)])
    if not len(one):
        raise ModelError("the set has no held-out answer to compare the merged model on", fix="tunesmith prepare")
    kl = (one.exp() * (one - other)).sum(-1).double()
    same = (one.argmax(-1) == other.argmax(-1)).double().mean()
    found = {"kl_mean": kl.mean(), "kl_max": kl.max(), "first_choice_equal": same}
    return {"tokens": len(one), **{name: float(value) for name, value in found.items()}}


@torch.no_grad()
def _answer_logprobs(model: PreTrainedModel, prompt: list[int], answer: list[int]) -> Tensor:
    """Float32 log-probabilities (tokens, vocabulary) of what follows each place before an answer's first tokens."""
    answer = answer[:TOKENS]
    ids = torch.tensor([[*prompt, *answer]], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    return logits.float().log_softmax(-1).cpu()
