"""The benchmark files of ../shared/data in the columns that lm-eval's own task files expect. Needs nothing of ours.

It reads them by itself, so that what both sides are given is not what only one of them understood.
"""

from __future__ import annotations

import bz2
import csv
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HELLASWAG_TRAIN = 8000  # the data folder has no training file: what comes after so many stands in for it


def write(data: Path, folder: Path) -> None:
    """arc_challenge_{test,train}, hellaswag_{val,train}, truthfulqa and mmlu_anatomy_{test,dev}, each a .jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("test", "train"):
        _lines(folder / f"arc_challenge_{split}.jsonl", _arc(data / "normalised" / f"arc_challenge_{split}.jsonl"))
    contexts = list(_hellaswag(data / "hellaswag" / "hellaswag_val_full.txt.bz2"))
    _lines(folder / "hellaswag_val.jsonl", contexts[:HELLASWAG_TRAIN])
    _lines(folder / "hellaswag_train.jsonl", contexts[HELLASWAG_TRAIN:])
    _lines(folder / "truthfulqa.jsonl", _truthfulqa(data / "truthfulqa" / "TruthfulQA.csv"))
    for split in ("test", "dev"):
        _lines(folder / f"mmlu_anatomy_{split}.jsonl", _mmlu(data / "mmlu" / split / f"anatomy_{split}.csv"))


def jobs(folder: Path, limits: tuple[int, int, int, int]) -> list[dict[str, Any]]:
    """The rows of a job: ARC-Challenge, HellaSwag, TruthfulQA (both sets) and one subject of MMLU, so many of each."""
    arc, hellaswag, truthfulqa, mmlu = limits
    at = {path.stem: str(path) for path in folder.glob("*.jsonl")}
    both = {"validation": at["truthfulqa"]}
    return [
        {
            "task": "arc_challenge",
            "shots": 25,
            "limit": arc,
            "files": {"train": at["arc_challenge_train"], "test": at["arc_challenge_test"]},
        },
        {
            "task": "hellaswag",
            "shots": 10,
            "limit": hellaswag,
            "files": {"train": at["hellaswag_train"], "validation": at["hellaswag_val"]},
        },
        {"task": "truthfulqa_mc1", "shots": 0, "limit": truthfulqa, "files": both},
        {"task": "truthfulqa_mc2", "shots": 0, "limit": truthfulqa, "files": both},
        {
            "task": "mmlu_anatomy",
            "shots": 5,
            "limit": mmlu,
            "files": {"dev": at["mmlu_anatomy_dev"], "test": at["mmlu_anatomy_test"]},
        },
    ]


def _lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _arc(path: Path) -> Iterable[dict[str, Any]]:
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        labels = list("ABCDE")[: len(row["choices"])]
        choices = {"text": row["choices"], "label": labels}
        yield {"id": row["id"], "question": row["question"], "choices": choices, "answerKey": labels[row["label"]]}


def _hellaswag(path: Path) -> Iterable[dict[str, Any]]:
    """Six lines a row. A second sentence that was cut short begins in lower case: that is its `ctx_b`."""
    lines = bz2.decompress(path.read_bytes()).decode().rstrip("\n").split("\n")
    for at in range(0, len(lines), 6):
        label, context = lines[at].split(": ", 1)
        cut = re.match(r"(.*[.!?\"\])])\s+([a-z][^.!?]*)$", context)
        first, second = (cut[1], cut[2]) if cut else (context, "")
        parts = {"activity_label": label, "ctx_a": first, "ctx_b": second, "ctx": context}
        yield {"ind": at // 6, **parts, "endings": lines[at + 2 : at + 6], "label": lines[at + 1]}


def _truthfulqa(path: Path) -> Iterable[dict[str, Any]]:
    for row in csv.DictReader(path.read_text("utf-8").splitlines()):
        true, false = ([x.strip() for x in row[f"{kind} Answers"].split(";")] for kind in ("Correct", "Incorrect"))
        true, false = [x for x in true if x], [x for x in false if x]
        sets = {"mc1_targets": ([row["Best Answer"].strip()], false), "mc2_targets": (true, false)}
        targets = {k: {"choices": a + b, "labels": [1] * len(a) + [0] * len(b)} for k, (a, b) in sets.items()}
        yield {"question": row["Question"], **targets}


def _mmlu(path: Path) -> Iterable[dict[str, Any]]:
    for row in csv.DictReader(path.read_text("utf-8").splitlines()):
        choices = [row[f"choice{n}"] for n in range(4)]
        yield {"question": row["question"], "subject": "anatomy", "choices": choices, "answer": int(row["answer"])}
