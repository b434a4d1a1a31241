"""How often is one of two equally good arms called "better" or "worse"? Simulated; at most 5 % is what is promised.

    python bench/false_alarms.py [REPEATS] [OUT.json]

Two arms answer the same rows, in groups of one to about nine rows that are alike, and neither is better: their
difference has a mean of 0. REPEATS (1,000, where not given) comparisons are drawn for each kind of score and number of
groups. Exits with 1 where more than 5 % and two standard errors were called.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from coverage import SHAPES, Kind, draw, erfinv, steps
from machine import card

from tunesmith.core.jsonl import write_json
from tunesmith.metrics.stats import paired, verdict

GROUPS = (5, 8, 10, 20, 50, 100)
KINDS = (
    Kind("binary pairs, 25 % / 25 %", -1, 0.0, steps(0.25, 0.25)),
    Kind("binary pairs, 5 % / 5 %", -1, 0.0, steps(0.05, 0.05)),
    Kind("scores, normal", -1, 0.0, lambda u: 0.2 * np.sqrt(2) * erfinv(2 * u - 1)),
    Kind("scores, skewed (u^4 - 0.2)", -1, 0.0, lambda u: u**4 - 0.2),
)


def alarms(kind: Kind, groups: int, shape: int, repeats: int) -> float:
    """The share of comparisons that were called "better" or "worse"."""
    rng = np.random.default_rng([groups, shape, len(kind.name)])
    called = 0
    for _ in range(repeats):
        items, index = draw(rng, kind, SHAPES[shape], groups)
        found = verdict(paired([0.0] * len(items), items.tolist(), [str(group) for group in index]))
        called += found != "cannot tell"
    return called / repeats


def main(repeats: int, out: Path) -> int:
    print("| scores | groups are | groups | called better or worse |")
    print("|---|---|---:|---:|")
    found = []
    for kind in KINDS:
        for shape in (0, 2):
            for groups in GROUPS:
                share = alarms(kind, groups, shape, repeats)
                found.append({"scores": kind.name, "groups_are": SHAPES[shape].name, "groups": groups, "called": share})
                print(f"| {kind.name} | {SHAPES[shape].name} | {groups} | {100 * share:.1f} % |", flush=True)
    shares = [one["called"] for one in found]
    print(f"{len(found)} settings of {repeats:,} comparisons: {100 * min(shares):.1f} to {100 * max(shares):.1f} %")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, {"machine": card(), "repeats": repeats, "settings": found})
    return int(max(shares) > 0.05 + 2 * (0.05 * 0.95 / repeats) ** 0.5)


if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(main(int(given[0]) if given else 1000, Path(given[1] if given[1:] else "bench/out/false_alarms.json")))
