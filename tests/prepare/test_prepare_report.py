from tunesmith.core.records import Meta, Reject, pair
from tunesmith.prepare.corpus import Corpus
from tunesmith.prepare.quality import Audit, audit
from tunesmith.prepare.report import page


def audited() -> Audit:
    rows = [pair(f"[INST] {i} [/INST]", "NULL", meta=Meta("f", i)) for i in range(12)]
    return audit(Corpus.of(rows), [*rows, rows[0]], train_rows=10)


def made() -> str:
    receipt = {"set_id": "abc", "rows_in": 14, "kept": 12, "rejected": {"duplicate": 11}, "unwrapped": 0, "groups": 12}
    rejects = [Reject("f", i, "duplicate") for i in range(11)]
    return page(receipt | {"train": 10, "valid": 1, "test": 1}, audited(), rejects, ["a note"])


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
    text = page(receipt | {"train": 1, "valid": 0, "test": 0}, audit(Corpus.of(rows), rows, 1), [], [])
    assert "## Findings\n\nNone.\n" in text
    assert "Rejected rows" not in text
