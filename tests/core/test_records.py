from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.core.records import ORIGINS, ROLES, Message, Meta, Reject, Row, pair

METAS = st.builds(Meta, st.text(), st.integers(0), st.sampled_from(ORIGINS), st.text())
MESSAGES = st.lists(st.builds(Message, st.sampled_from(ROLES), st.text()), min_size=1, max_size=5).map(tuple)
ANSWERS = st.none() | st.text()
ROWS = st.builds(Row, messages=MESSAGES, chosen=ANSWERS, rejected=ANSWERS, meta=METAS) | st.builds(
    Row, text=st.text(min_size=1), meta=METAS
)


@given(ROWS)
def test_a_row_comes_back_from_json_as_it_went(row: Row) -> None:
    assert Row.from_json(json.loads(json.dumps(row.to_json()))) == row


@given(ROWS, METAS)
def test_the_same_content_has_the_same_id_wherever_it_lies(row: Row, elsewhere: Meta) -> None:
    moved = Row(row.messages, row.text, row.chosen, row.rejected, elsewhere)
    assert moved.id == row.id
    assert row.to_json()["id"] == row.id


@given(ROWS, ROWS)
def test_other_content_has_another_id(a: Row, b: Row) -> None:
    same = (a.messages, a.text, a.chosen, a.rejected) == (b.messages, b.text, b.chosen, b.rejected)
    assert (a.id == b.id) == same


ASK, TELL = Message("user", "a"), Message("assistant", "b")


@pytest.mark.parametrize(
    "other",
    [
        Row(messages=(ASK, Message("assistant", "c"))),
        Row(messages=(ASK, Message("tool", "b"))),
        Row(messages=(TELL, ASK)),
        Row(messages=(ASK, TELL), chosen="b"),
        Row(messages=(ASK, TELL), rejected="b"),
        Row(messages=(Message("user", "ab"),)),
        Row(text="ab"),
        Row(text='[["user", "a"], ["assistant", "b"]]'),
    ],
)
def test_a_change_anywhere_in_the_content_changes_the_id(other: Row) -> None:
    assert other.id != Row(messages=(ASK, TELL)).id


def test_an_id_is_the_same_in_every_version() -> None:
    """Ids stand in files: a change of this constant orphans every artifact there is."""
    assert pair("What is 2 + 2?", "4").id == "23931b70fd28d177"


def test_half_a_surrogate_pair_has_an_id_too() -> None:
    assert pair("cut \ud83d", "x").id != pair("cut ", "x").id


def test_a_pair_is_a_system_message_a_question_and_an_answer() -> None:
    row = pair("Q", "A", system="S", meta=Meta("faq.csv", 7))
    assert [m.role for m in row.messages] == ["system", "user", "assistant"]
    assert [m.content for m in row.prompt] == ["S", "Q"]
    assert (row.question, row.answer, row.meta.line) == ("Q", "A", 7)
    assert [m.role for m in pair("Q", "A").messages] == ["user", "assistant"]


@pytest.mark.parametrize(
    ("row", "prompt", "question", "answer"),
    [
        (Row(messages=(ASK, TELL, Message("user", "c"))), 3, "c", ""),
        (Row(messages=(ASK, TELL, ASK, Message("assistant", "d"))), 3, "a", "d"),
        (Row(messages=(TELL,)), 0, "", "b"),
        (Row(text="raw"), 0, "raw", ""),
    ],
)
def test_prompt_question_and_answer_of_every_shape(row: Row, prompt: int, question: str, answer: str) -> None:
    assert (len(row.prompt), row.question, row.answer) == (prompt, question, answer)


def test_a_row_is_written_with_what_it_has_and_no_more() -> None:
    assert set(pair("a", "b").to_json()) == {"id", "messages", "meta"}
    assert set(Row(text="a").to_json()) == {"id", "text", "meta"}
    assert set(Row(messages=(ASK,), chosen="", rejected="r").to_json()) == {
        "id",
        "messages",
        "chosen",
        "rejected",
        "meta",
    }


def without(key: str) -> dict[str, Any]:
    return {k: v for k, v in pair("a", "b").to_json().items() if k != key}


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (without("meta"), "'meta'"),
        (without("messages"), "either messages or text, and not both"),
        (pair("a", "b").to_json() | {"text": "c"}, "either messages or text, and not both"),
        (without("id") | {"messages": [{"role": "user"}]}, "'content'"),
        (without("id") | {"messages": [{"role": "user", "content": None}]}, "text where null stands"),
        (
            without("id") | {"messages": [{"role": "bot", "content": "a"}]},
            'one of system, user, assistant, tool where "bot" stands',
        ),
        (Row(text="a").to_json() | {"text": 3}, "text where 3 stands"),
        (pair("a", "b").to_json() | {"chosen": ["b"]}, 'text where ["b"] stands'),
        (pair("a", "b").to_json() | {"rejected": {"a": 1}}, 'text where {"a": 1} stands'),
        (pair("a", "b").to_json() | {"meta": {"line": "7"}}, 'a line number where "7" stands'),
        (
            pair("a", "b").to_json() | {"meta": {"origin": "alien"}},
            'one of human, generated, guard, edited where "alien" stands',
        ),
    ],
)
def test_what_is_not_a_row_is_refused_in_words(broken: dict[str, Any], complaint: str) -> None:
    with pytest.raises((KeyError, TypeError)) as error:
        Row.from_json(broken)
    assert str(error.value) == complaint


@pytest.mark.parametrize("broken", [{"messages": "hello"}, {"messages": 3}, {"meta": []}, {"meta": {"page": 1}}])
def test_a_wrong_shape_is_a_type_error(broken: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        Row.from_json(pair("a", "b").to_json() | broken)


def test_a_reject_says_where_it_stood_and_why() -> None:
    assert Reject("faq.csv", 3, "empty answer", raw="Q,").to_json() == {
        "source": "faq.csv",
        "line": 3,
        "reason": "empty answer",
        "detail": "",
        "raw": "Q,",
    }


def test_the_reference_is_the_answer_or_what_was_chosen() -> None:
    assert pair("q", "a").reference == "a"
    assert Row((Message("user", "q"),), chosen="good", rejected="bad").reference == "good"
    assert Row(text="raw").reference == ""
