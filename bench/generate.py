"""Generation speed: Tunesmith against transformers' `generate` and its continuous batching, on this machine.

    python bench/generate.py [--requests 1 8 32 128] [--rounds 3] [--only NAME ...] [--prefix "nice -n -5"]

The shape is SmolLM2-135M's with seeded random weights in bfloat16; prompts are 16 to 200 random tokens, each request
has its own limit of 16 to 160 new tokens, nothing stops earlier, greedy. A contestant is given all requests at once,
in the same order. Tokens are counted here: those that a request asked for; what a batch makes beyond a row's limit
is not counted. Contestants take turns, each time in a process of its own; speed is tokens by the median time of the
rounds, without loading and a short warm-up.

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
import shlex
import statistics
import subprocess
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
from transformers import ContinuousBatchingConfig, LlamaConfig, LlamaForCausalLM, PreTrainedModel
from transformers.generation.continuous_batching.utils import WorkloadHints

from tunesmith.engine import weights
from tunesmith.engine.base import Sampling
from tunesmith.engine.local import LocalEngine
from tunesmith.model.device import pick_device, set_up
from tunesmith.model.load import quiet

OUT = Path(__file__).resolve().parent / "out/generate.json"
VOCABULARY, PROMPT, ANSWER = 49152, (16, 200), (16, 160)
GATED, GATED_TOKENS = 8, 48
LIMIT_SECONDS = 1800  # a process
NEAR, NOISES = 1e-4, 4.0  # logits; see above
PAGES = 300  # of 256 tokens each: enough for all requests of the largest number at once
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
    """Each request with its own limit, which `generate_batch` itself has no argument for.

    Left alone it takes most of the machine's memory, and 19 s to do so; like this it starts in half a second, which
    is counted: one that was kept to be used again (`persistent_manager`) never answered the second time.
    """
    hints = WorkloadHints(max(len(prompt) for prompt, _ in asked), max(n for _, n in asked), len(asked))
    settings = ContinuousBatchingConfig(num_blocks=PAGES, max_batch_tokens=2048)
    manager_of = model.continuous_batching_context_manager
    found = dict[str, list[int]]()
    with quiet(), manager_of(continuous_batching_config=settings, workload_hints=hints) as manager:
        for number, (prompt, n) in enumerate(asked):
            manager.add_request(prompt, request_id=str(number), max_new_tokens=n, eos_token_id=-1)
        while len(found) < len(asked):
            one = manager.get_result(timeout=1)
            if one is None and not manager.is_running():
                raise RuntimeError("transformers' continuous batching stopped by itself")
            if one is not None and one.is_finished():
                found[one.request_id] = list(one.generated_tokens)
    return [found[str(number)] for number in range(len(asked))]


RUN = {"ours": ours, "ours-int8": ours, PEER: in_batches(8), "hf-32": in_batches(32), "hf-continuous": continuous}


def model_of(name: str) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A contestant's model, and what 8-bit weights changed."""
    model, facts = make(torch.bfloat16), dict[str, Any]()
    if name == "ours":
        facts["packed"] = weights.pack(model)  # as `load_engine` does
    if name == "ours-int8":
        quality = weights.round_to_int8(model, [prompt for prompt, _ in requests(8)])
        facts["int8"] = {"tokens": quality.tokens, "kl": quality.kl, "same_top": quality.same_top}
        facts["said"] = f"8-bit weights: {quality}"
    return model, facts


def turn(name: str, count: int, most: int) -> dict[str, Any]:
    """One contestant's run in this process; `most` cuts the answers."""
    set_up()
    asked = [(prompt, min(n, most)) for prompt, n in requests(count)]
    model, facts = model_of(name)
    RUN[name](model, [(prompt, 4) for prompt, _ in asked[:8]])
    start = time.perf_counter()
    outputs = RUN[name](model, asked)
    seconds = time.perf_counter() - start
    assert [len(ids) for ids in outputs] == [n for _, n in asked]
    return {**facts, "seconds": seconds, "outputs": outputs}


def in_process(name: str, count: int, most: int = ANSWER[1], prefix: str = "") -> dict[str, Any]:
    command = [*shlex.split(prefix), sys.executable, __file__, "--turn", name, str(count), str(most)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    if done.returncode:
        raise RuntimeError(f"{name} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def gate(only: Sequence[str]) -> tuple[dict[str, Any], bool]:
    """Whether ours generates what transformers does."""
    asked = [(prompt, min(n, GATED_TOKENS)) for prompt, n in requests(GATED)]
    wide, narrow = make(torch.float32), make(torch.bfloat16)
    reference = in_batches(1)(wide, asked)
    same, gaps = compare(wide, asked, reference, ours(wide, asked))
    facts: dict[str, Any] = {"float32": {"requests": len(asked), "equal": same, "gaps": gaps}}
    passed = all(gap <= NEAR for gap in gaps)
    print(f"gate, float32: {same} of {len(asked)} outputs equal; {len(gaps)} near ties within {NEAR:g}")
    noise, theirs = rounding(wide, narrow, asked, reference), in_batches(8)(narrow, asked)
    alone = in_batches(1)(narrow, asked)
    outputs = {
        name: in_process(name, GATED, GATED_TOKENS)["outputs"] for name in ("ours", "hf-continuous") if name in only
    }
    for name, found in {"generate, one by one": alone, **outputs}.items():
        same, gaps = compare(wide, asked, theirs, found)
        worst = max(gaps, default=0.0)
        facts[f"bfloat16, {name}"] = {"equal": same, "gaps": gaps, "noise": noise}
        passed = passed and (name != "ours" or worst <= NOISES * noise)
        print(
            f"      bfloat16, {name}: {same} of {len(asked)} equal to generate's in one batch; where one differs, its"
        )
        print(f"      first other token is at most {worst:.3f} away in float32 (rounding: {noise:.3f} rms)")
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


def speeds(only: Sequence[str], count: int, rounds: int, prefix: str, pause: float) -> dict[str, Any]:
    """Everybody in turn."""
    tokens = sum(n for _, n in requests(count))
    seconds: dict[str, list[float]] = {name: [] for name in only}
    for number in range(rounds):
        for name in only:
            time.sleep(pause)
            done = in_process(name, count, prefix=prefix)
            seconds[name].append(done["seconds"])
            if number == 0 and "said" in done:
                print(done["said"])
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
    parser.add_argument("--prefix", default="", help="put before the command of each timed process")
    parser.add_argument(
        "--pause", type=float, default=0.0, help="seconds before each timed process: for shared machines"
    )
    parser.add_argument("--turn", nargs=3, metavar=("NAME", "REQUESTS", "TOKENS"), help="one run, printed as JSON")
    options = parser.parse_args()
    if options.turn:
        print(json.dumps(turn(options.turn[0], *map(int, options.turn[1:]))))
        return 0
    facts: dict[str, Any] = {"machine": card() | {name: version(name) for name in ("torch", "transformers")}}
    facts |= {"device": str(pick_device()), "threads": set_up(), "prompt": PROMPT, "answer": ANSWER}
    facts["gate"], passed = gate(options.only)
    if not passed:
        print("the gate failed: ours does not generate what transformers does, so no speed is measured")
        return 1
    facts |= {"rounds": options.rounds}
    facts["results"] = {
        str(n): speeds(options.only, n, options.rounds, options.prefix, options.pause) for n in options.requests
    }
    show(facts["results"])
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
