import csv
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tunesmith.core.records import Message, Meta, Row, pair
from tunesmith.prepare.corpus import Corpus
from tunesmith.prepare.finding import ramp
from tunesmith.prepare.realness import LIMITS, Pattern, compressed, measure, patterns, realness, samples

DATA = Path(__file__).resolve().parents[2] / "../shared/data"
real = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")


def question_side(texts: list[str]) -> Pattern:
    corpus = Corpus.of([pair(text, "an answer of six words here") for text in texts])
    return measure(corpus.asked, corpus.vocabulary)


def test_openers_are_measured_as_worked_out_by_hand() -> None:
    found = question_side(["how do I", "how do you", "can we go", "who is it"])
    # shares 1/2, 1/4, 1/4: (ln 2 + ln 4) / 2 over ln 4
    assert found.values["opener_entropy"] == pytest.approx((0.5 * np.log(2) + 0.5 * np.log(4)) / np.log(4))
    assert found.values["top_opener"] == 0.5
    assert found.openers[0] == ("how do", 2)


def test_a_skeleton_masks_all_but_common_words_and_must_show_two() -> None:
    common = [f"fill{i:02d}" for i in range(58)]
    texts = [" ".join(common[:30]), " ".join(common[30:])] * 6  # the first 40 words of a row count
    texts += [f"how do rare{i}a rare{i}b" for i in range(5)] + [f"odd{i} why" for i in range(3)]
    found = question_side(texts)
    assert ("how do _ _", 5) in found.skeletons  # 58 fillers, how and do are the 60 commonest
    assert found.values["skeletons"] == 17 / 20  # "_ why" shows one word at most


def test_equal_rows_are_all_pattern_and_all_different_ones_none() -> None:
    same = question_side(["how do I open the door of this house"] * 60)
    assert same.values["opener_entropy"] == 0
    assert same.values["top_opener"] == same.values["skeletons"] == 1
    assert same.pattern_like
    rng = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    other = question_side([" ".join("".join(rng.choices(letters, k=6)) for _ in range(9)) for _ in range(60)])
    assert other.values["opener_entropy"] == pytest.approx(1)
    assert (other.values["top_opener"], other.values["skeletons"]) == (1 / 60, 0)
    assert not other.crossed


def test_compression_is_of_the_words_as_text() -> None:
    assert compressed([0] * 1000, ["word"]) < 0.01
    assert compressed([], []) == 8  # an empty zlib stream


def test_samples_are_seeded_disjoint_and_of_one_size() -> None:
    assert samples(200) == [list(range(200))]
    taken = samples(1100)
    assert taken == samples(1100)
    assert [len(sample) for sample in taken] == [250] * 4
    assert len({i for sample in taken for i in sample}) == 1000
    assert len(samples(52_000)) == 8


def test_few_rows_and_labels_are_not_measured_and_it_says_so() -> None:
    few = realness(Corpus.of([pair(f"question {i}", "answer") for i in range(39)]))
    assert few.score is None
    assert few.formula == "NOT RUN"
    assert "questions: NOT RUN, fewer than 40 rows" in few.lines
    labels = realness(Corpus.of([pair(f"is text number {i} kind", ["yes", "no"][i % 2]) for i in range(40)]))
    assert labels.score is not None
    assert labels.facts["not_measured"] == {"answer": "2 distinct answers, most of at most 5 words: labels"}


def test_generated_rows_lower_the_score_and_the_formula_gives_it() -> None:
    rows = [pair(f"word{i} is what", f"say{i} this", meta=Meta("f", i)) for i in range(50)]
    marked = [Row(r.messages, meta=Meta("f", i, "generated")) for i, r in enumerate(rows)]
    human, generated = realness(Corpus.of(rows)), realness(Corpus.of(marked))
    assert generated.facts["origins"] == {"generated": 50}
    assert human.score is not None
    assert generated.score is not None
    assert human.score - generated.score == pytest.approx(100 / 9, abs=0.06)
    assert "1 x 0.000 (rows not marked as generated)" in generated.formula
    assert generated.formula.endswith(f"= {generated.score}")


@pytest.mark.parametrize(("value", "passed"), [(0.2, 0), (0.35, 0), (0.525, 0.5), (0.7, 1), (0.9, 1)])
def test_a_measure_passes_from_its_worst_to_its_limit(value: float, passed: float) -> None:
    assert ramp(value, 0.35, 0.7) == pytest.approx(passed)
    assert ramp(1 - value, 0.65, 0.3) == pytest.approx(passed)


def test_the_limits_are_printed_with_the_verdict() -> None:
    axis = realness(Corpus.of([pair("how do I open the door", f"say{i} that{i}") for i in range(50)]))
    told = "\n".join(axis.lines)
    for limit in LIMITS:
        assert f"limit at {'least' if limit.worst < limit.limit else 'most'} {limit.limit:g}" in told
    assert "questions are pattern-like: 4 of 4 limits crossed, 2 make it so" in told
    assert "Fix: collect real rows that are asked otherwise" in told


def tasks(name: str) -> list[Row]:
    """Seed tasks and user-oriented instructions, both written by people."""
    made = []
    for task in map(json.loads, (DATA / name).read_text(encoding="utf-8").splitlines()):
        first = task["instances"][0]
        made.append(pair("\n\n".join(filter(None, (task["instruction"], first["input"]))), first["output"]))
    return made


def dummy() -> list[Row]:
    roles = {"human": "user", "gpt": "assistant"}
    talks = json.loads((DATA / "fastchat/dummy_conversation.json").read_text(encoding="utf-8"))
    return [Row(tuple(Message(roles[m["from"]], m["value"]) for m in talk["conversations"])) for talk in talks]


def templated() -> list[Row]:
    rng = random.Random(1)
    things = ["invoice", "order", "parcel", "password", "account", "refund", "voucher", "card", "profile", "address"]
    asked = ("How do I {} my {}?", "Can I {} my {}?", "I want to {} my {}.")
    made = []
    for _ in range(300):
        act, thing = rng.choice(["change", "cancel", "find", "update", "print", "share"]), rng.choice(things)
        made.append(pair(rng.choice(asked).format(act, thing), f"To {act} your {thing}, open the settings of it."))
    return made


def lessons() -> list[Row]:
    from tunesmith.collect.lessons import lessons
    from tunesmith.collect.stdlib import harvest

    return lessons(harvest(), 700, 300, 130)


@real
@pytest.mark.parametrize("names", [["alpaca/seed_tasks.jsonl", "self_instruct/user_oriented_instructions.jsonl"]])
def test_rows_written_by_people_are_on_the_one_side_of_the_limits(names: list[str]) -> None:
    rows = [row for name in names for row in tasks(name)]
    assert len(rows) == 427
    for part in (rows, rows[:175], rows[175:]):
        assert [side.crossed for side in patterns(Corpus.of(part))] == [[], []]


@real
@pytest.mark.parametrize("made", [dummy, templated])
def test_rows_made_from_patterns_are_on_the_other(made: Callable[[], list[Row]]) -> None:
    found = patterns(Corpus.of(made()))
    assert [side.pattern_like for side in found] == [True, True]
    assert all(len(side.crossed) >= 3 for side in found)


def test_the_lessons_of_the_demo_are_made_from_patterns_too() -> None:
    questions, answers = patterns(Corpus.of(lessons()))
    assert len(answers.crossed) == len(LIMITS)
    assert questions.crossed  # what Python's own documentation says is in them: less of a pattern


@real
def test_questions_of_people_about_facts_are_not_pattern_like() -> None:
    with (DATA / "truthfulqa/TruthfulQA.csv").open(encoding="utf-8", newline="") as file:
        rows = [pair(row["Question"], row["Best Answer"]) for row in csv.DictReader(file)]
    assert not any(side.pattern_like for side in patterns(Corpus.of(rows)))
