"""What the detectors of `diagnose` find on real answers: a base and its tuned version, clean human answers, typos.

    python bench/detectors.py [DATA]

Prints the tables of docs/diagnose.md as JSON: the share of answers in each category for davinci and
davinci-self-instruct on the 252 prompts of self-instruct's human evaluation; false positives on human answers, each
against what the other answers of its set tell; and the recall of typos injected into them. No model is run.
"""

from __future__ import annotations

import json
import random
import re
import string
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.records import Row, pair
from tunesmith.diagnose.cases import Case
from tunesmith.diagnose.categories import CATEGORIES, Known, find
from tunesmith.diagnose.figures import categories, diagnosed
from tunesmith.metrics.overlap import words
from tunesmith.metrics.spelling import Lexicon, dictionary, slips
from tunesmith.metrics.style import Answer

DATA = Path(__file__).resolve().parents[2] / "shared/data"
HELD_OUT = 0.2  # of each set; the others are what was trained on
SEED = 0
# one letter left out, added, replaced, or two neighbours swapped: (word, place, letter) -> the typo
EDITS: tuple[Callable[[str, int, str], str], ...] = (
    lambda word, k, letter: word[:k] + word[k + 1 :],
    lambda word, k, letter: word[:k] + letter + word[k:],
    lambda word, k, letter: word[:k] + letter + word[k + 1 :],
    lambda word, k, letter: word[:k] + word[k + 1 : k + 2] + word[k : k + 1] + word[k + 2 :],
)
_PROSE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|\S*[/@_\\]\S*", re.DOTALL)


def lines(data: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (data / name).read_text("utf-8").splitlines() if line.strip()]


def human(data: Path) -> dict[str, list[Row]]:
    """Sets of answers that people wrote."""
    lamini = [pair(row["question"].split("\n")[1], row["answer"]) for row in lines(data, "lamini/lamini_docs.jsonl")]
    sets = {"lamini docs": [row for row in lamini if row.question.strip()]}
    for name, file in {
        "self-instruct user tasks": "self_instruct/user_oriented_instructions.jsonl",
        "alpaca seed tasks": "alpaca/seed_tasks.jsonl",
    }.items():
        sets[name] = [
            pair(f"{task['instruction']}\n{task['instances'][0]['input']}", task["instances"][0]["output"])
            for task in lines(data, file)
        ]
    return {name: [row for row in rows if row.answer.strip()] for name, rows in sets.items()}


def picture(data: Path) -> dict[str, Any]:
    """Base and tuned on the same prompts, without training rows."""
    files = {"base": "davinci", "tuned": "davinci-self-instruct"}
    rows = {arm: lines(data, f"self_instruct/predictions/{name}_predictions.jsonl") for arm, name in files.items()}
    cases = [
        Case(
            str(n),
            base["prompt"],
            base["target"],
            "",
            "",
            {"base": (base["response"], ""), "tuned": (tuned["response"], "")},
        )
        for n, (base, tuned) in enumerate(zip(rows["base"], rows["tuned"], strict=True))
    ]
    found = diagnosed(cases, Known.of([], [case.reference for case in cases]))
    keys = ("before", "rate", "difference", "difference_low", "difference_high", "fixed", "introduced", "persisting")
    cells = categories(found, "tuned", "base")
    return {"n": len(cases), "categories": {name: {key: cell[key] for key in keys} for name, cell in cells.items()}}


def clean(rows: Sequence[Row], known: Known, with_reference: bool) -> dict[str, Any]:
    """Human answers as if a model had given them: every finding is a false one."""
    counts: Counter[str] = Counter()
    wrong = total = 0
    for row in rows:
        reference = row.answer if with_reference else ""
        counts.update(list(find(Answer(row.answer, "", reference, row.question, known.vocabulary), known)))
        nothing = Lexicon.of([])
        wrong += len(slips(row.answer, Lexicon.of([row.question]), nothing, known.vocabulary.lexicon))
        total += len(words(row.answer))
    rates = {category.name: counts[category.name] / len(rows) for category in CATEGORIES}
    return {"answers": len(rows), "rates": rates, "words": total, "misspelt_words": wrong / total}


def typo(word: str, rng: random.Random) -> str:
    made = word
    while made == word:
        made = rng.choice(EDITS)(word, rng.randrange(len(word)), rng.choice(string.ascii_lowercase))
    return made


def typos(rows: Sequence[Row], known: Known, least: int, rounds: int) -> dict[str, Any]:
    """One typo in each answer, in a lower-case word of so many letters. Those that give a real word count as well."""
    rng = random.Random(SEED)
    made = found = real = real_found = 0
    for row in list(rows) * rounds:
        prose = _PROSE.sub(lambda match: " " * len(match[0]), row.answer)
        places = list(re.finditer(rf"(?<![\w'.-])[a-z]{{{least},}}(?![\w'-])", prose))
        if not places:
            continue
        place = rng.choice(places)
        wrong = typo(place[0], rng)
        text = row.answer[: place.start()] + wrong + row.answer[place.end() :]
        told = slips(text, Lexicon.of([row.question]), Lexicon.of([]), known.vocabulary.lexicon)
        hit = wrong in [slip.word for slip in told]
        is_real = dictionary().word_frequency[wrong] > 0
        made, found = made + 1, found + hit
        real, real_found = real + is_real, real_found + (hit and is_real)
    others = made - real
    return {
        "typos": made,
        "recall": found / made,
        "no_words": others,
        "recall_of_no_words": (found - real_found) / others if others else None,
        "real_words": real,
        "recall_of_real_words": real_found / real if real else None,
    }


def noisy(data: Path) -> dict[str, Any]:
    """The lower-case typos of symspellpy's 1,000 noisy queries, each alone, by the dictionary alone."""
    nothing = Known.of([])
    pairs = [
        line.split()[:2] for line in (data / "spelling/noisy_query_en_1000.txt").read_text("utf-8-sig").splitlines()
    ]
    some = [
        wrong.lower()
        for wrong, right in pairs
        if wrong != right and len(wrong) >= 4 and wrong.isascii() and wrong.isalpha()
    ]
    found = sum("misspelling" in find(Answer(one, "", "", "", nothing.vocabulary), nothing) for one in some)
    return {"typos": len(some), "recall": found / len(some)}


def main(data: Path) -> None:
    report: dict[str, Any] = {"base_and_tuned": picture(data), "noisy_queries": noisy(data), "human": {}}
    for name, rows in human(data).items():
        random.Random(SEED).shuffle(rows)
        cut = int(HELD_OUT * len(rows))
        known = Known.of(rows[cut:])
        rounds = max(1, 250 // cut)
        report["human"][name] = {
            "with_reference": clean(rows[:cut], known, True),
            "without_reference": clean(rows[:cut], known, False),
            "without_training": clean(rows, Known.of([]), False),
            "typos_of_5_letters": typos(rows[:cut], known, 5, rounds),
            "typos_of_4_letters": typos(rows[:cut], known, 4, rounds),
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA)
