import pytest

from tunesmith.core.records import Meta, Reject, pair
from tunesmith.prepare.corpus import Corpus
from tunesmith.prepare.groups import Questions
from tunesmith.prepare.quality import Audit, audit
from tunesmith.prepare.report import notes, page
from tunesmith.text.residue import Unwrapped


def audited() -> Audit:
    rows = [pair(f"[INST] {i} [/INST]", "NULL", meta=Meta("f", i)) for i in range(12)]
    return audit(Corpus.of(rows), [*rows, rows[0]], train_rows=10)


MODELS = {"difficulty": None, "judge": None}  # NOT RUN


def made() -> str:
    receipt = {"set_id": "abc", "rows_in": 14, "kept": 12, "rejected": {"duplicate": 11}, "unwrapped": 0, "groups": 12}
    rejects = [Reject("f", i, "duplicate") for i in range(11)]
    return page(receipt | {"train": 10, "valid": 1, "test": 1, "notes": ["a note"], **MODELS}, audited(), rejects)


def test_the_page_holds_the_receipt_the_notes_and_the_places_of_what_was_rejected() -> None:
    text = made()
    for part in ("# Set abc", "| in | 14 |", "| rejected: duplicate | 11 |", "- a note", "f:9 and 1 more"):
        assert part in text
    assert "2 rows ask 1 questions again; 0 of these have different answers." in text


def test_every_axis_has_its_score_and_formula() -> None:
    text = made()
    for name, axis in audited().axes.items():
        assert f"### {name}: {'NOT RUN' if axis.score is None else axis.score}" in text
        assert f"`{axis.formula}`" in text


def test_findings_come_worst_first_ten_rows_each_with_a_fix() -> None:
    text = made()
    assert text.index("### null (error): 12") < text.index("### control_tokens (warning): 12")
    assert '`reject = ["null"]` under [prepare] in tunesmith.toml, then `tunesmith prepare`' in text
    assert "- f:9 (" in text.split("### null")[1].split("###")[0]
    assert "- and 2 more" in text
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


def test_a_set_without_findings_says_so() -> None:
    rows = [pair("what is it for", "It is for this.", meta=Meta("f", 1))]
    receipt = {"set_id": "a", "rows_in": 1, "kept": 1, "rejected": {}, "unwrapped": 0, "groups": 1}
    text = page(
        receipt | {"train": 1, "valid": 0, "test": 0, "notes": [], **MODELS}, audit(Corpus.of(rows), rows, 1), []
    )
    assert "## Findings\n\nNone.\n" in text
    assert "Rejected rows" not in text


HARD = {"model": "tiny", "answers": 9, "left_out": 2, "perplexity": {"median": 12.5}, "ifd": {"median": 0.61}}
JUDGED = {"model": "big", "rows": 10, "unreadable": 1, "scores": {"1": 2, "5": 7}, "mean": {"mean": 4.11}}


def test_what_models_say_has_a_section_each_and_a_note() -> None:
    rows = [pair("what is it for", "It is for this.", meta=Meta("f", 1))]
    models = {"difficulty": HARD | {"ifd_of_1_or_more": 3}, "judge": JUDGED}
    receipt = {"set_id": "a", "rows_in": 1, "kept": 1, "rejected": {}, "unwrapped": 0, "groups": 1, "notes": []}
    text = page(receipt | {"train": 1, "valid": 0, "test": 0, **models}, audit(Corpus.of(rows), rows, 1), [])
    assert "## Difficulty\n\nBy tiny, on 9 answers (2 left out: too long for it, or refused by its template)." in text
    assert "| | median |\n|---|---:|\n| perplexity | 12.5 |\n| ifd | 0.61 |" in text
    assert "## Judge\n\nA model's opinion, not a measurement. Rows by score: 1: 2, 5: 7; not readable: 1." in text


@pytest.mark.parametrize(
    ("mean", "told"),
    [
        ({"mean": 4.111, "low": 3.9, "high": 4.3}, "mean 4.11 [3.90, 4.30] of 5"),
        ({"mean": 4.0, "low": None, "high": None}, "mean 4.00 of 5"),
        ({"mean": None, "low": None, "high": None}, "no score of 5"),
    ],
)
def test_a_mean_opinion_comes_with_its_interval(mean: dict[str, float | None], told: str) -> None:
    facts = {"leaked": 0, "leaked_random_split": 0, "kept": 1, "difficulty": None, "judge": JUDGED | {"mean": mean}}
    row = pair("q", "a", meta=Meta("f", 1, group="g"))
    out = notes({"train": [row], "valid": [], "test": []}, Unwrapped([row], 0, ()), Questions({}, {}, []), facts)
    assert out[-1] == f"judged by big: {told} (10 rows, 1 without a readable score)"
