import json
from dataclasses import dataclass
from typing import Any

import pytest

from tunesmith.collect.sniff import sniff
from tunesmith.collect.source import look
from tunesmith.collect.unpack import memory
from tunesmith.core.errors import DataError, UsageError
from tunesmith.core.records import Reject, Row


@dataclass
class Mapped:
    rows: list[Row]
    rejects: list[Reject]
    unused: list[str]
    dumped: int
    shape: str
    why: str


def mapped(rows: list[dict[str, Any]], **given: str) -> Mapped:
    """What becomes of the rows of a file of JSON lines."""
    source = look(sniff(memory("\n".join(json.dumps(row) for row in rows).encode(), "f")), given)
    items = list(source.items())
    kept, left = [i for i in items if isinstance(i, Row)], [i for i in items if isinstance(i, Reject)]
    return Mapped(kept, left, source.mapper.unused, source.mapper.dumped, str(source.shape), source.why)


def one(row: dict[str, Any]) -> Row:
    (made,) = mapped([row]).rows
    return made


def said(row: Row) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in row.messages]


PAIR = [("user", "Q"), ("assistant", "A")]


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [
        ("question", "answer"),
        ("prompt", "completion"),
        ("prompt", "response"),
        ("instruction", "output"),
        ("input", "output"),
        ("query", "response"),
        ("Question", "ANSWER"),
    ],
)
def test_the_usual_pairs_of_columns_are_known(prompt: str, completion: str) -> None:
    assert said(one({"id": 7, prompt: "Q", completion: "A"})) == PAIR


def test_instruction_input_output_with_system_and_history() -> None:
    row = {"instruction": "Q", "input": "I", "output": "A", "System Prompt": "S", "history": [["q1", "a1"]]}
    before = [("system", "S"), ("user", "q1"), ("assistant", "a1")]
    assert said(one(row)) == [*before, ("user", "Q\n\nI"), ("assistant", "A")]
    assert said(one({"instruction": "Q", "input": "", "output": "A", "system": None, "history": []})) == PAIR
    assert said(one({"question": "Q", "context": "C", "answer": "A"}))[0] == ("user", "Q\n\nC")


@pytest.mark.parametrize("name", ["messages", "conversations"])
def test_chats_are_kept_whole(name: str) -> None:
    chat = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}] * 2
    assert said(one({name: chat, "text": "Q? A! Q? A!"})) == PAIR * 2
    assert [reject.reason for reject in mapped([{name: chat, "text": "something else"}]).rejects] == ["text"]


def test_raw_text_has_no_messages() -> None:
    assert one({"text": "Once.", "url": "x"}) == Row(text="Once.", meta=one({"text": "y"}).meta)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Q", "chosen": "A", "rejected": "B"},
        {"instruction": "Q", "input": "", "chosen": "A", "rejected": "B"},
        {
            "conversations": [{"from": "human", "value": "Q"}],
            "chosen": {"from": "gpt", "value": "A"},
            "rejected": {"from": "gpt", "value": "B"},
        },
        {
            "chosen": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}],
            "rejected": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "B"}],
        },
    ],
)
def test_preferences_keep_prompt_chosen_and_rejected(row: dict[str, Any]) -> None:
    made = one(row)
    assert (said(made), made.chosen, made.rejected) == ([("user", "Q")], "A", "B")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": None, "answer": "A"}, "null"),
        ({"question": "Q", "answer": float("nan")}, "null"),
        ({"question": "Q", "answer": "A", "label": True}, "label"),
        ({"question": "Q", "answer": "A", "label": "-1"}, "label"),
        ({"question": "Q", "answer": "A", "tools": [{}]}, "tools"),
        ({"question": "Q", "answer": "A", "image": "a.png"}, "media"),
        ({"question": "Q", "answer": "3", "choice0": "x", "choice1": "y"}, "choices"),
        ({"question": "Q", "answer": "A", "history": "x"}, "history"),
        ({"question": "cut \ud83d", "answer": "A"}, "bad_characters"),
        ({"prompt": "Q", "completion": "A"}, "shape"),
        ({"question": "Q", "answer": "A", "response": "B"}, "shape"),
        ({}, "shape"),
    ],
)
def test_a_row_that_would_lose_something_is_rejected_with_line_and_reason(row: dict[str, Any], reason: str) -> None:
    out = mapped([{"question": "Q", "answer": "A"}] * 3 + [row])
    assert len(out.rows) == 3
    assert [(reject.line, reject.reason) for reject in out.rejects] == [(4, reason)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [{"role": "user", "content": "Q"}]}, "no_answer"),
        ({"messages": []}, "no_messages"),
        ({"prompt": "Q", "chosen": None, "rejected": "B"}, "null"),
        ({"chosen": "A", "rejected": "B"}, "preference"),
        ({"chosen": [{"role": "user", "content": "A"}], "rejected": "B"}, "preference"),
        ({"text": "  "}, "empty_text"),
    ],
)
def test_rows_of_other_shapes_are_rejected_with_a_reason(row: dict[str, Any], reason: str) -> None:
    assert [reject.reason for reject in mapped([row]).rejects] == [reason]


def test_a_category_is_no_judgement_but_is_named_as_unused() -> None:
    out = mapped([{"question": "Q", "answer": "A", "label": "billing"}])
    assert (len(out.rows), out.unused) == (1, ["label"])


def test_the_shape_is_voted_by_rows_over_the_whole_file_and_not_by_its_head() -> None:
    head = [{"prompt": "Q", "completion": "A"}] * 250
    out = mapped(head + [{"question": "Q", "answer": "A"}] * 750)
    assert out.shape == "pair (prompt=question, completion=answer)"
    assert out.why == "750 of 1000 rows"
    assert len(out.rejects) == 250


def test_canonical_rows_keep_origin_and_group() -> None:
    row = {"question": "Q", "answer": "A", "meta": {"source": "old", "line": 9, "origin": "guard", "group": "g"}}
    meta = one(row).meta
    assert (meta.source, meta.line, meta.origin, meta.group) == ("f", 1, "guard", "g")
    assert one({**row, "meta": {"origin": "martian"}}).meta.origin == "human"


@pytest.mark.parametrize(
    ("row", "flag"),
    [
        ({"Question": "Why?", "Best Answer": "So it is."}, "--map prompt=question --map completion=best_answer"),
        ({"text": "Lovely day", "label": "positive"}, "--map prompt=text --map completion=label"),
        ({"a": "What is it?", "b": "It is a long answer."}, "--map prompt=a --map completion=b"),
        ({"id": "1", "turns": ["Q"]}, "none looks like an answer"),
        (
            {"prompt": "Q?", "question": "Q?", "answer": "A long one here."},
            "tunesmith collect f --map prompt=prompt --map completion=answer",
        ),
    ],
)
def test_without_a_sure_pair_it_stops_with_the_flag_to_type(row: dict[str, Any], flag: str) -> None:
    with pytest.raises(DataError, match="which columns hold prompt and answer") as error:
        mapped([row] * 3)
    assert flag in str(error.value)


def test_given_columns_win_over_names_and_signals() -> None:
    rows = [{"Question": "Q", "answer": "wrong", "Best Answer": "A", "label": True}]
    out = mapped(rows, prompt="question", completion="Best Answer")
    assert said(out.rows[0]) == PAIR
    assert out.unused == ["answer", "label"]


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"promt": "q"}, UsageError, "did you mean 'prompt'"),
        ({"prompt": "q"}, UsageError, "no whole example"),
        ({"prompt": "q", "completion": "ansver"}, DataError, "did you mean 'answer'"),
    ],
)
def test_a_wrong_map_says_what_is_wrong(given: dict[str, str], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        mapped([{"q": "Q", "answer": "A"}], **given)


def test_values_that_are_no_text_are_counted() -> None:
    out = mapped([{"question": 1, "answer": {"a": 2}}, {"question": "Q", "answer": "A"}])
    assert (out.dumped, said(out.rows[0])) == (1, [("user", "1"), ("assistant", '{"a": 2}')])
