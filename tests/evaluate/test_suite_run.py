from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tunesmith.core.artifact import open_artifact
from tunesmith.core.jsonl import read_json, read_jsonl
from tunesmith.core.records import Row
from tunesmith.engine.base import Sampling
from tunesmith.evaluate import junit
from tunesmith.evaluate.assertions import Answered, Known
from tunesmith.evaluate.suite import Case, Placed
from tunesmith.evaluate.suite_run import Asked, Question, answer, judge, save, table

KNOWN = Known(Path(), None)


def asked(rows: list[Row], **case: Any) -> Asked:
    return Asked(Placed(Case(**case), case.get("name", "a test"), "tests.toml:3"), [Question(r.id, r) for r in rows])


def answers(rows: list[Row], texts: list[str]) -> Mapping[str, Answered]:
    return {row.id: Answered(row, text) for row, text in zip(rows, texts, strict=True)}


def test_a_test_passes_when_enough_rows_do(make_rows: Any) -> None:
    rows = make_rows(10, lambda n: f"answer {n}")
    tuned = answers(rows, ["yes"] * 9 + ["no"])
    report, lines = judge([asked(rows, contains="yes", pass_rate=0.9)], {"tuned": tuned}, KNOWN)
    (result,) = report["tests"]
    assert (report["passed"], report["assertions"], report["failed"]) == (True, 1, 0)
    assert (result["n"], result["passed"], result["rate"], result["ok"], result["base"]) == (10, 9, 0.9, True, None)
    assert 0.5 < result["low"] < 0.9 < result["high"] <= 1.0
    assert [one["why"] for one in result["failures"]] == ["lacks 'yes'"]
    assert len(lines) == 10
    stricter, _ = judge([asked(rows, contains="yes", pass_rate=0.91)], {"tuned": tuned}, KNOWN)
    assert (stricter["passed"], stricter["failed"]) == (False, 1)


def test_base_and_tuned_are_compared_on_the_same_rows(make_rows: Any) -> None:
    rows = make_rows(20, lambda n: f"answer {n}")
    arms = {"tuned": answers(rows, ["yes"] * 20), "base": answers(rows, ["yes"] * 4 + ["no"] * 16)}
    (result,) = judge([asked(rows, equals="yes")], arms, KNOWN)[0]["tests"]
    assert result["base"] == {"n": 20, "passed": 4, "rate": 0.2}
    assert (result["difference"], result["verdict"]) == (pytest.approx(0.8), "better")


def test_rows_of_one_group_count_as_one(make_rows: Any) -> None:
    rows = make_rows(20, lambda n: f"answer {n}", group="same")
    arms = {"tuned": answers(rows, ["yes"] * 20), "base": answers(rows, ["no"] * 20)}
    (result,) = judge([asked(rows, equals="yes")], arms, KNOWN)[0]["tests"]
    assert (result["low"], result["verdict"]) == (None, "cannot tell")


def test_what_could_not_be_checked_fails_and_says_so(make_rows: Any) -> None:
    rows = make_rows(3, lambda n: f"answer {n}")
    report, lines = judge([asked(rows, stops=True, max_words=9)], {"tuned": answers(rows, ["a"] * 3)}, KNOWN)
    first, second = report["tests"]
    assert (first["ok"], first["n"], first["unchecked"], first["rate"]) == (True, 3, 0, 1.0)
    assert (second["ok"], second["n"], second["unchecked"], second["rate"]) == (False, 0, 3, None)
    assert "NOT RUN on 3 row(s): how the answer ended is not told" in table(report)
    assert lines[3]["unchecked"].startswith("how the answer ended")
    assert "tuned" not in lines[3]


def test_a_test_without_rows_or_without_an_answer_fails(make_rows: Any) -> None:
    rows = make_rows(1, lambda n: f"answer {n}")
    report, _ = judge([asked([], max_words=9), asked(rows, max_words=9)], {"tuned": {}}, KNOWN)
    assert [result["ok"] for result in report["tests"]] == [False, False]
    said = table(report)
    assert "NOT RUN on any row(s): no row to ask" in said
    assert "there is no answer" in said


def test_paraphrases_are_compared_with_the_first(make_rows: Any) -> None:
    rows = make_rows(3, lambda n: f"answer {n}")
    (result,) = judge([asked(rows, same=True)], {"tuned": answers(rows, ["9", "9.", "8"])}, KNOWN)[0]["tests"]
    assert (result["passed"], result["failures"][0]["why"]) == (2, "differs from the first: '9'")


def test_every_question_is_asked_once_and_alone_where_time_counts(
    make_rows: Any, make_engine: Any, renderer: Any
) -> None:
    rows = make_rows(4, lambda n: f"answer {n}")
    engine = make_engine(lambda n: f"said {n}…" if n == 3 else f"said {n}")
    tests = [asked(rows, max_words=9), asked(rows[:1], latency_ms=10_000), asked(rows[1:3], min_words=1)]
    got = answer(engine, renderer, tests, Sampling(max_new_tokens=7))
    assert [prompts for prompts, _ in engine.calls] == [[[0]], [[1], [2], [3]]]
    assert {sampling.max_new_tokens for _, sampling in engine.calls} == {7}
    first, *_, last = (got[row.id] for row in rows)
    assert (first.text, first.finish, first.reference) == ("said 0", "stop", "answer 0")
    assert first.latency_ms is not None
    assert (last.finish, last.latency_ms) == ("length", None)
    report, _ = judge(tests, {"tuned": got}, KNOWN)
    assert report["passed"]


def test_a_question_that_fills_the_context_has_no_answer(make_rows: Any, make_engine: Any, renderer: Any) -> None:
    engine = make_engine(lambda n: "said")
    engine.context = 1
    assert answer(engine, renderer, [asked(make_rows(2, str), max_words=1)], Sampling()) == {}


def test_all_is_kept_in_the_artifact(make_rows: Any, tmp_path: Path) -> None:
    suite = tmp_path / "tests.toml"
    suite.write_text("[[test]]\nmax_words = 1\n")
    rows = make_rows(2, lambda n: f"answer {n}")
    report, lines = judge([asked(rows, max_words=1)], {"tuned": answers(rows, ["a", "b c"])}, KNOWN)
    made = save(report, lines, suite, tmp_path / "evals" / "test-1", {"name": "test-1"})
    found = open_artifact(made.path, "test")
    assert (found.facts["passed"], found.facts["failed"]) == (False, 1)
    assert (made.path / "tests.toml").read_text() == suite.read_text()
    assert read_json(made.path / "report.json") == report
    line = list(read_jsonl(made.path / "results.jsonl"))[1]
    assert line["tuned"] == {"passed": False, "why": "2 words, more than 1"}
    assert line["outputs"] == {"tuned": "b c"}


def test_the_junit_file_counts_and_says_what_xml_can_hold(make_rows: Any, tmp_path: Path) -> None:
    rows = make_rows(2, lambda n: f"answer {n}")
    tests = [asked(rows, name="a <b> & \x00", max_words=1, min_words=1), asked(rows, latency_ms=1)]
    report, _ = judge(tests, {"tuned": answers(rows, ["a", "b\x1b \ud800 <c>"])}, KNOWN)
    junit.write(report, "tests.toml", tmp_path / "out" / "junit.xml")
    (suite,) = ElementTree.parse(tmp_path / "out" / "junit.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")
    words, more, late = suite
    assert (words.get("classname"), words.get("name"), words.get("file")) == ("a <b> & �", "min_words", "tests.toml:3")
    assert not list(words)
    assert more[0].get("message") == "1 of 2 rows passed; the required pass rate is 1"
    assert "<c>" in (more[0].text or "")
    assert (late[0].tag, (late[0].get("message") or "")[:8]) == ("error", "NOT RUN:")
