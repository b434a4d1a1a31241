"""Generation speed: Tunesmith against transformers' `generate` and its continuous batching, on this machine.

    python bench/generate.py [--requests 1 8 32 128] [--rounds 3] [--only NAME ...] [--gate-only]

The shape is SmolLM2-135M's with seeded random weights in bfloat16; prompts are 16 to 200 random tokens, each request
has its own limit of 16 to 160 new tokens, nothing stops earlier, greedy. A contestant is given all requests at once,
in the same order. Tokens are counted here: those that a request asked for; what a batch makes beyond a row's limit
is not counted. All contestants take turns in one process; speed is tokens by the median time of the rounds.

First the gate, over 8 requests that are cut at 48 new tokens: in float32 every token must be `generate`'s, one
unpadded request at a time, but where the reference's two best logits are closer than 1e-4 (counted). In bfloat16
rounding decides between near equals, for every contestant: there the float32 logits of the two tokens that first
differ may not be further apart than four times the noise of `generate`'s own bfloat16 logits. A contestant of ours
that fails has no speed. 8-bit weights are another model: what they change is measured and printed instead.
Writes bench/out/generate.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

import torch
from machine import card
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel
from transformers.generation.continuous_batching.utils import WorkloadHints

from tunesmith.engine import weights
from tunesmith.engine.base import Sampling
from tunesmith.engine.local import LocalEngine
from tunesmith.model.device import pick_device, set_threads
from tunesmith.model.load import quiet

OUT = Path(__file__).resolve().parent / "out/generate.json"
VOCABULARY, PROMPT, ANSWER = 49152, (16, 200), (16, 160)
GATED, GATED_TOKENS = 8, 48
NEAR, NOISES = 1e-4, 4.0  # logits; see above
GOAL, GOAL_AT = 3.0, 32  # times `generate` in batches of 8
PEER = "hf-8"
CONTESTANTS = {
    "ours": "Tunesmith",
    "ours-int8": "Tunesmith, 8-bit weights",
    PEER: "generate, batches of 8",
    "hf-32": "generate, batches of 32",
    "hf-continuous": "transformers' continuous batching",
}
Requests = Sequence[tuple[list[int], int]]
Outputs = list[list[int]]


@dataclass(frozen=True)
class NoText:
    """A tokenizer that is never asked for text that matters, and has no end."""

    eos_id: int = -1

    def decode(self, ids: Sequence[int], keep_special: bool = False) -> str:
        return ""


def requests(count: int) -> Requests:
    random = Random(0)
    lengths = [(random.randint(*PROMPT), random.randint(*ANSWER)) for _ in range(count)]
    return [([random.randrange(1, VOCABULARY) for _ in range(prompt)], answer) for prompt, answer in lengths]


def make(dtype: torch.dtype) -> PreTrainedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=VOCABULARY,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
        max_position_embeddings=8192,
        initializer_range=0.041666666666666664,
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16).to(dtype).to(pick_device()).eval()
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, 0
    return model


def ours(model: PreTrainedModel, asked: Requests) -> Outputs:
    engine = LocalEngine(model, NoText())
    engine.stop_ids = frozenset()
    found = engine.generate([prompt for prompt, _ in asked], [Sampling(max_new_tokens=n) for _, n in asked])
    return [list(one.ids) for one in found]


def in_batches(size: int) -> Callable[[PreTrainedModel, Requests], Outputs]:
    def generate(model: PreTrainedModel, asked: Requests) -> Outputs:
        return [ids for at in range(0, len(asked), size) for ids in batch(model, asked[at : at + size])]

    return generate


def batch(model: PreTrainedModel, asked: Requests) -> Outputs:
    """Padded on the left; everybody goes on until the last has what it asked for."""
    width = max(len(prompt) for prompt, _ in asked)
    rows = [
        ([0] * (width - len(prompt)) + prompt, [0] * (width - len(prompt)) + [1] * len(prompt)) for prompt, _ in asked
    ]
    ids, mask = (torch.tensor(part, device=model.device) for part in zip(*rows, strict=True))
    found = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=max(n for _, n in asked), do_sample=False)
    return [row[width : width + n] for row, (_, n) in zip(found.tolist(), asked, strict=True)]


def continuous(model: PreTrainedModel, asked: Requests) -> Outputs:
    """Each request with its own limit, which `generate_batch` itself has no argument for."""
    longest = max(len(prompt) for prompt, _ in asked)
    hints = WorkloadHints(longest, max(n for _, n in asked), len(asked))
    before, found = model.config._attn_implementation, dict[str, list[int]]()
    with quiet(), model.continuous_batching_context_manager(workload_hints=hints) as manager:
        for number, (prompt, n) in enumerate(asked):
            manager.add_request(prompt, request_id=str(number), max_new_tokens=n, eos_token_id=-1)
        while len(found) < len(asked):
            one = manager.get_result(timeout=1)
            if one is None and not manager.is_running():
                raise RuntimeError("transformers' continuous batching stopped by itself")
            if one is not None and one.is_finished():
                found[one.request_id] = list(one.generated_tokens)
    model.set_attn_implementation(before)
    return [found[str(number)] for number in range(len(asked))]


RUN = {"ours": ours, "ours-int8": ours, PEER: in_batches(8), "hf-32": in_batches(32), "hf-continuous": continuous}


def models(only: Sequence[str]) -> tuple[dict[str, PreTrainedModel], dict[str, Any]]:
    """Each contestant's model: the peers share one; and what 8-bit weights changed."""
    plain = make(torch.bfloat16)
    found, facts = {name: plain for name in only}, dict[str, Any]()
    if "ours" in only:
        found["ours"] = make(torch.bfloat16)
        facts["packed"] = weights.pack(found["ours"])  # as `load_engine` does
    if "ours-int8" in only:
        found["ours-int8"] = make(torch.bfloat16)
        quality = weights.round_to_int8(found["ours-int8"], [prompt for prompt, _ in requests(8)])
        facts["int8"] = {"tokens": quality.tokens, "kl": quality.kl, "same_top": quality.same_top}
        print(f"8-bit weights: {quality}")
    return found, facts


def gate(found: dict[str, PreTrainedModel], asked: Requests) -> tuple[dict[str, Any], bool]:
    """Whether ours generates what transformers does."""
    wide = make(torch.float32)
    reference = in_batches(1)(wide, asked)
    facts, passed = dict[str, Any](), True
    same, gaps = compare(wide, asked, reference, ours(wide, asked))
    facts["float32"] = {"requests": len(asked), "equal": same, "gaps": gaps}
    passed = passed and all(gap <= NEAR for gap in gaps)
    print(f"gate, float32: {same} of {len(asked)} outputs equal; {len(gaps)} near ties within {NEAR:g}")
    noise = rounding(wide, found[PEER], asked, reference)
    theirs = RUN[PEER](found[PEER], asked)
    for name in [name for name in ("ours", "hf-32", "hf-continuous") if name in found]:
        same, gaps = compare(wide, asked, theirs, RUN[name](found[name], asked))
        worst = max(gaps, default=0.0)
        facts[f"bfloat16, {name}"] = {"equal": same, "gaps": gaps, "noise": noise}
        passed = passed and (name != "ours" or worst <= NOISES * noise)
        print(f"      bfloat16, {name}: {same} of {len(asked)} equal to generate's in batches of 8; where one differs,")
        print(f"      its first other token is at most {worst:.3f} below in float32 (rounding: {noise:.3f} rms)")
    return facts, passed


@torch.inference_mode()
def compare(wide: PreTrainedModel, asked: Requests, want: Outputs, got: Outputs) -> tuple[int, list[float]]:
    """(equal outputs, for each other one how far apart the float32 logits are of the two tokens that first differ)."""
    gaps = []
    for (prompt, _), one, two in zip(asked, want, got, strict=True):
        if one != two:
            at = next(n for n, (a, b) in enumerate(zip(one, two, strict=True)) if a != b)
            logits = wide(torch.tensor([prompt + one[:at]], device=wide.device), logits_to_keep=1).logits[0, -1]
            gaps.append(abs(float(logits[one[at]] - logits[two[at]])))
    return len(asked) - len(gaps), gaps


@torch.inference_mode()
def rounding(wide: PreTrainedModel, narrow: PreTrainedModel, asked: Requests, outputs: Outputs) -> float:
    """How far the bfloat16 logits lie from the float32 ones, in the root of the mean square."""
    squares = []
    for (prompt, _), ids in zip(asked, outputs, strict=True):
        given = torch.tensor([prompt + ids], device=wide.device)
        one, two = (model(given, logits_to_keep=len(ids)).logits.float() for model in (wide, narrow))
        squares.append(float((one - two).square().mean()))
    return statistics.fmean(squares) ** 0.5


def speeds(found: dict[str, PreTrainedModel], count: int, rounds: int) -> dict[str, Any]:
    """Everybody in turn, after a short warm-up."""
    asked = requests(count)
    tokens = sum(n for _, n in asked)
    seconds: dict[str, list[float]] = {name: [] for name in found}
    for name, model in found.items():
        RUN[name](model, [(prompt, 4) for prompt, _ in asked[:8]])
    for number in range(rounds):
        for name, model in found.items():
            start = time.perf_counter()
            outputs = RUN[name](model, asked)
            seconds[name].append(time.perf_counter() - start)
            assert [len(ids) for ids in outputs] == [n for _, n in asked]
            print(f"{count} requests, round {number + 1}: {name} {seconds[name][-1]:.1f} s", file=sys.stderr)
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        name: {
            "tokens_per_second": round(tokens / middle[name], 1),
            "times_hf_8": round(middle[PEER] / middle[name], 2) if PEER in middle else None,
            "by_round": [round(tokens / one, 1) for one in times],
        }
        for name, times in seconds.items()
    }


def show(results: dict[str, dict[str, Any]]) -> None:
    print(f"\n{'requests':>8}  {'contestant':34} {'tokens/s':>8}  {'x hf-8':>6}  rounds")
    for count, by_name in results.items():
        for name, one in by_name.items():
            rounds, times = " ".join(map(str, one["by_round"])), one["times_hf_8"] or ""
            print(f"{count:>8}  {CONTESTANTS[name]:34} {one['tokens_per_second']:>8}  {times:>6}  {rounds}")
    reached = results.get(str(GOAL_AT), {}).get("ours", {}).get("times_hf_8")
    if reached is None:
        print("goal: NOT RUN")
    else:
        print(f"goal: {GOAL:g} x generate in batches of 8 at {GOAL_AT} requests; {reached:.2f} x: ", end="")
        print("reached" if reached >= GOAL else "missed")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--gate-only", action="store_true")
    options = parser.parse_args()
    facts: dict[str, Any] = {"machine": card() | {name: version(name) for name in ("torch", "transformers")}}
    facts |= {"device": str(pick_device()), "threads": set_threads(), "prompt": PROMPT, "answer": ANSWER}
    found, more = models(list(dict.fromkeys(["ours", PEER, *options.only])))
    facts["gate"], passed = gate(found, [(prompt, min(n, GATED_TOKENS)) for prompt, n in requests(GATED)])
    if not passed:
        print("the gate failed: ours does not generate what transformers does, so no speed is measured")
        return 1
    if options.gate_only:
        return 0
    facts |= more | {"rounds": options.rounds}
    facts["results"] = {
        str(n): speeds({k: found[k] for k in options.only}, n, options.rounds) for n in options.requests
    }
    show(facts["results"])
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
