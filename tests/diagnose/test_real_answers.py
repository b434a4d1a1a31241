"""Acceptance of diagnose on real files: a base and its tuned version, and answers that people wrote."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.records import Row, pair
from tunesmith.diagnose.cases import Case, of_files
from tunesmith.diagnose.stage import of_cases
from tunesmith.metrics.overlap import words

DATA = Path(__file__).resolve().parents[2] / "../shared/data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data, which is not part of the project")

# Counted in other ways in the same files: longer than 3 x the reference, more than a fifth of repeated four-word runs,
# "Input:" or "Output:" inside, nothing at all. Per cent of davinci's and of davinci-self-instruct's 252 answers.
KNOWN = {"too_long": (96.0, 9.1), "repetitive": (98.8, 8.3), "did_not_stop": (79.0, 0.0), "empty": (0.0, 0.0)}


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text("utf-8").splitlines()]


def test_a_base_and_its_tuned_version_show_the_known_picture(tmp_path: Path) -> None:
    files = []
    for name in ("davinci-self-instruct", "davinci"):
        rows = lines(f"self_instruct/predictions/{name}_predictions.jsonl")
        made = [
            {"id": n, "prompt": row["prompt"], "output": row["response"], "reference": row["target"]}
            for n, row in enumerate(rows)
        ]
        files.append(tmp_path / f"{name}.jsonl")
        files[-1].write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    figures = of_cases(of_files(*files), [])["categories"]
    for category, (base, tuned) in KNOWN.items():
        assert 100 * figures[category]["before"] == pytest.approx(base, abs=2), category
        assert 100 * figures[category]["rate"] == pytest.approx(tuned, abs=2), category


def human(name: str) -> list[Row]:
    if name == "lamini":
        return [
            pair(row["question"], row["answer"]) for row in lines("lamini/lamini_docs.jsonl") if row["answer"].strip()
        ]
    file = {"user": "self_instruct/user_oriented_instructions.jsonl", "seed": "alpaca/seed_tasks.jsonl"}[name]
    tasks = [(task["instruction"], task["instances"][0]) for task in lines(file)]
    return [pair(f"{asked}\n{one['input']}", one["output"]) for asked, one in tasks if one["output"].strip()]


@pytest.mark.parametrize("name", ["lamini", "user", "seed"])
@pytest.mark.parametrize("with_reference", [True, False], ids=["with-reference", "alone"])
def test_clean_human_answers_are_left_alone(name: str, with_reference: bool) -> None:
    rows = human(name)
    random.Random(0).shuffle(rows)
    cut = len(rows) // 5
    cases = [
        Case(str(n), row.question, row.answer if with_reference else "", "", "", {"tuned": (row.answer, "stop")})
        for n, row in enumerate(rows[:cut])
    ]
    figures = of_cases(cases, rows[cut:])["categories"]
    wrong = {name: cell["count"] for name, cell in figures.items() if name != "misspelling"}
    assert all(count <= max(1, 0.02 * cut) for count in wrong.values()), wrong
    assert figures["misspelling"]["count"] <= 0.01 * sum(len(words(row.answer)) for row in rows[:cut])
