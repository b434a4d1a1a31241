"""Scouting with models that answer and grade by rule."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tunesmith.compare.candidates import Example
from tunesmith.compare.scout import ScoutConfig, read_grade, scout
from tunesmith.engine.base import ChatRequest, Reply

Rule = Callable[[str], str]


class Chat:
    """Answers tasks by one rule and grades by another; counts what it was asked."""

    name = "big"

    def __init__(self, answer: Rule, grade: Rule = lambda text: "good") -> None:
        self.answer, self.grade, self.asked = answer, grade, 0

    def chat(self, requests: Sequence[ChatRequest]) -> list[Reply]:
        self.asked += len(requests)
        texts = [request.messages[-1].content for request in requests]
        return [Reply(self.grade(text) if "Grade the answer" in text else self.answer(text), "stop") for text in texts]

    def stored(self, request: ChatRequest) -> Reply | None:
        raise NotImplementedError

    def spent(self) -> dict[str, Any]:
        raise NotImplementedError


def labels(count: int) -> list[Example]:
    return [
        Example(f"Is the number {n} even or odd? Look at its last digit.", ("odd" if n % 2 else "even",))
        for n in range(count)
    ]


def texts(count: int) -> list[Example]:
    return [Example(f"Story {n}", (f"Once upon a time there was a dragon with the number {n}.",)) for n in range(count)]


def task(rows: list[Example], answer: Rule, grade: Rule = lambda text: "good", **config: Any) -> dict[str, Any]:
    found = scout(ScoutConfig(**config), {"t": rows}, Chat(answer, grade))
    (one,) = found["tasks"]
    return dict(one)


def test_labels_are_right_or_wrong_and_no_judgement_counts() -> None:
    one = task(labels(20), lambda text: "even", lambda text: "bad")
    assert (one["score"], one["scored_by"], one["scored"], one["n"]) == (0.5, "exact_match", 20, 20)
    assert one["low"] < 0.5 < one["high"]
    assert (one["band"], one["certain"]) == ("about OK", one["low"] >= 0.3 and one["high"] < 0.9)


def test_free_text_is_scored_by_two_judgements_that_must_both_find_it_no_worse_than_good() -> None:
    def grade(text: str) -> str:
        first = text.index("bad, good, better") if "bad, good, better" in text else -1
        return "bad" if "Story 1" in text and first > 0 else "better"

    one = task(texts(4), lambda text: "A dragon.", grade)
    assert (one["score"], one["scored_by"]) == (0.75, "two judgements")
    assert one["clarity"]["by"] == "two judgements"
    assert one["clarity"]["value"] == 0.75


@pytest.mark.parametrize(
    ("right", "count", "band", "certain"),
    [
        (0, 30, "too hard", True),
        (0, 5, "too hard", False),
        (18, 30, "about OK", True),
        (3, 5, "about OK", False),
        (60, 60, "solved by a prompt", True),
        (5, 5, "solved by a prompt", False),
    ],
)
def test_the_band_is_certain_only_where_the_whole_interval_lies_in_it(
    right: int, count: int, band: str, certain: bool
) -> None:
    rows = [Example(f"question {n}", ("yes",)) for n in range(count)]
    one = task(rows, lambda text: "yes" if int(text.split()[-1]) < right else "no")
    assert (one["band"], one["certain"]) == (band, certain)


def test_other_bands_give_other_verdicts() -> None:
    assert task(labels(20), lambda text: "even", band=(0.6, 0.8))["band"] == "too hard"


def test_a_judge_that_cannot_be_read_is_counted_and_scores_nothing() -> None:
    one = task(texts(5), lambda text: "A dragon.", lambda text: "I would say it is good, not bad")
    assert (one["unparseable"], one["scored"], one["score"], one["band"]) == (5, 0, None, "NOT RUN")
    assert one["f1"] > 0
    assert one["clarity"] == {"by": "two judgements", "value": None, "low": None, "high": None, "n": 0, "kappa": None}


@pytest.mark.parametrize(
    ("text", "grade"),
    [("good", "good"), ("Better.", "better"), ("**bad**", "bad"), ("good or bad", ""), ("goodness", ""), ("", "")],
)
def test_a_grade_is_one_word_and_no_other(text: str, grade: str) -> None:
    assert read_grade(Reply(text, "stop")) == grade


def test_a_judge_who_takes_whatever_is_named_first_makes_a_task_look_unclear() -> None:
    def first(text: str) -> str:
        return text.split("Grade the answer with one word: ")[1].split(",")[0]

    clarity = task(texts(12), lambda text: "A dragon.", first)["clarity"]
    assert (clarity["value"], clarity["n"]) == (0.0, 12)


def test_peoples_grades_say_how_clear_a_task_is_where_there_are_any() -> None:
    pairs = [("good", "good"), ("bad", "bad"), ("better", "good"), ("bad", "bad")]
    rows = [Example("q", ("one long enough reference",), pair) for pair in pairs]
    clarity = task(rows, lambda text: "a")["clarity"]
    assert (clarity["by"], clarity["value"], clarity["n"]) == ("two graders", 0.75, 4)
    assert clarity["kappa"] == pytest.approx(
        (0.75 - 0.375) / (1 - 0.375)
    )  # by hand: 1/4 x 2/4 + 2/4 x 2/4 agree by chance


def test_references_that_say_the_same_make_a_task_clear() -> None:
    same, other = ("the cat sat down here", "the cat sat down there"), ("the cat sat down", "dogs bark at night")
    clear, unclear = (task([Example("q", pair)] * 3, lambda text: "a")["clarity"] for pair in (same, other))
    assert clear["by"] == unclear["by"] == "words shared by references"
    assert (clear["value"], unclear["value"]) == (pytest.approx(0.8), 0.0)


def test_less_out_than_in_is_reading_and_more_is_writing() -> None:
    text = "The river Elbe flows through Dresden and Hamburg into the North Sea."
    reading = task([Example(text, ("Dresden and Hamburg into the sea",))], lambda text: "a")
    assert (reading["kind"], reading["contained"], reading["extraction"]) == ("reading", 1.0, True)
    writing = task([Example("Write about rivers", (text,))], lambda text: "a")
    assert (writing["kind"], writing["extraction"]) == ("writing", False)
    assert "400M" in reading["advice"]
    assert "1B" in writing["advice"]
    assert task([Example("a b c")], lambda text: "a " * 9)["kind"] == "writing"  # of the model's own answers


def test_the_clearest_task_about_ok_is_the_one_to_try() -> None:
    tasks = {"hard": labels(20), "fair": labels(20), "fair too": texts(20), "solved": labels(20)}
    tasks["hard"] = [Example(f"hard {n}", ("yes",)) for n in range(20)]
    tasks["solved"] = [Example(f"solved {n}", ("yes",)) for n in range(20)]

    def answer(text: str) -> str:
        return "yes" if text.startswith("solved") else "no" if text.startswith("hard") else "even"

    def grade(text: str) -> str:
        unclear = "bad, good, better" in text and "Story" in text
        return "bad" if unclear else "good"

    found = scout(ScoutConfig(), tasks, Chat(answer, grade))
    bands = {one["task"]: one["band"] for one in found["tasks"]}
    assert bands == {"hard": "too hard", "fair": "about OK", "fair too": "too hard", "solved": "solved by a prompt"}
    assert (found["pick"], found["model"]) == ("fair", "big")
    assert scout(ScoutConfig(), {"hard": tasks["hard"]}, Chat(answer))["pick"] is None


def test_a_task_costs_three_requests_a_row() -> None:
    chat = Chat(lambda text: "a")
    scout(ScoutConfig(), {"t": texts(7)}, chat)
    assert chat.asked == 21


def test_a_lower_limit_cuts_the_answers() -> None:
    asked: list[int] = []

    class Recorder(Chat):
        def chat(self, requests: Sequence[ChatRequest]) -> list[Reply]:
            asked.extend(request.sampling.max_new_tokens for request in requests)
            assert all(request.sampling.seed in (0, 5) for request in requests)
            return super().chat(requests)

    scout(ScoutConfig(max_new_tokens=9, seed=5), {"t": texts(1)}, Recorder(lambda text: "a"))
    assert asked == [9, 8, 8]
