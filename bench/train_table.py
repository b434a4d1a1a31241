"""What train.py prints: every contestant, where a step's time goes, the issue's table, and its goals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from train_peers import TRL

Found = dict[str, Any]
FORMULA = "6N + 6fH a token (full), 4N + 4fH + 6n (LoRA); N block weights, H head, f trained share, n LoRA weights"
# contestant, what it is; the order in which they take turns
CONTESTANTS = {
    "ours": "Tunesmith, full",
    "trl-best": "TRL, bfloat16 weights, a row at a time, no checkpointing",
    "ours-lora": "Tunesmith, LoRA r16 on all linear layers",
    "trl-lora-best": "TRL, LoRA, bfloat16 weights, a row at a time, no checkpointing",
    "trl-defaults": "TRL, defaults, float32",
    "trl-autocast": "TRL, defaults, bfloat16 autocast",
    "trl-grouped": "TRL, bfloat16 weights, length-grouped, no checkpointing",
    "trl-flat": "TRL, bfloat16 weights, padding_free, no checkpointing",
    "trl-lora-autocast": "TRL, LoRA, bfloat16 autocast",
    "trl-lora-grouped": "TRL, LoRA, bfloat16 weights, length-grouped, no checkpointing",
    "hf": "plain loop, bfloat16 weights, padded",
    "hf-lora": "plain loop, PEFT LoRA, bfloat16 weights, padded",
    "ours-eager": "Tunesmith, full, not compiled",
    "ours-padded": "Tunesmith, full, not compiled, padded instead of packed",
    "ours-autocast": "Tunesmith, full, not compiled, float32 weights under autocast",
    "ours-lora-eager": "Tunesmith, LoRA, not compiled",
}
TRL_FULL, TRL_LORA = (tuple(name for name in TRL if ("lora" in name) == lora) for lora in (False, True))
GOALS = (
    ("ours", TRL_FULL, 3.0),
    ("ours", ("trl-defaults",), 10.0),
    ("ours-lora", TRL_LORA, 3.0),
)  # the fastest of them
TABLE = (
    ("TRL, defaults, float32", ("trl-defaults",), ()),
    ("TRL, defaults, bfloat16 autocast", ("trl-autocast",), ("trl-lora-autocast",)),
    ("TRL, the fastest of those tried", TRL_FULL, TRL_LORA),
    ("plain Hugging Face and PEFT loop", ("hf",), ("hf-lora",)),
    ("Tunesmith, not compiled", ("ours-eager",), ("ours-lora-eager",)),
    ("Tunesmith", ("ours",), ("ours-lora",)),
)


def show(results: Found, missing: dict[str, str], peak: float) -> None:
    print(f"\nuseful work: {FORMULA}; share of {peak / 1e9:,.0f} GFLOP/s (bfloat16, measured in this run)")
    print(f"{'trained tok/s':>13} {'by round':>15} {'share':>6} {'GiB':>6} {'1st step s':>11} {'warm-up s':>10}")
    for name, what in CONTESTANTS.items():
        if name in results:
            one = results[name]
            spread = f"{min(one['by_round']):.0f} to {max(one['by_round']):.0f}"
            starts, warm = ("/".join(f"{s:.0f}" for s in one[key]) for key in ("first_step_seconds", "warm_up_seconds"))
            share = "-" if not peak else f"{one['useful_gflops'] * 1e9 / peak:.0%}"
            print(
                f"{one['trained_tokens_per_second']:>13.0f} {spread:>15} {share:>6} {one['peak_gib']:>6.2f} "
                f"{starts:>11} {warm:>10}  {what}"
            )
        elif name in missing:
            print(f"{'NOT RUN':>13}  {what} ({missing[name]})")
    for name in ("ours", "ours-lora"):
        if results.get(name, {}).get("profile"):
            show_profile(name, results[name]["profile"])
    show_table(results, peak)


def fastest(results: Found, names: Sequence[str]) -> Found | None:
    found = [results[name] for name in names if name in results]
    return max(found, key=lambda one: one["trained_tokens_per_second"], default=None)


def show_table(results: Found, peak: float) -> None:
    """The issue's table, and its goals."""
    print(f"\n{'trained tokens a second':<40}{'full':>10}{'LoRA':>10}")
    for what, *kinds in TABLE:
        cells = [fastest(results, names) for names in kinds]
        speeds = [f"{one['trained_tokens_per_second']:.0f}" if one else "-" for one in cells]
        print(f"{what:<40}{speeds[0]:>10}{speeds[1]:>10}")
    ours = [results.get(name) for name in ("ours", "ours-lora")]
    limits = [peak * one["trained_tokens_per_second"] / one["useful_gflops"] / 1e9 if one else 0.0 for one in ours]
    print(f"{'limit: nothing but matrix products':<40}{limits[0]:>10.0f}{limits[1]:>10.0f}\n")
    for name, theirs, goal in GOALS:
        mine, other = results.get(name), fastest(results, theirs)
        if mine is None or other is None:
            print(f"{name} against {', '.join(theirs)}: NOT RUN")
            continue
        ratio = mine["trained_tokens_per_second"] / other["trained_tokens_per_second"]
        memory = f"memory {mine['peak_gib']:.2f} against {other['peak_gib']:.2f} GiB"
        print(
            f"{name} / {other['name']}: {ratio:.2f} (goal {goal:g}: {'met' if ratio >= goal else 'missed'}); {memory}"
        )


def show_profile(name: str, profile: dict[str, float]) -> None:
    total = sum(profile.values())
    print(f"\none step of {name} under torch.profiler, {total:.2f} s")
    for group, seconds in profile.items():
        print(f"{seconds:>8.3f} s {seconds / total:>5.0%}  {group}")
