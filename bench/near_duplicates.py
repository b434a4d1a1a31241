"""Near-duplicates of short rows: seconds, peak memory and how both grow from 10,000 to 1,000,000 rows.

    nice -n 10 python bench/near_duplicates.py [SIZE ...] [--data DIR]

Rows are questions of about 65 characters, made of the instructions of llamafactory/alpaca_en_demo.json and the words of
corpus/*. A word that is among the 60 commonest of the instructions stays where it is; any other is replaced. Every 20th
row is an earlier one with one word changed. Three data sets, from what real rows do to the worst case:

growing    sentences grow out of one another: the next common word or gap follows the two before it as it does in some
           instruction, so that new shapes keep coming; and new words keep coming, with the 0.6th power of the rows
           (Heaps' law, Heaps 1978): another word, with letters of a second one behind it, once corpus/* is used up
mixed      the first half of one of 999 instructions and the second half of another; a fixed vocabulary
same       999 sentence shapes whatever the size: each has a thousand rows at a million, so that pairs that look a
           little alike, and pairs that are near-duplicates by their shape alone, grow with the square of the size

Each size runs in a process of its own. Before anything is timed, the pairs of 3,000 rows are compared with those of an
exact join. Writes bench/out/near_duplicates.json.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from machine import card, peak_mib

from tunesmith.text.similar import cross_pairs, near_pairs, normalise, shingle_sets

DATA = Path(__file__).resolve().parents[2] / "shared/data"
OUT = Path(__file__).resolve().parent / "out/near_duplicates.json"
THRESHOLD = 0.7
SIZES = (10_000, 100_000, 1_000_000)
LIMIT_SECONDS, LIMIT_GIB = 180, 4  # for 1,000,000 rows


SETS = ("growing", "mixed", "same")


def questions(count: int, data: Path, name: str) -> list[str]:
    """Short rows of a data set; the same for the same count."""
    rng = random.Random(0)
    rows = json.loads((data / "llamafactory/alpaca_en_demo.json").read_text(encoding="utf-8"))
    instructions = [row["instruction"].split() for row in rows]
    common = {word for word, _ in Counter(word for words in instructions for word in words).most_common(60)}
    corpora = (gzip.decompress(path.read_bytes()).decode() for path in sorted(data.glob("corpus/*.jsonl.gz")))
    vocabulary = sorted({word for text in corpora for word in re.findall(r"[a-z]{3,12}", text)})
    rng.shuffle(vocabulary)
    follows = chain(instructions, common)
    made: list[str] = []
    for i in range(count):
        words = vocabulary if name != "growing" else Heaps(vocabulary, i)
        if i % 20 == 19:
            parts = made[rng.randrange(i)].split(" ")
            parts[rng.randrange(len(parts))] = rng.choice(words)
        elif name == "growing":
            parts = [word or rng.choice(words) for word in sentence(follows, rng)]
        else:
            first = instructions[i % len(instructions)]
            second = rng.choice(instructions) if name == "mixed" else first
            shape = first[: len(first) // 2] + second[len(second) // 2 :]
            parts = [word if word in common else rng.choice(words) for word in shape]
        made.append(" ".join(parts))
    return made


class Heaps(Sequence[str]):
    """The words that rows have used by row `i`: 2,000 at the first ones, 98,000 at the 700,000th."""

    def __init__(self, vocabulary: list[str], i: int) -> None:
        self.vocabulary, self.size = vocabulary, 2000 + int(30 * i**0.6)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, i: Any) -> Any:
        again, first = divmod(i, len(self.vocabulary))
        return self.vocabulary[first] + (self.vocabulary[i * 7919 % len(self.vocabulary)][:3] if again else "")


Follows = dict[tuple[str, str], list[str]]


def chain(instructions: list[list[str]], common: set[str]) -> Follows:
    """What follows two words in the instructions, a gap being "" and the end a full stop."""
    follows: Follows = {}
    for words in instructions:
        shape = [word if word in common else "" for word in words]
        for a, b, c in zip(["^", "^", *shape], ["^", *shape], [*shape, "."], strict=False):
            follows.setdefault((a, b), []).append(c)
    return follows


def sentence(follows: Follows, rng: random.Random) -> list[str]:
    """Common words and gaps, 3 to 40."""
    while True:
        words = ["^", "^"]
        while words[-1] != "." and len(words) < 42:
            words.append(rng.choice(follows[words[-2], words[-1]]))
        if len(words) > 5:
            return [word for word in words[2:] if word != "."]


def gate(texts: list[str]) -> dict[str, int]:
    """The pairs that are found against all there are. Raises SystemExit where one is missing or wrong."""
    plain = list(dict.fromkeys(map(normalise, texts)))
    sets = shingle_sets(plain)
    exact = sorted(pair for pair in cross_pairs(sets, sets, THRESHOLD) if pair[0] < pair[1])
    found = near_pairs(plain, THRESHOLD)
    if found != exact:
        raise SystemExit(f"{len(found)} pairs were found and {len(exact)} there are: nothing was timed")
    return {"rows": len(plain), "pairs": len(exact)}


def measure(count: int, data: Path, name: str) -> dict[str, Any]:
    texts = questions(count, data, name)
    before = peak_mib()
    wall, cpu = time.perf_counter(), time.process_time()
    pairs = near_pairs(texts, THRESHOLD)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = peak_mib()
    return {
        "rows": count,
        "characters": round(sum(map(len, texts)) / count, 1),
        "pairs": len(pairs),
        "wall_seconds": round(wall, 2),
        "cpu_seconds": round(cpu, 2),
        "peak_gib": round(peak / 1024, 3),
        "texts_gib": round(before / 1024, 3),
        "bytes_a_row": round((peak - before) * 2**20 / count),
    }


def in_a_process(count: int, data: Path, name: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", str(count), "--data", str(data), "--set", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def table(name: str, rows: list[dict[str, Any]]) -> None:
    heads = (("rows", 10), ("pairs", 9), ("wall s", 8), ("cpu s", 8), ("peak GiB", 9), ("B/row", 7), ("cpu us/row", 11))
    print(f"\n{name}\n" + " ".join(f"{head:>{width}}" for head, width in heads))
    for row in rows:
        each = 1e6 * row["cpu_seconds"] / row["rows"]
        print(
            f"{row['rows']:>10,} {row['pairs']:>9,} {row['wall_seconds']:>8} {row['cpu_seconds']:>8} "
            f"{row['peak_gib']:>9} {row['bytes_a_row']:>7} {each:>11.1f}"
        )
    for a, b in pairwise(rows):
        times = b["cpu_seconds"] / max(a["cpu_seconds"], 0.01)
        print(f"{b['rows'] / a['rows']:.0f} times the rows: {times:.1f} times the processor seconds")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sizes", nargs="*", type=int, default=list(SIZES))
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--one", type=int)
    parser.add_argument("--set", choices=SETS, default="growing")
    options = parser.parse_args()
    if not options.data.is_dir():
        raise SystemExit(f"NOT RUN: there is no {options.data}")
    if options.one:
        print(json.dumps(measure(options.one, options.data, options.set)))
        return
    facts: dict[str, Any] = {
        "machine": card(),
        "threshold": THRESHOLD,
        "gate": gate(questions(3000, options.data, "same")),
    }
    print(f"gate: all {facts['gate']['pairs']} pairs of {facts['gate']['rows']} rows are found")
    for name in SETS:
        facts[name] = [in_a_process(size, options.data, name) for size in options.sizes]
        table(name, facts[name])
    largest = [facts[name][-1] for name in SETS if facts[name][-1]["rows"] == SIZES[-1]]
    met = all(row["wall_seconds"] <= LIMIT_SECONDS and row["peak_gib"] <= LIMIT_GIB for row in largest)
    facts["target"] = {"wall_seconds": LIMIT_SECONDS, "peak_gib": LIMIT_GIB, "met": met if largest else "NOT RUN"}
    print(f"\n1,000,000 rows in {LIMIT_SECONDS} s and {LIMIT_GIB} GiB: {facts['target']['met']}")
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
