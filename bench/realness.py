"""Where the limits of prepare/realness.py come from: its measures on real sets, human and patterned, side by side.

    python bench/realness.py [DATA]

Prints a row a side of each set, what the limits make of it, and for each measure how far the human sides are from the
patterned ones. Exits with 1 when a limit calls a human set pattern-like, or does not see a patterned one.
"""

from __future__ import annotations

import csv
import json
import random
import sys
from collections.abc import Iterable
from pathlib import Path

from tunesmith.collect.lessons import lessons
from tunesmith.collect.stdlib import harvest
from tunesmith.core.records import Message, Meta, Row, pair
from tunesmith.prepare.corpus import Corpus
from tunesmith.prepare.realness import LIMITS, Pattern, patterns
from tunesmith.text.residue import unwrap

DATA = Path(__file__).resolve().parents[2] / "shared/data"
THINGS = "invoice order parcel password account refund subscription voucher delivery address card profile"
DOING = "change cancel find check update delete print share"
PLACES = "Account Orders Billing Privacy Help Security Profile Notifications Devices Family"
HUMAN, PATTERN, OTHER = "human", "pattern", "generated"


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def tasks(path: Path) -> list[Row]:
    """Self-Instruct's shape: an instruction and instances of input and output."""
    rows = []
    for i, task in enumerate(lines(path), 1):
        first = task["instances"][0]
        question = "\n\n".join(part for part in (task["instruction"], first["input"]) if part)
        rows.append(pair(question, first["output"], meta=Meta(path.name, i)))
    return rows


def alpaca(path: Path) -> list[Row]:
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [pair("\n\n".join(filter(None, (r["instruction"], r["input"]))), r["output"]) for r in rows]


def conversations(path: Path) -> list[Row]:
    roles = {"human": "user", "gpt": "assistant"}
    talks = json.loads(path.read_text(encoding="utf-8"))
    return [Row(tuple(Message(roles[m["from"]], m["value"]) for m in talk["conversations"])) for talk in talks]


def lamini(path: Path) -> list[Row]:
    return unwrap([pair(r["question"], r["answer"], meta=Meta(path.name)) for r in lines(path)]).rows


def xquad(path: Path) -> list[Row]:
    articles = json.loads(path.read_text(encoding="utf-8"))["data"]
    asked = [qa for article in articles for part in article["paragraphs"] for qa in part["qas"]]
    return [pair(qa["question"], qa["answers"][0]["text"]) for qa in asked]


def truthful(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return [pair(row["Question"], row["Best Answer"]) for row in csv.DictReader(file)]


def predictions(path: Path) -> list[Row]:
    return [pair(row["prompt"], row["response"]) for row in lines(path) if row["response"].strip()]


def templated(rows: int = 400) -> list[Row]:
    """Slots in a handful of sentences: what people write when they are short of data."""
    rng = random.Random(0)
    things, doing, places = (words.split() for words in (THINGS, DOING, PLACES))
    asked = ("How do I {} my {}?", "Can I {} my {}?", "Where can I {} the {}?", "I want to {} my {}.")
    said = ("To {} your {}, open Settings and choose {}.", "Yes, you can {} your {} under {} at any time.")
    made = []
    for _ in range(rows):
        act, thing = rng.choice(doing), rng.choice(things)
        made.append(pair(rng.choice(asked).format(act, thing), rng.choice(said).format(act, thing, rng.choice(places))))
    return made


def sets(data: Path) -> Iterable[tuple[str, str, list[Row]]]:
    seeds = tasks(data / "alpaca/seed_tasks.jsonl")
    users = tasks(data / "self_instruct/user_oriented_instructions.jsonl")
    yield "alpaca seeds", HUMAN, seeds
    yield "self_instruct user tasks", HUMAN, users
    yield "both", HUMAN, seeds + users
    yield "xquad", HUMAN, xquad(data / "xquad/xquad.en.json")
    yield "truthfulqa", HUMAN, truthful(data / "truthfulqa/TruthfulQA.csv")
    yield "fastchat dummy", PATTERN, conversations(data / "fastchat/dummy_conversation.json")
    yield "identity", OTHER, alpaca(data / "llamafactory/identity.json")
    yield "template-made", PATTERN, templated()
    yield "demo lessons", PATTERN, lessons(harvest(), 700, 300, 130)
    yield "lamini docs", PATTERN, lamini(data / "lamini/lamini_docs.jsonl")
    yield "alpaca (GPT-4)", OTHER, alpaca(data / "llamafactory/alpaca_en_demo.json")
    folder = data / "self_instruct/predictions"
    yield "davinci", OTHER, predictions(folder / "davinci_predictions.jsonl")
    yield "davinci, tuned", OTHER, predictions(folder / "davinci-self-instruct_predictions.jsonl")


def main(data: Path) -> int:
    names = [limit.measure for limit in LIMITS]
    found: list[tuple[str, str, Pattern]] = []
    print("| set | kind | side | rows | " + " | ".join(names) + " | crossed | verdict |")
    print("|---|---|---|---:|" + "---:|" * len(names) + "---:|---|")
    for name, kind, rows in sets(data):
        for side in patterns(Corpus.of(rows)):
            found.append((name, kind, side))
            values = " | ".join(f"{side.values[measure]:.2f}" for measure in names)
            verdict = "pattern-like" if side.pattern_like else "-"
            print(f"| {name} | {kind} | {side.side} | {side.rows} | {values} | {len(side.crossed)} | {verdict} |")
    print()
    for limit in LIMITS:
        human = [s.values[limit.measure] for _, kind, s in found if kind == HUMAN]
        pattern = [s.values[limit.measure] for _, kind, s in found if kind == PATTERN]
        told = f"human {min(human):.2f} to {max(human):.2f}, patterned {min(pattern):.2f} to {max(pattern):.2f}"
        print(f"{limit.measure}: {told}; limit {limit.limit:g}")
    wrong = [
        f"{n} {s.side}" for n, kind, s in found if kind in (HUMAN, PATTERN) and s.pattern_like != (kind == PATTERN)
    ]
    print("wrong side of the limits: " + (", ".join(wrong) or "none"))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA))
