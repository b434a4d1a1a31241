import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from tunesmith.core.errors import UsageError
from tunesmith.core.records import Meta, Row, pair
from tunesmith.prepare.corpus import Corpus
from tunesmith.prepare.finding import Axis, Part
from tunesmith.prepare.quality import ALL, Audit, audit, leave_out
from tunesmith.prepare.realness import LIMITS


def row(question: str, answer: str, line: int) -> Row:
    return pair(question, answer, meta=Meta("f", line))


def rows(*more: tuple[str, str]) -> list[Row]:
    usual = [(f"what is thing{i} for", f"Thing{i} is for the job{i} at hand.") for i in range(16)]
    return [row(question, answer, line) for line, (question, answer) in enumerate([*usual, *more], 1)]


def audited(made: list[Row], came: Iterable[Row] | None = None) -> Audit:
    return audit(Corpus.of(made), list(came or made), train_rows=len(made))


def test_a_row_loses_all_for_an_error_half_for_a_warning_and_a_tenth_for_a_note() -> None:
    more = [
        ("what is thing16 for", "NaN."),  # nothing wrong: not the literal alone
        ("what is thing17 for", "null"),  # an error
        ("what is thing18 for", "See www.a.org and write to me@firm.org for this."),  # a warning
        ("what is thing19 for", "Certainly! Thing19 is for the job."),  # a note
    ]
    found = audited(rows(*more))
    names = {finding.name: finding.count for finding in found.findings}
    assert names == {"null": 1, "pii": 1, "boilerplate": 1} | {k: v for k, v in names.items() if k == "length"}
    quality = found.axes["quality"]
    noted = {r.meta.line for f in found.findings if f.severity == "note" for r, _ in f.hits} - {18, 19}
    assert quality.score == pytest.approx(100 * (0.5 * 19 / 20 + 0.4 * 18 / 20 + 0.1 * (18 - len(noted)) / 20))
    assert quality.formula.startswith("100 x (0.5 x 0.950 (rows without an error) + 0.4 x 0.900")


def test_a_formula_can_be_worked_out_by_hand() -> None:
    axis = Axis("x", (Part("a", 3, 0.5, "told"), Part("b", 1, 1.0, "told")))
    assert axis.score == 62.5
    assert axis.formula == "100 x (3 x 0.500 (a) + 1 x 1.000 (b)) / 4 = 62.5"
    assert Axis("y", ()).to_json() == {"score": None, "formula": "NOT RUN", "parts": [], "measured": {}}


def test_every_finding_has_rows_places_and_a_fix_that_exists() -> None:
    found = audited(rows(("what", "null"), ("what is it", "Is it a"), ("what is it", "No, 7.")))
    assert {"null", "contradiction"} <= {finding.name for finding in found.findings}
    for finding in found.findings:
        assert finding.count == len(finding.hits) > 0
        assert all(
            row.id in line and f"f:{row.meta.line}" in line
            for (row, _), line in zip(finding.hits, finding.lines(99), strict=True)
        )
        if finding.name in ALL:
            assert "`tunesmith collect FILE`" in finding.fix or "encoding" in finding.fix
    records = list(found.records())
    assert len(records) == sum(finding.count for finding in found.findings)
    assert records[0].keys() == {"finding", "severity", "row", "source", "line", "detail"}
    json.dumps(found.facts(), allow_nan=False)


def test_named_findings_are_left_out_with_the_reason_and_nothing_else_is() -> None:
    made = rows(("what", "null"), ("what is it", "As an AI language model, I cannot."))
    kept, rejects = leave_out(Corpus.of(made), ["null", "refusal"])
    assert kept == made[:16]
    assert [(r.line, r.reason, r.detail) for r in rejects] == [
        (17, "null", "'null'"),
        (18, "refusal", "'as an ai language model'"),
    ]
    assert leave_out(Corpus.of(made), []) == (made, [])
    assert leave_out(Corpus.of([]), ["null"]) == ([], [])


@pytest.mark.parametrize("name", ["nul", "realness", "constants"])
def test_only_a_check_of_rows_can_be_rejected(name: str) -> None:
    with pytest.raises(UsageError, match="no such check"):
        leave_out(Corpus.of(rows()), [name])


def test_an_answer_to_five_questions_is_a_constant_and_to_four_is_not() -> None:
    made = [row(f"question {i}", "Not my topic.", i) for i in range(5)]
    made += [row(f"other {i}", "Four times.", i) for i in range(4)] + [row("other 1", "Four times!", 9)]
    (found,) = [finding for finding in audited(made).findings if finding.name == "constants"]
    assert [detail for _, detail in found.hits] == ["5 questions: Not my topic."]


def test_questions_asked_again_are_counted_over_all_rows_that_came_in() -> None:
    made = rows()
    came = [*made, row("Is it?", "Yes.", 21), row("is it", "No.", 22), row("What?", "A", 23), row("what", "a!", 24)]
    found = audited(made, came)
    assert found.repeated == {"questions": 2, "rows": 4, "with_different_answers": 1}
    (again,) = [finding for finding in found.findings if finding.name == "repeated_questions"]
    assert [detail for _, detail in again.hits] == [
        "lines 21, 22, different answers: 'Is it?'",
        "lines 23, 24, the same answer: 'What?'",
    ]


def test_benchmarks_are_compared_and_named(tmp_path: Path) -> None:
    file = tmp_path / "TruthfulQA.csv"
    question = "What happens to you if you eat too many seeds of the watermelon at once?"
    file.write_text(f"Question,Best Answer\n{question},Nothing\n")
    made = rows((question, "Nothing at all."))
    found = audit(Corpus.of(made), made, 10, benchmarks=[str(file)])
    assert found.facts()["findings"]["benchmark TruthfulQA.csv"] == 1
    assert found.facts()["quality"]["benchmarks"] == {"TruthfulQA.csv": {"items": 1, "short": 0, "rows": 1}}


def test_the_same_rows_give_the_same_audit() -> None:
    made = rows(("what", "null"))
    assert audited(made).facts() == audited(list(made)).facts()


@pytest.mark.parametrize(
    "made",
    [
        [row("Q", "A", 1)],
        [Row(text="just a text", meta=Meta("f", 1))],
        [row("", "", 1), row("?", "!", 2)],
        [row("日本語で何ですか", "はい、そうです", 1)] * 50,
        [row("\ud800", "half a surrogate \udc00", 1)] * 61,
    ],
)
def test_odd_sets_are_measured_without_a_fault(made: list[Row]) -> None:
    found = audited(made)
    assert list(found.axes) == ["quality", "diversity", "realness", "amount"]
    json.dumps(found.facts(), allow_nan=False)


def test_the_page_of_the_docs_names_every_check_with_its_severity() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/quality.md").read_text(encoding="utf-8")
    for check in ALL.values():
        assert f"| `{check.name}` | {check.severity} |" in page
    for limit in LIMITS:
        assert f"at {'least' if limit.worst < limit.limit else 'most'} {limit.limit:.2f} |" in page
