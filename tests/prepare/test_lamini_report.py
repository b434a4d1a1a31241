"""Acceptance of the data stage: what is known to be wrong with the course's data is in the report, with its place."""

import json
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.artifact import Artifact, seal, writing
from tunesmith.core.jsonl import read_json, read_jsonl, write_jsonl, write_rows
from tunesmith.core.records import Meta, pair
from tunesmith.prepare.stage import PrepareConfig, run

DATA = Path(__file__).resolve().parents[2] / "../shared/data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("lamini")
    lines = (DATA / "lamini/lamini_docs.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [
        pair(obj["question"], obj["answer"], meta=Meta("lamini_docs.jsonl", number))
        for number, obj in enumerate(map(json.loads, lines), 1)
    ]
    with writing(folder / "raw") as work:
        write_rows(work / "examples.jsonl", rows)
        write_jsonl(work / "rejects.jsonl", [])
        raw = seal(work, folder / "raw", "raw", {})
    return run(PrepareConfig(), [raw], folder / "sets")


@pytest.fixture(scope="module")
def report(made: Artifact) -> str:
    return (made.path / "report.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def facts(made: Artifact) -> dict[str, Any]:
    return dict(read_json(made.path / "receipt.json"))


def test_the_template_is_found_in_all_rows(report: str, facts: dict[str, Any]) -> None:
    assert facts["unwrapped"] == 1400
    assert "1400 rows were freed of a template" in report
    assert "template taken off: lamini_docs.jsonl: ### Question / ### Answer" in report


def test_the_empty_rows_are_rejected_with_their_places(report: str, facts: dict[str, Any]) -> None:
    assert facts["rejected"]["empty_prompt"] == 6
    places = ", ".join(f"lamini_docs.jsonl:{line}" for line in (20, 187, 424, 781, 1229, 1304))
    assert f"- empty_prompt: {places}\n" in report


def test_seven_questions_are_asked_again_and_six_have_different_answers(report: str, facts: dict[str, Any]) -> None:
    assert facts["repeated_questions"] == {"questions": 7, "rows": 19, "with_different_answers": 6}
    assert "19 rows ask 7 questions again; 6 of these have different answers." in report
    assert facts["findings"]["contradiction"] == 5  # the sixth is the empty question, which was rejected
    for lines in ("114, 285, 1120", "241, 646", "323, 727", "446, 1311", "933, 1026"):
        assert f"lines {lines}, different answers" in report


def test_the_guard_rows_are_found_by_their_one_answer(report: str) -> None:
    assert "39 questions: Let’s keep the discussion relevant to Lamini." in report
    assert "32 questions: I wish! This documentation only talks about Lamini’s LLM Engine." in report


def test_the_openers_of_both_sides_are_named_and_called_a_pattern(report: str, facts: dict[str, Any]) -> None:
    measured = facts["quality"]["axes"]["realness"]["measured"]
    assert measured["question"]["pattern_like"]
    assert measured["answer"]["pattern_like"]
    assert measured["question"]["openers"][0] == ["can lamini", 265]
    assert measured["answer"]["openers"][0] == ["yes lamini", 365]
    assert "'can lamini...' 265 (19.1%)" in report
    assert "'yes lamini...' 365 (26.2%)" in report


def test_a_random_split_would_leak_and_ours_does_not_and_both_are_printed(report: str, facts: dict[str, Any]) -> None:
    assert facts["leaked"] == 0 < facts["leaked_random_split"]
    told = f"0 pairs of questions are alike across splits; in a random split it would be {facts['leaked_random_split']}"
    assert told in report


def test_four_scores_stand_in_the_receipt_with_their_formulas(report: str, facts: dict[str, Any]) -> None:
    assert list(facts["scores"]) == ["quality", "diversity", "realness", "amount"]
    for name, score in facts["scores"].items():
        assert f"### {name}: {score}" in report
        assert facts["quality"]["axes"][name]["formula"] in report


def test_every_row_of_a_finding_is_on_file(made: Artifact, facts: dict[str, Any]) -> None:
    lines = list(read_jsonl(made.path / "findings.jsonl"))
    for name, count in facts["findings"].items():
        assert sum(line["finding"] == name for line in lines) == count
    assert {"finding", "severity", "row", "source", "line", "detail"} == lines[0].keys()
