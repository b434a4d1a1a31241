"""How long the four axes take on 52,000 rows of Alpaca's kind, each check by itself, and the peak memory.

    python bench/quality.py [ROWS] [DATA]

The rows are those of llamafactory/alpaca_en_demo.json (999, 880 characters on average: three times the original
Alpaca's), repeated with 30 % of their words replaced. Prints seconds of processor time on one core, as JSON.
"""

from __future__ import annotations

import json
import platform
import random
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.core.records import Meta, Row, pair
from tunesmith.prepare.amount import amount
from tunesmith.prepare.corpus import Corpus
from tunesmith.prepare.diversity import diversity
from tunesmith.prepare.quality import ALL, audit
from tunesmith.prepare.realness import realness

DATA = Path(__file__).resolve().parents[2] / "shared/data"
CHANGED = 0.3  # of the words


def perturbed(count: int, data: Path) -> list[Row]:
    rows = json.loads((data / "llamafactory/alpaca_en_demo.json").read_text(encoding="utf-8"))
    rng = random.Random(0)
    words = sorted({word for row in rows for word in row["output"].split()})

    def change(text: str) -> str:
        return " ".join(rng.choice(words) if rng.random() < CHANGED else word for word in text.split(" "))

    made = []
    for i in range(count):
        row = rows[i % len(rows)]
        asked = "\n\n".join(filter(None, (row["instruction"], row["input"])))
        made.append(pair(change(asked), change(row["output"]), meta=Meta("alpaca.json", i + 1)))
    return made


def main(count: int, data: Path) -> None:
    rows = perturbed(count, data)
    seconds: dict[str, float] = {}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        start = time.process_time()
        out = call()
        seconds[name] = round(time.process_time() - start, 2)
        return out

    corpus = timed("corpus", lambda: Corpus.of(rows))
    for name, check in ALL.items():
        timed(f"check {name}", lambda check=check: list(check.function(corpus)))
    timed("diversity", lambda: diversity(corpus))
    timed("realness", lambda: realness(corpus))
    timed("amount", lambda: amount(corpus, count, 16))
    timed("audit, all of it", lambda: audit(corpus, rows, count))
    report = {
        "rows": count,
        "megabytes": round(sum(len(m.content) for row in rows for m in row.messages) / 1e6, 1),
        "seconds": seconds,
        "total": round(seconds["corpus"] + seconds["audit, all of it"], 2),
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "machine": {"processor": platform.processor() or platform.machine(), "python": platform.python_version()},
        "numpy": np.__version__,
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 52_000, Path(sys.argv[2]) if len(sys.argv) > 2 else DATA)
