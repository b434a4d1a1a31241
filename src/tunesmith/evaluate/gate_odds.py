"""How often the gate is wrong: its own decision over simulated models of which the truth is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from tunesmith.evaluate.gate import EXIT, GateConfig, Z, decide
from tunesmith.metrics.stats import paired

RUNS = 1000
TRUTHS = (0.0, -0.05, -0.1, -0.2, 0.05, 0.1, 0.2)  # tuned - base, on the metric that decides
USUAL = 0.1  # of the rows change sides between two copies of a model with noisy answers, where nobody measured it


@dataclass(frozen=True)
class Shape:
    """The size of the evidence: rows that decide, of each task, and of each suite (rows, share that is required, share
    that passes in truth).

    `noise`: the share of rows on which two equally good models disagree.
    """

    rows: int = 100
    tasks: tuple[int, ...] = (40,) * 7 + (24,)
    suites: tuple[tuple[int, float, float], ...] = ()
    noise: float = USUAL

    @classmethod
    def of(cls, evidence: Mapping[str, Any]) -> Shape:
        """That of evidence at hand; groups count as one row each, and the noise is what its interval tells."""
        quality = evidence["quality"] or {}
        suites = tuple((one["n"], one["required"], _rate(one)) for one in evidence["suites"])
        rows = quality.get("clusters") or quality.get("n") or cls.rows
        return cls(rows, tuple(one["n"] for one in evidence["forgetting"]), suites, _noise(quality, rows))


def _rate(suite: Mapping[str, Any]) -> float:
    """The share that was seen to pass; no less than is required: what is simulated is good enough."""
    return float(max(suite["required"], suite["passed"] / suite["n"] if suite["n"] else 0.0))


def _noise(quality: Mapping[str, Any], rows: int) -> float:
    """The variance of a row's difference, which is the share of rows that differ, where scores are 0 or 1."""
    if quality.get("low") is None:
        return USUAL
    error = (quality["high"] - quality["low"]) / (2 * Z)
    return float(min(1.0, max(0.02, rows * error**2)))


def odds(config: GateConfig, shape: Shape, runs: int = RUNS, seed: int = 0) -> list[dict[str, Any]]:
    """For each truth the share of the decisions, and of claims that the tuned model is better.

    Tasks are as good as the base, and suites as good as is required: a block for their sake is a false alarm.
    """
    random = np.random.default_rng(seed)
    return [_odds(config, shape, truth, runs, random) for truth in TRUTHS]


def _odds(config: GateConfig, shape: Shape, truth: float, runs: int, random: np.random.Generator) -> dict[str, Any]:
    found: Counter[str] = Counter()
    for evidence in draws(shape, truth, runs, random):
        made = decide(config, evidence)
        found[made["decision"]] += 1
        found["better"] += made["better"]
        found["wrong"] += _wrong(config, truth, made)
    return {"difference": truth} | {key: found[key] / runs for key in (*EXIT, "better", "wrong")}


def _wrong(config: GateConfig, truth: float, made: Mapping[str, Any]) -> bool:
    """Of equal models a false alarm: to block one or to praise one; of worse ones a miss: to ship one or to praise it;
    of better ones to block them. To say that it cannot be told is never wrong."""
    blocked, shipped = made["decision"] == "do not ship", made["decision"] == "ship"
    if truth > 0:
        return bool(blocked)
    return bool(made["better"] or (shipped and truth < -config.margin) or (blocked and truth == 0))


def draws(shape: Shape, truth: float, runs: int, random: np.random.Generator) -> list[dict[str, Any]]:
    """Evidence of `runs` models that are better than their base by `truth` on the rows that decide."""
    quality = _pairs(shape.rows, shape.noise, truth, runs, random)
    tasks = [_pairs(rows, shape.noise, 0.0, runs, random) for rows in shape.tasks]
    suites = [random.binomial(rows, rate, runs) for rows, _, rate in shape.suites]
    return [
        {
            "hashes": {},
            "parity": {"prompt_ids_equal": True, "greedy_ids_equal": True},
            "quality": {**quality[run], "metric": "metric", "higher_is_better": True},
            "suites": [
                {"name": f"suite {place}", "required": required, "passed": int(passed[run]), "n": rows}
                for place, ((rows, required, _), passed) in enumerate(zip(shape.suites, suites, strict=True))
            ],
            "forgetting": [{**task[run], "task": f"task {place}"} for place, task in enumerate(tasks)],
        }
        for run in range(runs)
    ]


def _pairs(rows: int, noise: float, truth: float, runs: int, random: np.random.Generator) -> Sequence[dict[str, Any]]:
    """Comparisons of 0/1 scores: the rows that only tuned, and only base, gets right are drawn."""
    differ = max(noise, abs(truth))
    shares = [(differ + truth) / 2, (differ - truth) / 2, 1 - differ]
    return [_compared(rows, int(won), int(lost)) for won, lost, _ in random.multinomial(rows, shares, size=runs)]


@cache
def _compared(rows: int, won: int, lost: int) -> dict[str, Any]:
    """All that a comparison depends on: how many rows tuned won, lost, and both got wrong."""
    base, tuned = [0.0] * won + [1.0] * lost, [1.0] * won + [0.0] * lost
    both = [0.0] * (rows - won - lost)
    result = paired(base + both, tuned + both, [""] * rows)
    keys = ("n", "clusters", "base", "tuned", "difference", "low", "high", "p")
    return {key: getattr(result, key) for key in keys}


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """A truth a line, in percent of the simulated models."""
    head = ("tuned - base", "ship", "do not ship", "cannot tell", "called better", "wrong")
    keys = (*EXIT, "better", "wrong")
    lines = [head, *((f"{one['difference']:+.2f}", *(f"{one[key]:.1%}" for key in keys)) for one in found)]
    width = [max(len(line[place]) for line in lines) for place in range(len(head))]
    return "\n".join("  ".join(map(str.rjust, line, width)) for line in lines)
