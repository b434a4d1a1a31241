"""prepare on Alpaca-sized rows: seconds and peak memory, with near-duplicates, the report and tokenization.

    nice -n 10 python bench/prepare_speed.py [SIZE ...] [--data DIR]

Rows are those of llamafactory/alpaca_en_demo.json (999 rows of 800 characters on average, three times the original
Alpaca's) with 60 % of their words replaced by words of the same file, so that lengths are real and rows distinct;
every 50th asks what the one before it asks, with a word more, and has its answer. Tokenization is the exact rendering
of every training row, in as many processes as there are cores, with a byte-level BPE of 8,192 tokens trained on the
999 answers. The largest size is measured once more with answers a quarter as long: rows of 260 characters, about what
the original Alpaca's have. `in shards` is the same rows through sharded.run, whose splits must be the same bytes; then
the same questions with answers four times as long: what is held must not grow with them. Each figure is measured in a
process of its own. Writes bench/out/prepare_speed.json.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from machine import card, peak_mib

from tunesmith.core.artifact import Artifact, open_artifact, seal, writing
from tunesmith.core.jsonl import write_rows
from tunesmith.core.records import Meta, Row, pair
from tunesmith.prepare import sharded, stage
from tunesmith.prepare.config import PrepareConfig
from tunesmith.prepare.shards import Job, run_local, write_shards
from tunesmith.prepare.split import SPLITS
from tunesmith.text.tokenizer import train_bpe

DATA = Path(__file__).resolve().parents[2] / "shared/data"
OUT = Path(__file__).resolve().parent / "out/prepare_speed.json"
SIZES = (13_000, 26_000, 52_000)
LIMIT_SECONDS = 30  # for 52,000 rows on two cores
FILES = (*(f"{side}.jsonl" for side in SPLITS), "rejects.jsonl")


def demo(data: Path) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads((data / "llamafactory/alpaca_en_demo.json").read_text(encoding="utf-8"))
    return found


def rows(count: int, data: Path, times: float = 1) -> Iterator[Row]:
    """Distinct rows of real lengths; the answers `times` as long, a whole number or a part. The questions stay."""
    rng, more = random.Random(0), random.Random(1)
    source = demo(data)
    words = [word for row in source for text in row.values() for word in text.split()]

    def change(text: str, rng: random.Random) -> str:
        parts = text.split(" ")
        return " ".join(rng.choice(words) if part.isprintable() and rng.random() < 0.6 else part for part in parts)

    asked = answer = ""
    for i in range(count):
        row = source[i % len(source)]
        if i % 50 == 49:  # the row before it, with a word more
            asked += f" {rng.choice(words)}"
        else:
            asked = "\n\n".join(change(row[key], rng) for key in ("instruction", "input") if row[key])
            parts = row["output"].split(" ")
            some = " ".join(parts[: math.ceil(times * len(parts))])
            answer = " ".join(change(some, more) for _ in range(math.ceil(times)))
        yield pair(asked, answer, meta=Meta("alpaca.json", i + 1))


def make(folder: Path, count: int, data: Path, times: float) -> None:
    """A raw artifact, and a tokenizer."""
    with writing(folder / "raw") as work:
        write_rows(work / "examples.jsonl", rows(count, data, times))
        (work / "rejects.jsonl").touch()
        seal(work, folder / "raw", "raw", {})
    (folder / "tokenizer").mkdir()
    train_bpe([row["output"] for row in demo(data)], 8192).save(folder / "tokenizer")


def measure(folder: Path, way: str) -> dict[str, Any]:
    """Seconds of prepare and of tokenization, and the peak memory of this process in prepare."""
    raw = open_artifact(folder / "raw", "raw")
    start = time.perf_counter()
    made = stage.run(PrepareConfig(), [raw], folder / way) if way == "one" else _sharded(folder, raw, way)
    prepared, peak = time.perf_counter(), peak_mib()
    lengths(folder, made)
    end = time.perf_counter()
    own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "rows": made.facts["rows_in"],
        "file_mib": round((raw.path / "examples.jsonl").stat().st_size / 2**20, 1),
        "prepare_seconds": round(prepared - start, 2),
        "tokenize_seconds": round(end - prepared, 2),
        "wall_seconds": round(end - start, 2),
        "cpu_seconds": round(sum(use.ru_utime + use.ru_stime for use in (own, others)), 2),
        "peak_mib": round(peak),
        "near_duplicates": made.facts["near_duplicates"],
        "path": str(made.path),
    }


def _sharded(folder: Path, raw: Artifact, way: str) -> Artifact:
    return sharded.run(PrepareConfig(), [raw], folder / way, shard_rows=5000)


def lengths(folder: Path, made: Artifact) -> None:
    """Exact tokens of every training row, in a pool of processes."""
    with (made.path / "train.jsonl").open(encoding="utf-8") as lines:
        world = write_shards(folder / "rows", (line.rstrip("\n") for line in lines), 5000)
    settings = {"tokenizer": str(folder / "tokenizer"), "template": "plain", "train_on": "completion"}
    run_local(Job(folder / "lengths", "measure", folder / "rows", world, settings))


def in_a_process(count: int, data: Path, way: str, times: float = 1) -> tuple[dict[str, Any], dict[str, bytes]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, count, data, times)
        command = [sys.executable, __file__, "--one", name, "--way", way]
        facts = dict(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        made = Path(facts.pop("path"))
        return facts, {file: (made / file).read_bytes() for file in FILES}


def show(title: str, found: list[dict[str, Any]]) -> None:
    keys = list(found[0])
    print(f"\n{title}\n" + "  ".join(f"{key:>16}" for key in keys))
    for row in found:
        print("  ".join(f"{row[key]:>16}" for key in keys))
    for a, b in pairwise(found):
        rows, size, cpu, held = (b[k] / a[k] for k in ("rows", "file_mib", "cpu_seconds", "peak_mib"))
        print(f"{rows:.1f} times the rows, {size:.1f} the bytes: {cpu:.2f} times the processor, {held:.2f} the memory")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sizes", nargs="*", type=int, default=list(SIZES))
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--one", type=Path)
    parser.add_argument("--way", default="one")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.way)))
        return
    if not options.data.is_dir():
        raise SystemExit(f"NOT RUN: there is no {options.data}")
    facts: dict[str, Any] = {"machine": card()}
    made = [in_a_process(size, options.data, "one") for size in options.sizes]
    facts["one process"] = [found for found, _ in made]
    show("one process, tokenization in two", facts["one process"])
    largest = options.sizes[-1]
    short, _ = in_a_process(largest, options.data, "one", 1 / 4)
    facts["short answers"] = [short]
    show("the same with answers a quarter as long", facts["short answers"])
    shards = [in_a_process(size, options.data, "shards") for size in options.sizes]
    if shards[-1][1] != made[-1][1]:
        raise SystemExit("in shards the bytes differ")
    long, _ = in_a_process(largest, options.data, "shards", 4)
    facts["in shards"] = [*(found for found, _ in shards), long]
    show("in shards of 5,000 rows, without findings; the last with answers four times as long", facts["in shards"])
    first, last = shards[0][0], shards[-1][0]
    held = (last["peak_mib"] - first["peak_mib"]) * 2**20 / max(1, last["rows"] - first["rows"])
    facts["held_bytes_a_row_in_shards"] = round(held)
    print(f"a row more in shards: {held:.0f} bytes more at the peak")
    met = facts["one process"][-1]["wall_seconds"] <= LIMIT_SECONDS if largest == SIZES[-1] else "NOT RUN"
    facts["target"] = {"rows": SIZES[-1], "wall_seconds": LIMIT_SECONDS, "met": met}
    print(f"\n{SIZES[-1]:,} rows in {LIMIT_SECONDS} s: {met}")
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
