from tunesmith.core.records import Message, Meta, Row, pair
from tunesmith.prepare.report import find, page


def row(question: str, answer: str, line: int, system: str = "") -> Row:
    return pair(question, answer, system=system, meta=Meta("f", line))


def test_the_same_question_with_other_answers_is_a_contradiction() -> None:
    rows = [row("Is it free?", "Yes.", 1), row("is it FREE", "No.", 2), row("Is it free?", "Yes!", 3)]
    found = find([*rows, row("Is it free?", "Maybe", 4, system="Be vague."), row("Other", "No.", 5)])
    assert found["contradictions"].count == 1
    assert found["contradictions"].examples == ("Is it free? (f:1, f:2)",)


def test_an_answer_to_five_questions_is_a_constant() -> None:
    rows = [row(f"question {i}", "Not my topic.", i) for i in range(5)] + [row("x", "Four", i) for i in range(4)]
    assert find(rows)["constants"].examples == ("5 questions: Not my topic.",)
    assert find(rows)["constants"].count == 1


def test_missing_values_and_residue_are_listed_with_their_place() -> None:
    rows = [row("Q", "NaN", 3), row("[INST] Q [/INST]", "A", 4), row("Q", "None of them", 5)]
    found = find(rows)
    assert (found["nulls"].count, found["nulls"].examples) == (1, ("f:3 Q",))
    assert (found["residue"].count, found["residue"].examples) == (1, ("f:4 [INST] Q [/INST]",))


def test_preferences_and_texts_are_looked_at_too() -> None:
    ask = (Message("user", "Q"),)
    rows = [Row(ask, chosen="A", rejected="B"), Row(ask, chosen="B", rejected="A")]
    assert find(rows)["contradictions"].count == 1
    assert find([Row(text="a"), Row(text="a")])["contradictions"].count == 0


def test_the_page_holds_the_receipt_the_notes_and_the_findings() -> None:
    rows = [row(f"[INST] {i} [/INST]", "A", i) for i in range(12)]
    receipt = {"set_id": "abc", "rows_in": 14, "kept": 12, "rejected": {"duplicate": 2}, "unwrapped": 0, "groups": 12}
    text = page(receipt | {"train": 10, "valid": 1, "test": 1}, find(rows).values(), ["a note"])
    for part in ("# Set abc", "| in | 14 |", "| rejected: duplicate | 2 |", "- a note", "mark: 12", "- and 2 more"):
        assert part in text
