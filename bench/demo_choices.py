"""Why the demo tunes as it does: one row a choice, on the demo's own set and the embedded base.

    .venv/bin/python bench/demo_choices.py [NAME ...]

Prints field accuracy on all held-out reading rows (test and valid), exact answers on writing and guard rows, and the
seconds of tuning, and writes bench/out/demo_choices.json with a machine card. About a minute a choice on two cores.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

from tunesmith import loop
from tunesmith.collect.lessons import collect_lessons
from tunesmith.core.jsonl import read_rows
from tunesmith.demo import SETTINGS
from tunesmith.embedded import embedded_base
from tunesmith.engine.base import Sampling
from tunesmith.metrics.labels import field_accuracy
from tunesmith.metrics.stats import mean_interval
from tunesmith.model.device import machine_facts

# name -> (what differs from the demo's settings, what differs in the numbers of rows)
CHOICES: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "demo": ({}, {}),
    "adamw": ({"optimizer": "adamw", "weight_decay": 0.01}, {}),
    "no_decay": ({"weight_decay": 0.0}, {}),
    "half_rate": ({"learning_rate": 0.01}, {}),
    "lora": ({"method": "lora", "optimizer": "adamw", "weight_decay": 0.01}, {}),
    "fewer_rows": ({}, {"reading": 700}),
}


def measure(settings: dict[str, Any], rows: dict[str, int]) -> dict[str, Any]:
    """Tune once and answer every held-out row."""
    with tempfile.TemporaryDirectory() as scratch:
        project = loop.new(Path(scratch, "project"), settings={"train": SETTINGS["train"] | settings})
        collect_lessons(project.place("raw"), **rows)
        set_ = loop.prepare(project)
        began = time.monotonic()
        run = loop.train(project)
        seconds = time.monotonic() - began
        held = [row for part in ("test", "valid") for row in read_rows(set_.path / f"{part}.jsonl")]
        engine, renderer = loop.load_engine(run.path / "model")
        answers = engine.generate([renderer.prompt(row.prompt) for row in held], Sampling(80))
    pairs = [(row, answer.text) for row, answer in zip(held, answers, strict=True)]
    reading = [(row.meta.group, s) for row, text in pairs if (s := field_accuracy(text, row.answer)) is not None]
    score = mean_interval([s for _, s in reading], [group for group, _ in reading])
    exact = {
        kind: fmean(float(text == row.answer) for row, text in pairs if row.meta.source.endswith(source))
        for kind, source in (("writing", "cards"), ("guard", "off-topic"))
    }
    facts = {"n": len(reading), "reading": score.mean, "low": score.low, "high": score.high, **exact}
    return facts | {"steps": run.facts["steps"], "seconds": round(seconds, 1)}


def main() -> None:
    embedded_base()  # made before anything is timed
    chosen = sys.argv[1:] or list(CHOICES)
    results = {}
    for name in chosen:
        results[name] = found = measure(*CHOICES[name])
        print(name, json.dumps(found), flush=True)
    out = Path(__file__).parent / "out" / "demo_choices.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps({"machine": machine_facts(), "results": results}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
